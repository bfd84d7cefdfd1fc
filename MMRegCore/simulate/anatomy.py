"""Input of the simulator: MR images of a head and maps of its tissue fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import gaussian_blur
from MMRegCore.simulate.noise import smooth_step
from MMRegCore.volume import Volume

Mask = npt.NDArray[np.bool_]

# Channels of `Anatomy.tissues`, in order.
TISSUES = ("white", "grey", "sulci", "ventricles", "falx")

# Fluid this deep below the surface, and thick, is a ventricle; sulci and fissures are shallower or thinner.
_VENTRICLE_DEPTH_MM = 22.0
_VENTRICLE_HALF_THICKNESS_MM = 1.5
_FALX_HALF_WIDTH_MM = 2.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """MR images of one brain and its tissue fractions."""

    images: tuple[Volume, ...]  # aligned MR images, one or several contrasts, each on its own grid
    # (5, D, H, W): volume fraction of each of `TISSUES`; their sum is at most 1, and less outside the brain.
    tissues: Volume
    # (1, D, H, W), 0 to 1: fluid relative to its surroundings, which shows the thinnest sulci and the brain's surface.
    pia: Volume
    # (1, D, H, W): volume fraction on the grid of the tissues, whose fractions it replaces.
    tumour: Volume | None = None

    def tissue(self, name: str) -> Volume:
        """The map of one of `TISSUES`, (1, D, H, W)."""
        index = TISSUES.index(name)
        return Volume(self.tissues.data[index : index + 1], self.tissues.grid, name=name)

    @property
    def brain(self) -> Volume:
        """(1, D, H, W): fraction of tissue, fluid and tumour together."""
        fraction = self.tissues.data.sum(dim=0, keepdim=True)
        return Volume(fraction if self.tumour is None else fraction + self.tumour.data, self.tissues.grid, name="brain")


def anatomy_from_maps(
    images: Sequence[Volume],
    white: Volume,
    grey: Volume,
    csf: Volume,
    *,
    ventricles: Volume | None = None,
    tumour: Volume | None = None,
) -> Anatomy:
    """Split the fluid into ventricles, falx and sulci and combine all tissues.

    Parameters
    ----------
    white, grey, csf : Volume, (1, D, H, W)
        Fractions in [0, 1] on one grid, RAS axes roughly those of the head.
    ventricles : Volume, (1, D, H, W), optional
        Fraction in [0, 1] on the same grid, not included in ``csf``; if None, the fluid that is deep and thick.
    tumour : Volume, (1, D, H, W), optional
        Fraction in [0, 1] on the same grid; replaces the tissues.
    """
    given = torch.zeros(()) if ventricles is None else ventricles.data[0]
    fluid = csf.data[0] + given
    brain = white.data[0] + grey.data[0] + fluid
    inner = fluid * _ventricle_mask(fluid, brain, white.grid) if ventricles is None else given
    falx = (fluid - inner) * _midline_weight(brain, white.grid)
    sulci = fluid - inner - falx
    tissues = torch.stack([white.data[0], grey.data[0], sulci, inner, falx])
    pia = Volume(_pia(sulci, white.grid)[None], white.grid, name="pia")
    if tumour is not None:
        tissues, pia = tissues * (1 - tumour.data), pia.with_data(pia.data * (1 - tumour.data))
    return Anatomy(tuple(images), Volume(tissues, white.grid, name="tissues"), pia, tumour)


def cropped(volumes: Sequence[Volume], margin: int = 4) -> list[Volume]:
    """Volumes of one grid, cropped to the bounding box of the positive voxels of the first, with a margin in voxels."""
    inside = torch.nonzero(volumes[0].data[0] > 0)
    low = [max(0, int(v) - margin) for v in inside.min(dim=0).values]
    high = [min(n, int(v) + margin + 1) for v, n in zip(inside.max(dim=0).values, volumes[0].grid.shape, strict=True)]
    shift = np.eye(4)
    shift[:3, 3] = low[::-1]
    grid = Grid((high[0] - low[0], high[1] - low[1], high[2] - low[2]), volumes[0].grid.ras_from_ijk @ shift)
    box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    return [Volume(volume.data[box].contiguous(), grid, name=volume.name) for volume in volumes]


def _ventricle_mask(fluid: torch.Tensor, brain: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(D, H, W) float: fluid that is deep and thick (morphological opening), dilated back to its own edge."""
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
    """(D, H, W): fluid relative to its neighbourhood, so that a narrow sulcus counts as much as a wide one."""
    # MR of 1 mm, and more so an average of heads, leaves only a few per cent of fluid in the depth of a sulcus.
    around = gaussian_blur(sulci[None, None], (2.5 / grid.spacing_mm[::-1]).tolist())[0, 0]
    return smooth_step(sulci / (around + 0.03), 1.1, 2.2)


def _midline_weight(brain: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(D, H, W): 1 on the sagittal plane through the middle of the brain, decreasing to both sides (Gaussian)."""
    right_mm = torch.from_numpy(grid.points_ras()[..., 0]).float()
    middle = float((right_mm * brain).sum() / brain.sum())
    return torch.exp(-0.5 * ((right_mm - middle) / _FALX_HALF_WIDTH_MM) ** 2)
