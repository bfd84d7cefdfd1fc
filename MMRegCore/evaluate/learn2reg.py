"""The measures of the Learn2Reg challenge, by its own definitions (Hering et al., 2022, and its evaluation scripts)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError
from MMRegCore.geometry import Array, Grid, transform_points

Labels = npt.NDArray[np.int64]
# What the challenge adds to the Jacobian determinant before its logarithm, and what it clips the sum to.
_ADDED, _CLIPPED = 3.0, (1e-9, 1e9)
# Voxels at each border that it leaves out.
_RIM = 2
_PERCENTILE = 95


@dataclass(frozen=True)
class Jacobian:
    """SDlogJ, and the share of voxels with a determinant of 0 or less; without two voxels at each border."""

    sd_log_j: float
    folding_share: float


def jacobian(field: DisplacementField) -> Jacobian:
    """Of a field, by central differences.

    SDlogJ is the standard deviation of ``log(det J + 3)``: the challenge's own, and smaller than that of ``log(det J)``
    in ``result.json``.

    Raises
    ------
    GeometryError
        When the field has fewer than 5 voxels along an axis.
    """
    if min(field.grid.shape) <= 2 * _RIM:
        raise GeometryError(
            f"expected a field of at least {2 * _RIM + 1} voxels along each axis; got {field.grid.shape}"
        )
    inner = (slice(_RIM, -_RIM),) * 3
    determinant = field.jacobian_determinant()[inner].double().numpy()
    logarithm = np.log((determinant + _ADDED).clip(*_CLIPPED))
    return Jacobian(float(logarithm.std()), float((determinant <= 0).mean()))


def moved_points(field: DisplacementField, points_ras: Array) -> Array:
    """(N, 3), RAS mm: where a field takes points, by cubic splines; outside its grid it moves nothing."""
    image = field.grid.to_itk(field.displacement_mm.double().numpy())
    components = [sitk.VectorIndexSelectionCast(image, axis, sitk.sitkFloat64) for axis in range(3)]
    moved = np.array(points_ras, dtype=np.float64)
    last = np.array(field.grid.itk_size) - 1
    for row, index in enumerate(transform_points(field.grid.ijk_from_ras, moved)):
        if ((index >= 0) & (index <= last)).all():
            moved[row] += [each.EvaluateAtContinuousIndex(index.tolist(), sitk.sitkBSpline) for each in components]
    return moved


def warped_labels(labels: Labels, moving: Grid, field: DisplacementField) -> Labels:
    """(D, H, W): moving labels, on ``moving``, seen through a field (nearest; 0 beyond the outermost centres)."""
    places = transform_points(moving.ijk_from_ras, field.grid.points_ras() + field.displacement_mm.double().numpy())
    # Positions at the border must not be lost to rounding.
    places = np.round(places, 4)
    last = np.array(moving.itk_size) - 1
    inside = np.all((places >= 0) & (places <= last), axis=-1, keepdims=True)
    i, j, k = np.moveaxis(np.floor(np.where(inside, places, 0) + 0.5).astype(np.int64), -1, 0)
    return np.where(inside[..., 0], labels[k, j, i], 0)


@dataclass(frozen=True)
class Overlap:
    """Means over the labels that are in the fixed and in the moving map: Dice, and HD95 in voxels."""

    dice: float
    hd95_voxel: float


def overlap(fixed: Labels, moving: Labels, warped: Labels) -> Overlap | None:
    """Compare fixed labels (D, H, W) with warped ones; labels that ``moving`` or ``fixed`` lacks do not count.

    A label that was warped out of the image has Dice 0 and an infinite HD95.  None where no label counts.
    """
    numbers = [int(n) for n in np.intersect1d(np.unique(fixed), np.unique(moving)) if n != 0]
    if not numbers:
        return None
    scores = []
    for number in numbers:
        a, b = fixed == number, warped == number
        scores.append((2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum())), hausdorff_95(a, b)))
    dice, distance = np.mean(scores, axis=0)
    return Overlap(float(dice), float(distance))


def hausdorff_95(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The larger of the two 95th percentiles of the distance from the one surface to the other, in voxels.

    Surface elements lie between 2×2×2 voxels of which some, but not all, are inside, and are weighted with their area,
    which is approximated where the surface bends.  Infinite where one of the two is empty.
    """
    if not first.any() or not second.any():
        return float("inf")
    both = np.argwhere(first | second)
    crop = tuple(slice(low, high + 1) for low, high in zip(both.min(axis=0), both.max(axis=0), strict=True))
    areas = [_surface(np.pad(each[crop], 1)) for each in (first, second)]
    return max(_percentile(*areas), _percentile(*areas[::-1]))


def _surface(mask: npt.NDArray[np.bool_]) -> Array:
    """(D-1, H-1, W-1): area of the surface between eight voxels each, in voxels squared; 0 where there is none."""
    eight = [
        mask[a : mask.shape[0] - 1 + a, b : mask.shape[1] - 1 + b, c : mask.shape[2] - 1 + c].astype(np.int64)
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    ]
    count = sum(eight)
    gradient = [sum(each * (1 if number & bit else -1) for number, each in enumerate(eight)) / 4 for bit in (1, 2, 4)]
    area = np.sqrt(sum(np.square(each) for each in gradient))
    # One corner is cut off by a triangle between the middles of its edges; two opposite ones cancel in the gradient.
    corner = np.sqrt(3) / 8
    area = np.where((count == 1) | (count == 7), corner, np.maximum(area, 2 * corner))
    return cast(Array, np.where((count > 0) & (count < 8), area, 0.0))


def _percentile(source: Array, target: Array) -> float:
    """Of the distance from the elements of ``source`` to the nearest of ``target``, weighted with the area."""
    image = sitk.GetImageFromArray((target > 0).astype(np.uint8))
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=False))
    on_surface = source > 0
    lengths, areas = np.maximum(distance[on_surface], 0), source[on_surface]
    order = np.argsort(lengths)
    share = np.cumsum(areas[order]) / areas.sum()
    place = min(int(np.searchsorted(share, _PERCENTILE / 100)), len(order) - 1)
    return float(lengths[order][place])
