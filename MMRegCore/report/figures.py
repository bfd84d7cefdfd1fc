"""Pictures of a registration as PNG bytes; needs the extra ``report`` (matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from MMRegCore.assessment.assess import Assessment, QualityMap, finite
from MMRegCore.errors import MMRegError
from MMRegCore.geometry import Grid
from MMRegCore.ops import gaussian_blur
from MMRegCore.report.planes import Picture, Plane, planes_through
from MMRegCore.volume import Volume

try:
    from contourpy import contour_generator
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke
    from PIL import Image
except ImportError as error:
    raise MMRegError("expected matplotlib for pictures; got none: run pip install 'mmreg[report]'") from error

WIDTH_INCH, HEADER_INCH, DPI = 12.0, 0.4, 100
BACKGROUND, TEXT, CONTOUR = "#0f1318", "#e8eaed", "#ff9d1e"
# What is brighter than its surroundings in the ultrasound (sulci, falx, tumour rim) is outlined: this share of it.
BRIGHT_SHARE = 0.18
FINE_MM, COARSE_MM = 0.7, 5.0
# Outlines shorter than this are speckle.
SHORTEST_OUTLINE_MM = 8.0
# Outside the ultrasound the MR is context only.
DIMMED = 0.5
TILE_MM = 8.0
_GAP_MM = 2.0

Draw = Callable[[Axes, Plane], None]


@dataclass(frozen=True)
class Strip:
    """One picture: the three planes side by side."""

    key: str  # short identifier, such as 'before'
    title: str  # what it shows, in plain words
    png: bytes


class Pictures:
    """Draws the pictures of one assessment; all strips show the same cuts at the same scale."""

    def __init__(self, fixed: Volume, assessment: Assessment) -> None:
        self._assessment = assessment
        self._mask = assessment.mask
        self._grid = fixed.grid
        self._fixed = finite(fixed)
        self._planes = planes_through(fixed.grid, assessment.mask)
        # The lengths above are made for brains: an image of a few mm (light and electron microscopy) shrinks them.
        self._scale = min(1.0, self._planes[0].largest_mm / 40)
        self._fixed_range = _range(self._fixed.data[0][self._mask])
        self._bright, self._bright_level = self._bright_structures()
        self._in_mask = {plane.name: plane.cut_mask(self._mask, self._grid) for plane in self._planes}

    def alignment(self, index: int) -> list[Strip]:
        """The ultrasound, then the moving image ``index`` before and after, with the same outlines on all three."""
        states, limits = self._states(index)
        strips = [self._ultrasound]
        for key, state in states.items():
            title = f"{state.name} {key} registration, the same ultrasound outlines"
            strips.append(Strip(key, title, self._strip(title, self._outlined(state, limits))))
        return strips

    def checkerboard(self, index: int) -> list[Strip]:
        """Tiles of ultrasound and of the moving image ``index`` in turn, before and after."""
        states, limits = self._states(index)
        strips = []
        for key, state in states.items():
            title = f"Tiles of ultrasound and {state.name} {key} registration"
            strips.append(Strip(key, title, self._strip(title, self._tiled(state, limits))))
        return strips

    def maps(self) -> list[Strip]:
        """The maps of the assessment as colours on the ultrasound."""
        return [self._map(found) for found in self._assessment.maps]

    @cached_property
    def _ultrasound(self) -> Strip:
        title = "Ultrasound, its bright structures outlined"
        return Strip("ultrasound", title, self._strip(title, self._outlined(self._fixed, self._fixed_range)))

    def _states(self, index: int) -> tuple[dict[str, Volume], tuple[float, float]]:
        """A moving image before and after registration, and the brightness that both are shown with."""
        states = {"before": self._assessment.before[index], "after": self._assessment.after[index]}
        return states, _range(torch.cat([state.data[0][self._region(state)] for state in states.values()]))

    def _region(self, state: Volume) -> torch.Tensor:
        """Where a moving image sets its own contrast: in the mask, as far as it covers that."""
        covered = self._mask if state.mask is None else self._mask & state.mask
        return covered if bool(covered.any()) else self._mask

    def _bright_structures(self) -> tuple[Volume, float]:
        """Brightness relative to the surroundings, which depth attenuation leaves alone, and the level to outline."""
        weight = self._mask.float()
        image = (self._fixed.data[0] - self._fixed_range[0]).clamp(min=0) * weight
        fine, coarse = (
            _smoothed(image, self._grid, sigma) / _smoothed(weight, self._grid, sigma).clamp(min=1e-3)
            for sigma in (FINE_MM * self._scale, COARSE_MM * self._scale)
        )
        # A twentieth of the mean keeps the ratio calm where the ultrasound is black.
        contrast = (fine - coarse) / (coarse + 0.05 * image[self._mask].mean() + 1e-6)
        level = float(np.quantile(contrast[self._mask].numpy(), 1 - BRIGHT_SHARE))
        return Volume(contrast[None], self._grid), level

    def _outlined(self, volume: Volume, limits: tuple[float, float]) -> Draw:
        def draw(axes: Axes, plane: Plane) -> None:
            in_mask = self._in_mask[plane.name]
            _show(axes, _dimmed(_scaled(plane.cut(volume), limits), in_mask))
            bright = np.where(in_mask, plane.cut(self._bright), np.nan)
            _outline(axes, bright, self._bright_level, SHORTEST_OUTLINE_MM * self._scale / plane.pixel_mm)

        return draw

    def _tiled(self, state: Volume, limits: tuple[float, float]) -> Draw:
        def draw(axes: Axes, plane: Plane) -> None:
            in_mask = self._in_mask[plane.name]
            # Square root: the ultrasound, mostly dark, comes near the gray level of the MR.
            fixed = np.sqrt(_scaled(plane.cut(self._fixed), self._fixed_range))
            moving = _scaled(plane.cut(state), limits)
            rows, columns = np.indices(fixed.shape) * plane.pixel_mm // (TILE_MM * self._scale)
            _show(axes, _dimmed(np.where(in_mask & ((rows + columns) % 2 == 0), fixed, moving), in_mask))

        return draw

    def _map(self, found: QualityMap) -> Strip:
        about, norm = found.summary, Normalize(*found.summary.limits)
        colours = LinearSegmentedColormap.from_list(about.name, about.colours)
        title = f"{about.title} in {about.unit}" if about.unit else about.title

        def draw(axes: Axes, plane: Plane) -> None:
            _show(axes, _scaled(plane.cut(self._fixed), self._fixed_range))
            shown = np.where(self._in_mask[plane.name], plane.cut(found.volume), np.nan)
            axes.imshow(shown, cmap=colours, norm=norm, alpha=0.6, interpolation="nearest")

        label = "; ".join(filter(None, (about.unit, about.sentence)))
        return Strip(about.name, title, self._strip(title, draw, (ScalarMappable(norm, colours), label)))

    def _strip(self, title: str, draw: Draw, colour_bar: tuple[ScalarMappable, str] | None = None) -> bytes:
        widths = [plane.size_mm[0] for plane in self._planes]
        height = max(plane.size_mm[1] for plane in self._planes)
        total = (sum(widths) + 2 * _GAP_MM) * (1.12 if colour_bar else 1.0)
        picture_inch = WIDTH_INCH * height / total
        figure = Figure(figsize=(WIDTH_INCH, picture_inch + HEADER_INCH), dpi=DPI, facecolor=BACKGROUND)
        usable = picture_inch / (picture_inch + HEADER_INCH)
        figure.text(
            0.005, (1 + usable) / 2, title, color=TEXT, fontsize=15, fontweight="bold", va="center", parse_math=False
        )
        left = 0.0
        for plane, width in zip(self._planes, widths, strict=True):
            share = plane.size_mm[1] / height
            box = (left / total, usable * (1 - share) / 2, width / total, usable * share)
            axes = figure.add_axes(box, facecolor=BACKGROUND)
            axes.set_axis_off()
            draw(axes, plane)
            _letters(axes, plane)
            left += width + _GAP_MM
        _scale_bar(figure.axes[0], self._planes[0])
        if colour_bar:
            _colour_bar(figure, left / total, usable, *colour_bar)
        return _png(figure, colours=None if colour_bar else 128)


def _range(values: torch.Tensor) -> tuple[float, float]:
    """Where most values lie and a little more: vessels and bone must not flatten the contrast of tissue."""
    low, high = (float(v) for v in np.quantile(values.numpy(), [0.04, 0.96]))
    room = 0.2 * (high - low)
    return (low - room, high + room) if high > low else (low, low + 1.0)


def _scaled(values: Picture, limits: tuple[float, float]) -> Picture:
    scaled: Picture = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0)
    return scaled


def _dimmed(picture: Picture, in_mask: npt.NDArray[np.bool_]) -> Picture:
    dimmed: Picture = np.where(in_mask, picture, DIMMED * picture)
    return dimmed


def _smoothed(values: torch.Tensor, grid: Grid, sigma_mm: float) -> torch.Tensor:
    """(D, H, W) under a Gaussian."""
    return gaussian_blur(values[None, None], (sigma_mm / grid.spacing_mm[::-1]).tolist())[0, 0]


def _show(axes: Axes, picture: Picture) -> None:
    axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="bilinear")


def _outline(axes: Axes, picture: Picture, level: float, shortest: float) -> None:
    """Lines at ``level``, those below ``shortest`` pixels left out."""
    lines = [np.asarray(line) for line in contour_generator(z=np.ma.masked_invalid(picture)).lines(level)]
    long = [line for line in lines if np.linalg.norm(np.diff(line, axis=0), axis=1).sum() >= shortest]
    axes.add_collection(LineCollection(long, colors=CONTOUR, linewidths=1.4, path_effects=_halo(2.6)), autolim=False)


def _halo(width: float) -> list[AbstractPathEffect]:
    """A dark rim, so that lines and letters stay legible on white."""
    return [Stroke(linewidth=width, foreground=BACKGROUND), Normal()]


def _letters(axes: Axes, plane: Plane) -> None:
    places = ((0.015, 0.5), (0.985, 0.5), (0.5, 0.985), (0.5, 0.015))
    for letter, (x, y) in zip(plane.letters, places, strict=True):
        _write(axes, x, y, letter, 13)
    _write(axes, 0.015, 0.985, plane.name, 12)


def _write(axes: Axes, x: float, y: float, text: str, size: int) -> None:
    """Text at (x, y) in shares of the picture, kept inside of it."""
    across = "left" if x < 0.3 else "right" if x > 0.7 else "center"
    along = "bottom" if y < 0.3 else "top" if y > 0.7 else "center"
    label = axes.text(
        x, y, text, transform=axes.transAxes, ha=across, va=along, color=TEXT, fontsize=size, parse_math=False
    )
    label.set_path_effects(_halo(2.5))


def _scale_bar(axes: Axes, plane: Plane) -> None:
    """10 mm, or less where the picture is small."""
    width_mm = plane.size_mm[0]
    length_mm = 10.0 if width_mm > 25 else float(f"{width_mm / 4:.1g}")
    axes.plot([0.03, 0.03 + length_mm / width_mm], [0.03, 0.03], transform=axes.transAxes, color=TEXT, linewidth=2.5)
    _write(axes, 0.03, 0.045, f"{length_mm:g} mm", 11)


def _colour_bar(figure: Figure, left: float, usable: float, colours: ScalarMappable, label: str) -> None:
    axes = figure.add_axes((left + 0.012, 0.1 * usable, 0.016, 0.8 * usable))
    bar = figure.colorbar(colours, cax=axes)
    bar.set_label(label, color=TEXT, fontsize=11)
    bar.ax.tick_params(colors=TEXT, labelsize=10)
    bar.ax.set_frame_on(False)


def _png(figure: Figure, colours: int | None) -> bytes:
    """Gray with one overlay needs only few colours, and a third of the space with them."""
    raw = io.BytesIO()
    figure.savefig(raw, format="rgba")
    picture = Image.frombytes("RGBA", figure.canvas.get_width_height(), raw.getvalue()).convert("RGB")
    stream = io.BytesIO()
    (picture if colours is None else picture.quantize(colours)).save(stream, format="PNG")
    return stream.getvalue()
