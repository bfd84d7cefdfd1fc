"""What the simulator knows of a head: MR images and maps of its tissues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, Grid
from MMRegCore.simulate.noise import gaussian_blur, smooth_step
from MMRegCore.volume import Volume
from MMRegCore.warp import resample

Contrast = Literal["t1", "t2", "flair"]
Mask = npt.NDArray[np.bool_]

# Channels of `Anatomy.tissues`, in order.
TISSUES = ("white", "grey", "sulci", "ventricles", "falx")

# From dark to bright in each contrast.
_ORDER_BY_INTENSITY: dict[str, tuple[str, str, str]] = {
    "t1": ("csf", "grey", "white"),
    "t2": ("white", "grey", "csf"),
    "flair": ("csf", "white", "grey"),
}
# Fluid this deep below the surface, and thick, is a ventricle; sulci and fissures are shallower or thinner.
_VENTRICLE_DEPTH_MM = 22.0
_VENTRICLE_HALF_THICKNESS_MM = 1.5
_FALX_HALF_WIDTH_MM = 2.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """MR images of one brain and the share of each tissue.

    Attributes
    ----------
    images : tuple of Volume
        Aligned MR images, one or several contrasts, each on its own grid.
    tissues : Volume, (5, D, H, W)
        Share in [0, 1] of each of `TISSUES`; together at most 1, less than 1 outside the brain.
    pia : Volume, (1, D, H, W)
        0 to 1: how clearly a thin sheet of fluid stands out, however small its share: sulci and the brain's surface.
    """

    images: tuple[Volume, ...]
    tissues: Volume
    pia: Volume

    def tissue(self, name: str) -> Volume:
        """The map of one of `TISSUES`, (1, D, H, W)."""
        index = TISSUES.index(name)
        return Volume(self.tissues.data[index : index + 1], self.tissues.grid, name=name)

    @property
    def brain(self) -> Volume:
        """(1, D, H, W): share of anything that belongs to the brain or its fluid."""
        return Volume(self.tissues.data.sum(dim=0, keepdim=True), self.tissues.grid, name="brain")


def anatomy_from_maps(images: Sequence[Volume], white: Volume, grey: Volume, csf: Volume) -> Anatomy:
    """Split the fluid into ventricles, falx and sulci and put all tissues together.

    Parameters
    ----------
    images : sequence of Volume
    white, grey, csf : Volume, (1, D, H, W)
        Shares in [0, 1] on one grid, RAS axes roughly those of the head.
    """
    fluid = csf.data[0]
    brain = white.data[0] + grey.data[0] + fluid
    ventricles = fluid * _ventricle_mask(fluid, brain, white.grid)
    falx = (fluid - ventricles) * _midline_share(brain, white.grid)
    sulci = fluid - ventricles - falx
    tissues = torch.stack([white.data[0], grey.data[0], sulci, ventricles, falx])
    pia = Volume(_pia(sulci, white.grid)[None], white.grid, name="pia")
    return Anatomy(tuple(images), Volume(tissues, white.grid, name="tissues"), pia)


def anatomy_from_mr(images: Sequence[Volume], contrast: Contrast = "t1", spacing_mm: float = 1.0) -> Anatomy:
    """A crude anatomy from MR images alone: three classes of the first image's intensity (Otsu 1979).

    Parameters
    ----------
    images : sequence of Volume
        Aligned and skull-stripped (zero outside the brain); the first is split into tissues.
    contrast : {'t1', 't2', 'flair'}
        Of the first image: says which class is fluid, grey and white matter.
    spacing_mm : float
        Of the tissue maps.

    Raises
    ------
    InputError
        When there is no image or it has no contrast inside the brain.
    """
    if not images:
        raise InputError("expected at least one MR image to simulate from; got none")
    first = images[0]
    grid = first.grid.with_spacing([spacing_mm] * 3)
    intensity = resample(first, grid)[0]
    inside = _filled(intensity > 0)
    shares = _shares_by_intensity(intensity, inside, contrast, first.name)
    white, grey, csf = (Volume(shares[name][None], grid, name=name) for name in ("white", "grey", "csf"))
    return anatomy_from_maps(images, white, grey, csf)


def _shares_by_intensity(
    intensity: torch.Tensor, inside: torch.Tensor, contrast: Contrast, name: str
) -> dict[str, torch.Tensor]:
    values = intensity[inside]
    if len(values) < 1000 or float(values.max() - values.min()) <= 0:
        raise InputError(f"expected '{name}' to show a skull-stripped brain; got {len(values)} voxels with contrast")
    # Bright vessels and enhancing tumour would pull the thresholds up.
    top = float(np.percentile(values.numpy(), 99))
    smooth = gaussian_blur(intensity.clamp(max=top)[None], (0.6,) * 3)[0]
    row = sitk.GetImageFromArray(smooth[inside].reshape(1, 1, -1).numpy())
    labels = sitk.GetArrayFromImage(sitk.OtsuMultipleThresholds(row, numberOfThresholds=2))
    classes = torch.from_numpy(labels.reshape(-1))
    means = [float(smooth[inside][classes == k].mean()) for k in range(3)]
    # Between two class means a voxel is a mixture of both.
    dark = ((means[1] - smooth) / (means[1] - means[0])).clamp(0, 1) * inside
    bright = ((smooth - means[1]) / (means[2] - means[1])).clamp(0, 1) * inside
    shares = (dark, inside.float() - dark - bright, bright)
    return dict(zip(_ORDER_BY_INTENSITY[contrast], shares, strict=True))


def _filled(mask: torch.Tensor) -> torch.Tensor:
    """(D, H, W) bool with its holes filled and its largest part only."""
    image = sitk.GetImageFromArray(mask.numpy().astype(np.uint8))
    image = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, (2, 2, 2)))
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(image)) == 1
    return torch.from_numpy(sitk.GetArrayFromImage(largest).astype(bool))


def _ventricle_mask(fluid: torch.Tensor, brain: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(D, H, W) float: fluid that is deep and thick, grown back to its own edge."""
    depth_mm = torch.from_numpy(depth_below_surface_mm(brain.numpy() > 0.5, grid))
    radius = [max(1, round(_VENTRICLE_HALF_THICKNESS_MM / float(s))) for s in grid.spacing_mm]
    core = sitk.GetImageFromArray(((fluid > 0.6) & (depth_mm > _VENTRICLE_DEPTH_MM)).numpy().astype(np.uint8))
    core = sitk.BinaryMorphologicalOpening(core, radius)
    grown = sitk.GetArrayFromImage(sitk.BinaryDilate(core, [2 * r for r in radius])).astype(np.float32)
    return torch.from_numpy(grown)


def depth_below_surface_mm(inside: Mask, grid: Grid) -> Array:
    """(D, H, W) float64: distance in mm of every inside voxel from the nearest outside one; 0 outside."""
    # A head that touches the edge of its image still has a surface there.
    image = sitk.GetImageFromArray(np.pad(inside, 1).astype(np.uint8))
    image.SetSpacing([float(v) for v in grid.spacing_mm])
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    )[1:-1, 1:-1, 1:-1]
    return np.asarray(np.maximum(distance, 0), dtype=np.float64)


def _pia(sulci: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(D, H, W): fluid in proportion to what lies around it; a narrow sulcus counts as much as a wide one."""
    # MR of 1 mm, and more so an average of heads, leaves only some per cent of fluid in the depth of a sulcus.
    around = gaussian_blur(sulci[None], [2.5 / float(s) for s in grid.spacing_mm[::-1]])[0]
    return smooth_step(sulci / (around + 0.03), 1.1, 2.2)


def _midline_share(brain: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(D, H, W): 1 on the sagittal plane through the middle of the brain, falling off to both sides."""
    right_mm = torch.from_numpy(grid.points_ras()[..., 0]).float()
    middle = float((right_mm * brain).sum() / brain.sum())
    return torch.exp(-0.5 * ((right_mm - middle) / _FALX_HALF_WIDTH_MM) ** 2)
