"""From images as they come to a pair ready for registration: checks, foreground, one working grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, Shape, transform_points
from MMRegCore.ops import inside, positions_between, sample
from MMRegCore.resampling import smooth_for
from MMRegCore.segmentation.field_of_view import replicate_edge
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Channel, Volume

Spacing = float | Literal["native", "auto"]
_Box = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

# Below this many voxels along an axis there is no neighbourhood to compare.
SMALLEST_AXIS = 8
# The automatic working grid: as fine as the image down to this, and no more voxels than this many.
FINEST_SPACING_MM = 0.5
MOST_VOXELS = 3_000_000
_RIM_VOXELS = 1
_EVERY = 4


@dataclass(frozen=True, eq=False)
class Prepared:
    """A fixed image and one or several moving images on one working grid.

    Attributes
    ----------
    grid : Grid
        Working grid; part of the fixed image's box.
    fixed : Channel
        In masked work its edge is replicated outside the foreground.
    moving : tuple of Channel
        Each moving image under the initial transform.
    masked : bool
        Whether weights count; otherwise they are 1 everywhere.
    """

    grid: Grid
    fixed: Channel
    moving: tuple[Channel, ...]
    masked: bool = True

    @property
    def spacing_mm(self) -> float:
        """Voxel size of the working grid."""
        return float(self.grid.spacing_mm.mean())

    @property
    def weights(self) -> list[torch.Tensor]:
        """(1, 1, D, H, W) each: where both the fixed and a moving image count."""
        return [self.fixed.weight * channel.weight for channel in self.moving]

    def to(self, device: torch.device) -> Prepared:
        """The same on another device."""
        moving = tuple(channel.to(device) for channel in self.moving)
        return Prepared(self.grid, self.fixed.to(device), moving, self.masked)


def check_image(volume: Volume) -> None:
    """Raise `InputError` unless an image can be registered: one value per voxel, structure, size, a mask not empty."""
    if volume.data.shape[0] != 1:
        raise InputError(f"expected one value per voxel in '{volume.name}'; got {volume.data.shape[0]}")
    if min(volume.grid.shape) < SMALLEST_AXIS:
        raise InputError(
            f"expected at least {SMALLEST_AXIS} voxels along every axis of '{volume.name}'; "
            f"got {' × '.join(map(str, volume.grid.itk_size))}"
        )
    if volume.mask is not None and not bool(volume.mask.any()):
        raise InputError(f"expected a mask of '{volume.name}' with voxels inside; got an empty one")
    values = volume.data[0][volume.foreground]
    if values.numel() == 0:
        raise InputError(f"expected finite voxels in '{volume.name}'; got only NaN or infinite ones")
    if float(values.min()) == float(values.max()):
        raise InputError(f"expected structure in '{volume.name}'; got the constant {float(values.min()):g}")


def prepare(
    fixed: Volume,
    moving: Sequence[Volume],
    initial: SpatialTransform,
    *,
    spacing_mm: Spacing,
    masked: bool,
    margin_mm: float,
) -> Prepared:
    """Bring images that passed `check_image` onto one working grid.

    Parameters
    ----------
    fixed : Volume
        Its mask is its foreground.
    moving : sequence of Volume
    initial : SpatialTransform
        Fixed to moving.
    spacing_mm : float, 'native' or 'auto'
        Voxel size of the isotropic working grid; 'native' takes the fixed image's own grid, whole; 'auto' is as fine
        as the fixed image, but not below 0.5 mm and not above three million voxels.
    masked : bool
        Whether masks count; False takes the images as they are, as published.
    margin_mm : float
        How far around the fixed mask the moving images may be needed.

    Raises
    ------
    InputError
        When no voxel of the fixed image is in its foreground.
    GeometryError
        When the fields of view do not overlap; says how far apart they are.
    """
    foreground = fixed.foreground if masked else torch.isfinite(fixed.data[0])
    if not bool(foreground.any()):
        raise InputError(f"expected content in '{fixed.name}'; found no voxel that differs from its background")
    grid = _working_grid(fixed, foreground, moving, initial, spacing_mm, margin_mm)
    there = _on_grid(fixed, foreground if masked else None, grid, None)
    with ThreadPoolExecutor(1) as background:
        # A distance transform of SimpleITK takes most of it, beside which Python goes on.
        replicated = background.submit(_with_replicated_edge, there, fixed, grid) if masked else None
        channels = tuple(_on_grid(volume, volume.foreground if masked else None, grid, initial) for volume in moving)
        if replicated is not None:
            there = replicated.result()
    for volume, channel in zip(moving, channels, strict=True):
        if not bool((there.weight * channel.weight).any()):
            raise _apart(fixed, foreground, volume, initial)
    return Prepared(grid, there, channels, masked)


def crop_to_foreground(
    field: DisplacementField, weight: torch.Tensor, margin_mm: float
) -> tuple[DisplacementField, torch.Tensor]:
    """The part of a field, and of its weight (D, H, W), within ``margin_mm`` of the box around the foreground."""
    low, high = _bounds(weight > 0)
    pad = int(np.ceil(margin_mm / float(field.grid.spacing_mm.min())))
    low, high = np.maximum(low - pad, 0), np.minimum(high + pad, np.array(field.grid.itk_size) - 1)
    low, grid = _cropped(field.grid, (low, high))
    part = tuple(slice(int(a), int(a) + n) for a, n in zip(low[::-1], grid.shape, strict=True))
    return DisplacementField(field.displacement_mm[part], grid), weight[part]


def _with_replicated_edge(channel: Channel, fixed: Volume, grid: Grid) -> Channel:
    """The fixed image without the rim of its foreground, its edge replicated outside."""
    if not bool(channel.weight.any()):
        raise _too_small(fixed, grid)
    weight = _without_rim(channel.weight)
    return Channel(replicate_edge(channel.image[0, 0], weight[0, 0] > 0)[None, None], weight)


def _too_small(fixed: Volume, grid: Grid) -> InputError:
    return InputError(
        f"expected a mask of '{fixed.name}' that holds voxels of the working grid ({grid.spacing_mm[0]:.3g} mm); "
        f"got a smaller one"
    )


def _working_grid(
    fixed: Volume,
    foreground: torch.Tensor,
    moving: Sequence[Volume],
    initial: SpatialTransform,
    spacing_mm: Spacing,
    margin_mm: float,
) -> Grid:
    if spacing_mm == "native":
        return fixed.grid
    spacing = _spacing(fixed, foreground, spacing_mm, margin_mm)
    pad = int(np.ceil(margin_mm / spacing))
    padded = fixed.grid.with_spacing([spacing] * 3).padded(pad)
    box = _around(foreground, fixed.grid, padded)
    low, tight = _cropped(padded, box)
    part = sample(foreground[None, None].float(), positions_between(fixed.grid, tight), padding_mode="zeros")
    if not bool(part.any()):
        raise _too_small(fixed, padded)
    low, high = (low + corner for corner in _bounds(part[0, 0] > 0))
    # The margin is worth its time only where a moving image reaches into it.
    start, wide = _cropped(padded, (np.maximum(low - pad, 0), np.minimum(high + pad, np.array(padded.itk_size) - 1)))
    reached = _reached(wide, moving, initial)
    if reached is not None:
        low, high = np.minimum(low, start + reached[0]), np.maximum(high, start + reached[1])
    return _cropped(padded, (low, high))[1]


def _around(foreground: torch.Tensor, grid: Grid, other: Grid) -> _Box:
    """The box of another grid that holds the foreground's, a voxel more to every side."""
    corners = np.array(list(product(*np.transpose(_bounds(foreground)))), dtype=np.float64)
    there = transform_points(other.ijk_from_ras @ grid.ras_from_ijk, corners)
    step = grid.spacing_mm / other.spacing_mm + 1
    low, high = np.floor(there.min(axis=0) - step), np.ceil(there.max(axis=0) + step)
    last = np.array(other.itk_size) - 1
    return np.clip(low, 0, last).astype(np.int64), np.clip(high, 0, last).astype(np.int64)


def _reached(grid: Grid, moving: Sequence[Volume], initial: SpatialTransform) -> _Box | None:
    """The box of a grid's voxels that a moving image covers; None when there is none."""
    low, high = np.array(grid.itk_size), np.full(3, -1)
    # Along each axis every voxel is looked at, but across it only one of some.
    for steps in 1 + (_EVERY - 1) * (1 - np.eye(3, dtype=np.int64)):
        size = -(-np.array(grid.itk_size) // steps)
        part = Grid(cast(Shape, tuple(map(int, size[::-1]))), grid.ras_from_ijk @ np.diag([*steps, 1.0]))
        for volume in moving:
            covered = inside(_positions(volume.grid, part, initial), volume.grid.shape)[0, 0]
            if bool(covered.any()):
                first, last = _bounds(covered)
                low, high = np.minimum(low, first * steps), np.maximum(high, last * steps)
    return (low, high) if (low <= high).all() else None


def _spacing(fixed: Volume, foreground: torch.Tensor, spacing_mm: float | Literal["auto"], margin_mm: float) -> float:
    extent = fixed.grid.spacing_mm * np.array(fixed.grid.itk_size)
    if spacing_mm == "auto":
        low, high = _bounds(foreground)
        volume_mm3 = float(np.prod(np.minimum((high - low + 1) * fixed.grid.spacing_mm + 2 * margin_mm, extent)))
        by_size = math.pow(volume_mm3 / MOST_VOXELS, 1 / 3)
        spacing = max(float(fixed.grid.spacing_mm.min()), FINEST_SPACING_MM, by_size)
    else:
        spacing = spacing_mm
    # No coarser than what leaves a neighbourhood along the shortest axis.
    return min(spacing, float(extent.min()) / SMALLEST_AXIS)


def _cropped(grid: Grid, box: _Box) -> tuple[npt.NDArray[np.int64], Grid]:
    """The part of a grid within a box of voxels (i, j, k), at least `SMALLEST_AXIS` long, and where it begins."""
    low, high = box
    low = np.maximum(low - np.maximum(SMALLEST_AXIS - (high - low + 1), 0), 0)
    high = np.maximum(high, low + SMALLEST_AXIS - 1)
    return low, grid.cropped(low, cast(Shape, tuple(int(n) for n in (high - low + 1)[::-1])))


def _bounds(mask: torch.Tensor) -> _Box:
    """First and last voxel (i, j, k) of a mask (D, H, W) along each axis."""
    index = mask.nonzero()
    return index.amin(dim=0).flip(0).cpu().numpy(), index.amax(dim=0).flip(0).cpu().numpy()


def _positions(source: Grid, target: Grid, initial: SpatialTransform | None) -> torch.Tensor:
    """(1, 3, D, H, W): where each voxel of ``target`` lies in ``source`` under the initial transform."""
    if initial is None or initial.is_linear:
        return positions_between(source, target, None if initial is None else initial.linear_ras)
    moved = target.points_ras() + initial.displacement_field(target).displacement_mm.double().numpy()
    return torch.from_numpy(transform_points(source.ijk_from_ras, moved)).float().flip(-1).permute(3, 0, 1, 2)[None]


def _on_grid(volume: Volume, foreground: torch.Tensor | None, grid: Grid, initial: SpatialTransform | None) -> Channel:
    """An image on the working grid; unmasked work pads with zeros."""
    positions = _positions(volume.grid, grid, initial)
    # A fill value for voxels that are not finite; they carry no weight in masked work.
    image = torch.nan_to_num(volume.data, nan=0.0, posinf=0.0, neginf=0.0)
    if foreground is None:
        values = sample(smooth_for(image, volume.grid, grid)[None], positions, padding_mode="zeros")
        return Channel(values, torch.ones_like(values))
    image = torch.where(foreground[None], image, image[0][foreground].median())
    values = sample(smooth_for(image, volume.grid, grid)[None], positions)
    weight = sample(foreground[None, None].float(), positions, padding_mode="zeros")
    return Channel(values, (weight > 0.99).float() * inside(positions, volume.grid.shape))


def _without_rim(weight: torch.Tensor) -> torch.Tensor:
    """The mask without its outer voxels, where the image is a blend with what lies outside."""
    image = sitk.GetImageFromArray(np.pad(weight[0, 0].numpy() > 0, 1, mode="edge").astype(np.uint8))
    core = sitk.GetArrayFromImage(sitk.BinaryErode(image, [_RIM_VOXELS] * 3, sitk.sitkBall, 0, 1))[1:-1, 1:-1, 1:-1]
    eroded = torch.from_numpy(core.astype(np.float32))[None, None]
    return eroded if bool(eroded.any()) else weight


def _apart(fixed: Volume, foreground: torch.Tensor, moving: Volume, initial: SpatialTransform) -> GeometryError:
    here = initial.apply(_some_points(fixed.grid, foreground))
    there = _some_points(moving.grid, moving.foreground)
    between = float(np.linalg.norm(there.mean(axis=0) - here.mean(axis=0)))
    return GeometryError(
        f"expected the fields of view of '{fixed.name}' and '{moving.name}' to overlap under the initial transform; "
        f"got {_distance_between(here, there):.0f} mm between them ({between:.0f} mm between their centres)"
    )


def _distance_between(first: Array, second: Array) -> float:
    """Smallest distance between two clouds of points (n, 3), mm, by going to and fro; exact for convex clouds."""
    point, gap = first.mean(axis=0), float("inf")
    while True:
        for cloud in (second, first):
            distance = np.linalg.norm(cloud - point, axis=1)
            point = cloud[distance.argmin()]
        if distance.min() >= gap:
            return gap
        gap = float(distance.min())


def _some_points(grid: Grid, mask: torch.Tensor, count: int = 20_000) -> Array:
    """At most ``count`` points (n, 3), RAS mm, spread over a mask."""
    index = mask.nonzero().flip(1).double().cpu().numpy()
    step = max(1, len(index) // count)
    return transform_points(grid.ras_from_ijk, index[::step])
