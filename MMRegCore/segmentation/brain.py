"""The brain in MR images of any contrast: whole heads, parts of heads, images that are stripped already.

The network says how far from the brain's surface every voxel lies (`BrainUNet`), so that a mask with any margin comes
from one pass.  What does not look like a part of a head is said, and nothing is left out of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from MMRegCore.geometry import Grid, Shape
from MMRegCore.intensities import with_warning
from MMRegCore.networks.brain_unet import SPACING_MM, BrainUNet
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.weights import load_network
from MMRegCore.ops import positions_between, sample
from MMRegCore.resampling import resample_smoothed
from MMRegCore.segmentation.field_of_view import replicate_edge
from MMRegCore.volume import Volume

WEIGHTS = "brain-unet"
# Skull that is within this of the brain is within reach of a brain that swelled, and of an error of the mask, which
# lies rather too deep than too far out.
MARGIN_MM = 4.0
# The lowest value of an image, on more than this share of it, is nothing.
_EMPTY_SHARE = 0.01
# Air is darker than this share of what is bright.
_AIR = 0.12
# A brain fills less than this share of a head.
_STRIPPED_SHARE = 0.6
# What shows something on more of an image's border is cut, and has no border of its own.
_CUT_SHARE = 0.05
# Gaps in what is shown that are closed; at a cut, the network is not asked for so many voxels.
_CLOSING_VOXEL, _RIM_VOXEL = 2, 2
# Parts of a brain that are smaller than this share of the largest one are none.
_SMALLEST_PART = 0.1
# Where a part of a head was recognised, the slope of the distance is 1 on the surface that was found; of what is no
# head it is anything.  Surfaces of fewer voxels than this say nothing.
_SLOPE, _SURFACE_VOXELS = (0.6, 1.4), 200
_LEAST_SURE = 0.9
_OUTSIDE_MM = 12.0


@dataclass(frozen=True, eq=False)
class Brain:
    """Where the brain is.

    Attributes
    ----------
    distance_mm : Tensor, (D, H, W)
        From its surface, negative inside.
    grid : Grid
    sure : float
        Share of the surface that looks like one of a brain, 0 to 1.
    """

    distance_mm: torch.Tensor
    grid: Grid
    sure: float

    @property
    def is_sure(self) -> bool:
        """Whether this can be relied on."""
        return self.sure >= _LEAST_SURE

    @property
    def volume_ml(self) -> float:
        """Of the brain within the image."""
        return float((self.distance_mm < 0).sum()) * self.grid.voxel_volume_mm3 / 1000

    def mask(self, grid: Grid, margin_mm: float = 0.0) -> torch.Tensor:
        """(D, H, W) bool on any grid: the brain and what is within a margin of it."""
        found = torch.zeros(grid.shape, dtype=torch.bool)
        # Slice by slice: positions of a large grid take more memory than the mask.
        for number, part in enumerate(grid.slices()):
            there = sample(self.distance_mm[None, None], positions_between(self.grid, part))
            found[number] = there[0, 0, 0] < margin_mm
        return found


@torch.no_grad()
def find_brain(images: Volume | Sequence[Volume]) -> Brain:
    """Find the brain in one or several images of one head, whatever their contrasts and grids.

    Several share one brain: where more than one shows a place, their distances are averaged.
    """
    volumes = [images] if isinstance(images, Volume) else list(images)
    network = load_network(WEIGHTS, BrainUNet)
    grid = _common_grid(volumes)
    total, count = torch.zeros(grid.shape), torch.zeros(grid.shape)
    inner = torch.zeros(grid.shape, dtype=torch.bool)
    for volume in volumes:
        shown, deep = _shown(volume, grid)
        if not bool(shown.any()):
            continue
        image = _on_grid(volume, grid)
        box = _box(shown & _bright(image, shown))
        with_edges = network(unit_range(image[box])[None, None])[0, 0]
        distance = _up_to_the_cut(with_edges, shown[box], deep[box])
        if _is_stripped(volume, distance, shown[box]):
            distance = torch.where(shown[box], distance.clamp(max=-2 * SPACING_MM), distance)
        # Nothing was stripped or left unscanned less than a voxel away.
        near = _dilated(shown[box])
        total[box] += torch.where(near, distance, 0.0)
        count[box] += near
        inner |= deep
    distance = torch.where(count > 0, total / count.clamp(min=1), _OUTSIDE_MM)
    return Brain(_main_parts(distance), grid, _sureness(distance, inner))


def with_brain(images: Sequence[Volume]) -> list[Volume]:
    """Images of one head with the brain and a margin for their mask, where they have none.

    Where no brain was recognised, they are as they were, with a warning that says so.
    """
    if all(volume.mask is not None for volume in images):
        return list(images)
    brain = find_brain([volume for volume in images if volume.mask is None])
    return [volume if volume.mask is not None else _masked(volume, brain) for volume in images]


def _masked(volume: Volume, brain: Brain) -> Volume:
    if brain.is_sure:
        mask = brain.mask(volume.grid, MARGIN_MM)
        if bool((mask & volume.foreground).any()):
            return volume.with_mask(mask)
    text = "no brain was recognised in it: all of it was used; give a mask if it shows a head"
    return with_warning(volume, text, logging.INFO)  # phantoms and animals are registered too


def _common_grid(volumes: Sequence[Volume]) -> Grid:
    """Along RAS, 2 mm, about the boxes of all images."""
    corners = np.concatenate([volume.grid.axis_aligned(SPACING_MM).corners_ras() for volume in volumes])
    low, high = corners.min(axis=0), corners.max(axis=0)
    matrix = np.diag([SPACING_MM] * 3 + [1.0])
    matrix[:3, 3] = low
    size = np.round((high - low) / SPACING_MM).astype(int) + 1
    return Grid(cast(Shape, tuple(int(n) for n in size[::-1])), matrix)


def _shown(volume: Volume, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """(D, H, W) bool each: where an image shows something, and where it does so all around."""
    values = volume.data[0]
    finite = volume.foreground
    # Where a good part of an image has its lowest value, that is none: what was stripped, or lies beside the scan.
    low = values[finite].min()
    empty = finite & (values == low)
    if float(empty.sum()) > _EMPTY_SHARE * float(finite.sum()):
        finite = finite & ~empty
    part = resample_smoothed(volume.with_data(finite[None].float()), grid)[0] > 0.5
    image = sitk.GetImageFromArray(np.pad(part.numpy(), _CLOSING_VOXEL + 1).astype(np.uint8))
    filled = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, [_CLOSING_VOXEL] * 3))
    eroded = sitk.BinaryErode(filled, [_RIM_VOXEL] * 3, sitk.sitkBall, 0, 1)
    inside = (slice(_CLOSING_VOXEL + 1, -_CLOSING_VOXEL - 1),) * 3
    shown, deep = (torch.from_numpy(sitk.GetArrayFromImage(each)[inside] > 0) for each in (filled, eroded))
    return shown, deep


def _is_stripped(volume: Volume, distance: torch.Tensor, shown: torch.Tensor) -> bool:
    """Whether what is shown is nothing but brain: it lies within its image, and a skull would leave it less room."""
    values = volume.data[0]
    low = values[torch.isfinite(values)].min()
    faces = [values.select(axis, index) for axis in range(3) for index in (0, -1)]
    at_border = torch.cat([(face > low).flatten() for face in faces]).float().mean()
    return float(at_border) < _CUT_SHARE and float((distance < 0)[shown].float().mean()) > _STRIPPED_SHARE


def _dilated(mask: torch.Tensor) -> torch.Tensor:
    """A mask (D, H, W) and the voxels beside it."""
    return F.max_pool3d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0


def _box(mask: torch.Tensor) -> tuple[slice, ...]:
    """The box around a mask (D, H, W) that is not empty."""
    index = mask.nonzero()
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(index.amin(dim=0), index.amax(dim=0), strict=True))


def _on_grid(volume: Volume, grid: Grid) -> torch.Tensor:
    """(D, H, W): an image on the grid, 0 outside of it."""
    good = torch.isfinite(volume.data[0])
    filled = torch.where(good, volume.data[0] - volume.data[0][good].min(), 0.0)
    return resample_smoothed(volume.with_data(filled[None]), grid)[0]


def _bright(image: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """(D, H, W) bool: what is no air; the features of the network are normalised over what it is shown."""
    top = image[shown].kthvalue(max(round(0.98 * int(shown.sum())), 1)).values
    # Means over blocks of three voxels: noise does not count.
    bright = F.avg_pool3d(image[None, None], 3, stride=1, padding=1)[0, 0] > _AIR * top
    return bright if bool((bright & shown).any()) else shown


def _up_to_the_cut(distance: torch.Tensor, shown: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
    """The distance with that of its rim taken from further inside: a cut through the brain is no surface of it."""
    rim = shown & ~deep
    if not bool(deep.any()) or not bool((distance[rim] < _RIM_VOXEL * SPACING_MM).any()):
        return distance
    return torch.where(rim, torch.minimum(replicate_edge(distance, deep), distance), distance)


def _main_parts(distance: torch.Tensor) -> torch.Tensor:
    """The distance with small parts taken out of the brain, and holes in it filled."""
    inside = sitk.GetImageFromArray((distance < 0).numpy().astype(np.uint8))
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(inside))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = (sizes >= max(_SMALLEST_PART * sizes.max(), 1))[parts]
    filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(kept.astype(np.uint8)))) > 0
    # A margin must not reach about what was taken out.
    near = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            sitk.GetImageFromArray(filled.astype(np.uint8)), squaredDistance=False, useImageSpacing=False
        )
    )
    apart = torch.from_numpy(near).float() * SPACING_MM
    outside = torch.where(apart > SPACING_MM, torch.maximum(distance, apart - SPACING_MM), distance)
    return torch.where(torch.from_numpy(filled), distance.clamp(max=-0.1), outside.clamp(min=0.0))


def _sureness(distance: torch.Tensor, inner: torch.Tensor) -> float:
    """How much of the surface is one; 1 where the image is all brain, 0 where there is none."""
    if not bool((distance[inner] < 0).any()):
        return 0.0
    slopes = torch.stack(torch.gradient(distance, spacing=SPACING_MM)).norm(dim=0)
    surface = (distance.abs() < SPACING_MM) & inner
    if int(surface.sum()) < _SURFACE_VOXELS:
        return 1.0
    low, high = _SLOPE
    return float(((slopes > low) & (slopes < high))[surface].float().mean())
