"""From images as they come to a pair ready for registration: masks, edges, one working grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, Shape, transform_points
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from MMRegCore.warp import inside, resample, resampling_coordinates, sample

Mask = npt.NDArray[np.bool_]

# Below this many voxels along an axis there is no neighbourhood to compare.
SMALLEST_AXIS = 8
# The automatic working grid: as fine as the image down to this, and no more voxels than this many.
FINEST_SPACING_MM = 0.5
MOST_VOXELS = 3_000_000
# Share of the border that one value must fill to be taken for background.
_OUTSIDE_IS_CONSTANT = 0.05
_CLOSING_VOXELS = 3
_RIM_VOXELS = 1


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pair (or more) on one working grid.

    Attributes
    ----------
    grid : Grid
        Working grid; part of the fixed image's box.
    fixed : Tensor, (1, 1, D, H, W)
        The fixed image; in masked work its edge is carried on outside the mask.
    fixed_weight : Tensor, (1, 1, D, H, W)
        1 where the fixed image is evidence, else 0.
    moving, moving_weight : tuple of Tensor, (1, 1, D, H, W)
        Each moving image under the initial transform, and where it is evidence.
    """

    grid: Grid
    fixed: torch.Tensor
    fixed_weight: torch.Tensor
    moving: tuple[torch.Tensor, ...]
    moving_weight: tuple[torch.Tensor, ...]

    def to(self, device: torch.device) -> Prepared:
        """The same pair on another device."""
        return Prepared(
            self.grid,
            self.fixed.to(device),
            self.fixed_weight.to(device),
            tuple(t.to(device) for t in self.moving),
            tuple(t.to(device) for t in self.moving_weight),
        )


def field_of_view_mask(volume: Volume) -> torch.Tensor:
    """Find where an image has content: (D, H, W) bool.

    What lies outside the cone of an ultrasound volume holds one constant value that reaches the border of the grid.
    Small gaps (shadows, dark ventricles) inside are closed; specks far from the main part are left out.  An image
    without such a background is content everywhere.  Voxels that are not finite are never content.
    """
    image = volume.data[0].cpu().numpy()
    finite = np.isfinite(image)
    background = _background_value(image)
    if background is None:
        return torch.from_numpy(finite)
    content = finite & (image != background)
    if not content.any():
        return torch.from_numpy(content)
    return torch.from_numpy(_main_part(_closed(content)) & finite)


def with_field_of_view(volume: Volume) -> Volume:
    """The image with its mask, or where it has none, with its field of view for one."""
    return volume if volume.mask is not None else volume.with_mask(field_of_view_mask(volume))


def _background_value(image: npt.NDArray[np.float32]) -> float | None:
    """The value that fills a good share of the grid's border, if one does."""
    faces = np.concatenate([image.take(index, axis=axis).ravel() for axis in range(3) for index in (0, -1)])
    values, counts = np.unique(faces[np.isfinite(faces)], return_counts=True)
    if len(values) == 0 or counts.max() < _OUTSIDE_IS_CONSTANT * len(faces):
        return None
    return float(values[counts.argmax()])


def _closed(content: Mask) -> Mask:
    pad = 2 * _CLOSING_VOXELS
    image = sitk.GetImageFromArray(np.pad(content, pad).astype(np.uint8))
    closed = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, [_CLOSING_VOXELS] * 3, sitk.sitkBall))
    return cast(Mask, sitk.GetArrayFromImage(closed)[pad:-pad, pad:-pad, pad:-pad] > 0)


def _main_part(content: Mask) -> Mask:
    """Drop connected parts that are much smaller than the largest one."""
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(content.astype(np.uint8))))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Mask = (sizes > 0.05 * sizes.max())[labels]
    return kept


def replicate_edge(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Give every voxel outside the mask the value of the nearest voxel inside, to within a voxel: (D, H, W) of both."""
    if bool(mask.all()):
        return image
    distance = sitk.DanielssonDistanceMapImageFilter()
    distance.SetInputIsBinary(True)
    distance.SetUseImageSpacing(False)
    distance.Execute(sitk.GetImageFromArray(mask.cpu().numpy().astype(np.uint8)))
    offset = torch.from_numpy(sitk.GetArrayFromImage(distance.GetVectorDistanceMap()))
    index = torch.meshgrid(*(torch.arange(n) for n in image.shape), indexing="ij")
    nearest = tuple(
        (index[axis] + offset[..., 2 - axis]).clamp(0, image.shape[axis] - 1).to(image.device) for axis in range(3)
    )
    return image[nearest]


def prepare(
    fixed: Volume,
    moving: Sequence[Volume],
    initial: SpatialTransform,
    *,
    spacing_mm: float | Literal["native", "auto"],
    masked: bool,
    margin_mm: float,
) -> Prepared:
    """Check the images and bring them onto one working grid.

    Parameters
    ----------
    fixed : Volume
        Its mask, or where it has none and ``masked`` is set, its field of view, is the evidence.
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
        When an image is constant, has no finite voxel or is too small, or its mask is empty.
    GeometryError
        When the fields of view do not overlap; says how far apart they are.
    """
    for volume in (fixed, *moving):
        check_image(volume)
    fixed_content = _content(with_field_of_view(fixed)) if masked else _finite(fixed)
    _check_evidence(fixed, fixed_content)
    grid = _working_grid(fixed, fixed_content, moving, initial, spacing_mm, margin_mm)
    fixed_on_grid, weight = _on_grid(fixed, fixed_content if masked else None, grid, None)
    if masked:
        _check_mask_on(grid, weight, fixed)
        weight = _without_rim(weight)
        fixed_on_grid = replicate_edge(fixed_on_grid[0, 0], weight[0, 0] > 0)[None, None]
    pairs = [_on_grid(volume, _content(volume) if masked else None, grid, initial) for volume in moving]
    for volume, (_, moving_weight) in zip(moving, pairs, strict=True):
        _check_overlap(fixed, fixed_content, volume, initial, float((weight * moving_weight).sum()))
    return Prepared(grid, fixed_on_grid, weight, tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))


def check_image(volume: Volume) -> None:
    """Raise `InputError` unless an image can be registered: one value per voxel, structure, size, a mask not empty."""
    if volume.data.shape[0] != 1:
        raise InputError(f"expected one value per voxel in '{volume.name}'; got {volume.data.shape[0]}")
    if min(volume.grid.shape) < SMALLEST_AXIS:
        raise InputError(
            f"expected at least {SMALLEST_AXIS} voxels along every axis of '{volume.name}'; "
            f"got {' × '.join(map(str, volume.grid.itk_size))}"
        )
    content = _content(volume)
    if volume.mask is not None and not bool(volume.mask.any()):
        raise InputError(f"expected a mask of '{volume.name}' with voxels inside; got an empty one")
    values = volume.data[0][content]
    if values.numel() == 0:
        raise InputError(f"expected finite voxels in '{volume.name}'; got only NaN or infinite ones")
    if float(values.min()) == float(values.max()):
        raise InputError(f"expected structure in '{volume.name}'; got the constant {float(values.min()):g}")


def _check_evidence(fixed: Volume, content: torch.Tensor) -> None:
    if not bool(content.any()):
        raise InputError(f"expected content in '{fixed.name}'; found no voxel that differs from its background")


def _check_mask_on(grid: Grid, weight: torch.Tensor, fixed: Volume) -> None:
    if not bool(weight.any()):
        raise InputError(
            f"expected a mask of '{fixed.name}' that holds voxels of the working grid ({grid.spacing_mm[0]:.3g} mm); "
            f"got a smaller one"
        )


def _finite(volume: Volume) -> torch.Tensor:
    return torch.isfinite(volume.data[0])


def _content(volume: Volume) -> torch.Tensor:
    return _finite(volume) if volume.mask is None else volume.mask & _finite(volume)


def on_grid(volume: Volume, grid: Grid) -> torch.Tensor:
    """(1, D, H, W): an image on another grid, blurred first to what that grid can hold; 0 outside the image."""
    smooth = _smoothed_for(volume.data, volume.grid, grid)
    return resample(volume.with_data(smooth), grid, padding_mode="zeros")


def around_evidence(
    field: DisplacementField, weight: torch.Tensor, margin_mm: float
) -> tuple[DisplacementField, torch.Tensor]:
    """The part of a field, and of its weight (D, H, W), that lies within ``margin_mm`` of a box around the evidence."""
    low, high = _bounds(weight > 0)
    pad = int(np.ceil(margin_mm / float(field.grid.spacing_mm.min())))
    low, high = np.maximum(low - pad, 0), np.minimum(high + pad, np.array(field.grid.itk_size) - 1)
    grid = _cropped(field.grid, low, high)
    part = tuple(slice(int(a), int(a) + n) for a, n in zip(low[::-1], grid.shape, strict=True))
    return DisplacementField(field.displacement_mm[part], grid), weight[part]


def _working_grid(
    fixed: Volume,
    content: torch.Tensor,
    moving: Sequence[Volume],
    initial: SpatialTransform,
    spacing_mm: float | Literal["native", "auto"],
    margin_mm: float,
) -> Grid:
    if spacing_mm == "native":
        return fixed.grid
    extent = fixed.grid.spacing_mm * np.array(fixed.grid.itk_size)
    low, high = _bounds(content)
    if spacing_mm == "auto":
        volume_mm3 = float(np.prod(np.minimum((high - low + 1) * fixed.grid.spacing_mm + 2 * margin_mm, extent)))
        spacing = max(float(fixed.grid.spacing_mm.min()), FINEST_SPACING_MM, (volume_mm3 / MOST_VOXELS) ** (1 / 3))
    else:
        spacing = spacing_mm
    # No coarser than what leaves a neighbourhood along the shortest axis.
    spacing = min(spacing, float(extent.min()) / SMALLEST_AXIS)
    whole = fixed.grid.with_spacing([spacing] * 3)
    pad = int(np.ceil(margin_mm / spacing))
    padded = whole.padded(pad)
    fixed_part = sample(content[None, None].float(), resampling_coordinates(fixed.grid, padded), padding_mode="zeros")
    low, high = _bounds(fixed_part[0, 0] > 0)
    reach = torch.zeros(padded.shape, dtype=torch.bool)
    for volume in moving:
        reach |= inside(_positions(volume.grid, padded, initial), volume.grid.shape)[0]
    reach_low, reach_high = _bounds(reach) if bool(reach.any()) else (low, high)
    # The margin is worth its time only where a moving image reaches into it.
    low = np.minimum(low, np.maximum(low - pad, reach_low))
    high = np.maximum(high, np.minimum(high + pad, reach_high))
    low, high = np.maximum(low, 0), np.minimum(high, np.array(padded.itk_size) - 1)
    return _cropped(padded, low, high)


def _cropped(grid: Grid, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> Grid:
    """The part of a grid from voxel ``low`` to ``high`` (i, j, k), both included, at least `SMALLEST_AXIS` long."""
    lack = np.maximum(SMALLEST_AXIS - (high - low + 1), 0)
    low = np.maximum(low - lack, 0)
    high = np.maximum(high, low + SMALLEST_AXIS - 1)
    shift = np.eye(4)
    shift[:3, 3] = low
    shape = cast(Shape, tuple(int(n) for n in (high - low + 1)[::-1]))
    return Grid(shape, grid.ras_from_ijk @ shift)


def _bounds(mask: torch.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last voxel (i, j, k) of a mask (D, H, W) along each axis."""
    index = mask.nonzero()
    return index.amin(dim=0).flip(0).cpu().numpy(), index.amax(dim=0).flip(0).cpu().numpy()


def _positions(source: Grid, target: Grid, initial: SpatialTransform | None) -> torch.Tensor:
    """(1, D, H, W, 3): where each voxel of ``target`` lies in ``source`` (w, h, d) under the initial transform."""
    if initial is None or initial.is_linear:
        return resampling_coordinates(source, target, None if initial is None else initial.linear_ras)
    moved = target.points_ras() + initial.displacement_field(target).displacement_mm.double().numpy()
    return torch.from_numpy(transform_points(source.ijk_from_ras, moved)).float()[None]


def _on_grid(
    volume: Volume, content: torch.Tensor | None, grid: Grid, initial: SpatialTransform | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and its weight on the working grid, (1, 1, D, H, W) each; unmasked work pads with zeros."""
    positions = _positions(volume.grid, grid, initial)
    # A fill value for voxels that are not finite; they carry no weight in masked work.
    image = torch.nan_to_num(volume.data, nan=0.0, posinf=0.0, neginf=0.0)
    if content is not None:
        image = torch.where(content[None], image, image[0][content].median())
    image = _smoothed_for(image, volume.grid, grid)
    values = sample(image[None], positions, padding_mode="border" if content is not None else "zeros")
    if content is None:
        return values, torch.ones_like(values)
    weight = sample(content[None, None].float(), positions, padding_mode="zeros")
    return values, (weight > 0.99).float() * inside(positions, volume.grid.shape)[:, None]


def _smoothed_for(image: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """Blur (1, D, H, W) to what the target grid can hold, axis by axis, where that is coarser."""
    directions = source.ras_from_ijk[:3, :3] / source.spacing_mm
    # How coarse the target is along each axis of the source.
    steps: Array = np.abs(directions.T @ (target.ras_from_ijk[:3, :3] / target.spacing_mm)) @ target.spacing_mm
    ratio = np.minimum(steps, target.spacing_mm.max()) / source.spacing_mm
    sigma = 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0))
    if sigma.max() < 0.25:
        return image
    smooth = sitk.DiscreteGaussian(
        sitk.GetImageFromArray(image[0].numpy()), [float(s) ** 2 for s in sigma], 32, 0.01, False
    )
    return torch.from_numpy(sitk.GetArrayFromImage(smooth))[None]


def _without_rim(weight: torch.Tensor) -> torch.Tensor:
    """The mask without its outer voxels, where the image is a blend with what lies outside."""
    image = sitk.GetImageFromArray(np.pad(weight[0, 0].numpy() > 0, 1, mode="edge").astype(np.uint8))
    core = sitk.GetArrayFromImage(sitk.BinaryErode(image, [_RIM_VOXELS] * 3, sitk.sitkBall, 0, 1))[1:-1, 1:-1, 1:-1]
    eroded = torch.from_numpy(core.astype(np.float32))[None, None]
    return eroded if bool(eroded.any()) else weight


def _check_overlap(
    fixed: Volume, content: torch.Tensor, moving: Volume, initial: SpatialTransform, common: float
) -> None:
    if common > 0:
        return
    here = initial.apply(_some_points(fixed.grid, content))
    there = _some_points(moving.grid, _content(moving))
    nearest = _distance_between(here, there)
    between = float(np.linalg.norm(there.mean(axis=0) - here.mean(axis=0)))
    raise GeometryError(
        f"expected the fields of view of '{fixed.name}' and '{moving.name}' to overlap under the initial transform; "
        f"got {nearest:.0f} mm between them ({between:.0f} mm between their centres)"
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
