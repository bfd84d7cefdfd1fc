"""Measuring a registration: numbers and maps of what it did, compared images, verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

import numpy as np
import torch
import torch.nn.functional as F

from MMRegCore.assessment.maps import MapSpec, Measured, find_map, map_specs
from MMRegCore.assessment.notes import notes_on, notes_on_landmarks
from MMRegCore.assessment.quality import (
    Distribution,
    GivenLandmarks,
    ImageComparison,
    JacobianSummary,
    MapSummary,
    Quality,
    Region,
    RigidPart,
    Verdict,
)
from MMRegCore.assessment.verdict import judge
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.intensities import levelled, levelled_volume
from MMRegCore.monitor import Monitor
from MMRegCore.ops import box_mean, inside, positions_between, rotation_angle, sample
from MMRegCore.search.selection import ModelSelection
from MMRegCore.similarity.descriptors.mind import Mind
from MMRegCore.similarity.nmi import Nmi
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

# MIND is compared on at most this many voxels (larger images are pooled): 12 channels of it must fit anywhere.
MIND_VOXELS = 1_500_000
# A MIND descriptor looks this many voxels around itself (patch radius 1 + dilation 2).
MIND_REACH = 3


@dataclass(frozen=True, eq=False)
class QualityMap:
    """A map on the fixed grid, (1, D, H, W), how it is shown, and its numbers."""

    spec: MapSpec
    volume: Volume
    summary: MapSummary


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a registration did, on the fixed grid."""

    quality: Quality  # all numbers, measured inside ``mask``
    maps: tuple[QualityMap, ...]
    # Each moving image under the initial and under the final transform; their masks are their foreground there.
    before: tuple[Volume, ...]
    after: tuple[Volume, ...]
    mask: torch.Tensor  # (D, H, W), bool: the foreground of the fixed image


def assess(
    fixed: Volume,
    moving: Sequence[Volume],
    transform: SpatialTransform,
    *,
    initial: SpatialTransform | None = None,
    maps: Mapping[str, torch.Tensor] | None = None,
    model_selection: ModelSelection | None = None,
    landmarks: GivenLandmarks | None = None,
    scanned: Sequence[Volume] | None = None,
    on_verdict: Callable[[Verdict], None] = lambda _: None,
    monitor: Monitor | None = None,
) -> Assessment:
    """Measure a registration, in the mask of the fixed image where it has one.

    ``transform`` is the whole way from fixed to moving, of any kind; ``initial`` the initial transform, identity when
    None.  ``maps`` (D, H, W) by their names are those on the fixed grid that cannot be computed from the transform,
    such as 'expected_error'.  ``landmarks`` are those that guided the registration.  ``scanned`` are the moving images
    without masks that were found in them, whose coverage is told; the moving images themselves when None.
    ``on_verdict`` is called with the verdict as soon as it is known; what takes longer is measured after that.  Raises
    `InputError` when nothing is inside the mask, the transform gives non-finite displacements there, or a map is not
    known; `GeometryError` when a map does not fill the fixed grid.
    """
    monitor = monitor if monitor is not None else Monitor()
    mask = fixed.foreground
    fixed = finite(fixed)
    monitor.report("measuring the displacement", 0.0)
    after_field = transform.displacement_field(fixed.grid)
    before_field = DisplacementField.zero(fixed.grid) if initial is None else initial.displacement_field(fixed.grid)
    # An initial transform that is far away (tracking) must not hide what came after.
    field = after_field if initial is None else after_field.relative_to(initial.linear_ras)
    if not bool(torch.isfinite(field.displacement_mm[mask]).all()):
        raise InputError("expected a transform with finite displacements on the fixed image; got others")
    monitor.report("quality maps", 0.2)
    before, after = (
        tuple(_resampled(image, fixed.grid, each) for image in moving) for each in (before_field, after_field)
    )
    measured = Measured(fixed, mask, field, before, after)
    found = _maps(measured, maps or {})
    by_name = {each.spec.name: each for each in found}
    jacobian = _jacobian(by_name["jacobian_determinant"].volume.data[0][mask])
    expected = by_name["expected_error"].summary.inside.mean if "expected_error" in by_name else None
    coverage = [
        tuple(_share(_covered(image, fixed.grid, each), mask) for each in (before_field, after_field))
        for image in (moving if scanned is None else scanned)
    ]
    verdict = judge(expected, model_selection, [now for _, now in coverage], jacobian, landmarks)
    on_verdict(verdict)
    compared, comparison = [], _Comparison(fixed, mask)
    for index, states in enumerate(zip(before, after, strict=True)):
        monitor.report(f"comparing {states[1].name}", 0.4 + 0.6 * index / len(moving))
        compared.append(comparison.of(*states, *coverage[index]))
    quality = _quality(measured, found, tuple(compared), model_selection, jacobian, verdict)
    notes = (*quality.notes, *notes_on_landmarks(landmarks), *_doubts((fixed, *moving)))
    quality = replace(quality, notes=notes, landmarks=landmarks)
    monitor.report("assessed", 1.0)
    return Assessment(quality, found, before, after, mask)


def _doubts(images: Sequence[Volume]) -> list[str]:
    """What the readers of the images could not be sure of."""
    read = [(image.name, image.reading) for image in images if image.reading is not None]
    return [f"{name}: {text}." for name, reading in read for text in reading.warnings]


def finite(volume: Volume) -> Volume:
    """The image with non-finite voxels at its minimum: one of them must not blank all; `InputError` without others."""
    good = torch.isfinite(volume.data)
    if not bool(volume.foreground.any()):
        raise InputError(f"expected '{volume.name}' to have finite voxels inside its mask; got none")
    return volume if bool(good.all()) else volume.with_data(torch.where(good, volume.data, volume.data[good].min()))


def _quality(
    measured: Measured,
    maps: tuple[QualityMap, ...],
    compared: tuple[ImageComparison, ...],
    model_selection: ModelSelection | None,
    jacobian: JacobianSummary,
    verdict: Verdict,
) -> Quality:
    mask, field = measured.mask, measured.field
    by_name = {each.spec.name: each for each in maps}
    displacement = by_name["displacement"].summary.inside
    nearest = field.nearest_rigid(mask)
    rigid = _rigid(nearest, field.grid, mask)
    deformation = _distribution(field.relative_to(nearest).magnitude_mm()[mask])
    voxels = int(mask.sum())
    volume_ml = voxels * field.grid.voxel_volume_mm3 / 1000
    return Quality(
        region=Region(voxels, voxels / mask.numel(), volume_ml, tuple(field.grid.spacing_mm.tolist())),
        displacement_mm=displacement,
        rigid=rigid,
        deformation_mm=deformation,
        jacobian_determinant=jacobian,
        moving=compared,
        maps=tuple(each.summary for each in maps),
        model_selection=model_selection,
        verdict=verdict,
        notes=notes_on(displacement, rigid, deformation, jacobian, compared),
    )


def _maps(measured: Measured, given: Mapping[str, torch.Tensor]) -> tuple[QualityMap, ...]:
    """Every map that is given or can be computed, in the order in which they are shown."""
    for name in given:
        find_map(name)
    found = []
    for name, spec in map_specs().items():
        values = given.get(name)
        if values is None and spec.compute is not None:
            values = spec.compute(measured)
        if values is not None:
            found.append(_quality_map(spec, values, measured))
    return tuple(found)


def _quality_map(spec: MapSpec, values: torch.Tensor, measured: Measured) -> QualityMap:
    grid = measured.fixed.grid
    if tuple(values.shape) != grid.shape:
        raise GeometryError(
            f"expected the map '{spec.name}' to fill the fixed grid {grid.shape}; got {tuple(values.shape)}"
        )
    inside_values = values[measured.mask]
    finite = inside_values[torch.isfinite(inside_values)]
    summary = MapSummary(
        spec.name,
        f"{spec.name}.nii.gz",
        spec.title,
        spec.unit,
        spec.sentence,
        spec.colours,
        spec.limits_of(finite),
        spec.background,
        _distribution(finite),
    )
    return QualityMap(spec, Volume(values[None].cpu(), grid, name=spec.name), summary)


def _rigid(matrix: Array, grid: Grid, mask: torch.Tensor) -> RigidPart:
    """Rotation of a rigid transform (4, 4), and its shift of the mask's centroid (RAS mm)."""
    centroid = centroid_ras(grid, mask)
    shift = transform_points(matrix, centroid[None])[0] - centroid
    angle = math.degrees(rotation_angle(matrix[:3, :3]))
    return RigidPart(float(np.linalg.norm(shift)), tuple(shift.tolist()), angle)


def centroid_ras(grid: Grid, mask: torch.Tensor) -> Array:
    """(3,), RAS mm: the centroid of a mask (D, H, W)."""
    middle = mask.nonzero().double().mean(dim=0).flip(0).cpu().numpy()
    return transform_points(grid.ras_from_ijk, middle)


def _jacobian(determinant: torch.Tensor) -> JacobianSummary:
    values = determinant.double().cpu().numpy()
    positive = values[values > 0]
    low, high = np.percentile(values, [1, 99])
    return JacobianSummary(
        min=number(values.min()),
        p01=number(low),
        p99=number(high),
        max=number(values.max()),
        log_standard_deviation=number(np.log(positive).std()) if positive.size else None,
        folding_voxels=int((values <= 0).sum()),
        folding_share=float((values <= 0).mean()),
    )


def _distribution(values: torch.Tensor) -> Distribution:
    """Of the finite ones among values (N,)."""
    good = values.double().cpu().numpy()
    good = good[np.isfinite(good)]
    if good.size == 0:
        return Distribution(None, None, None)
    return Distribution(number(good.mean()), number(np.percentile(good, 95)), number(good.max()))


def number(value: SupportsFloat) -> float | None:
    """A float that JSON can hold; None when it is not finite."""
    return float(value) if math.isfinite(float(value)) else None


def _resampled(moving: Volume, grid: Grid, field: DisplacementField) -> Volume:
    """The moving image on the fixed grid (trilinear); its minimum, and no mask, outside of its field of view."""
    covered = _covered(moving, grid, field)
    moving = finite(moving)
    positions = positions_between(moving.grid, grid) + field.to_voxel(moving.grid)
    within = inside(positions, moving.grid.shape)[0, 0]
    data = torch.where(within, sample(moving.data[None], positions)[0], moving.data.min())
    return Volume(data, grid, covered, moving.name)


def _covered(moving: Volume, grid: Grid, field: DisplacementField) -> torch.Tensor:
    """(D, H, W) bool: where the moving image has foreground, on the fixed grid (nearest neighbour)."""
    positions = positions_between(moving.grid, grid) + field.to_voxel(moving.grid)
    within = inside(positions, moving.grid.shape)[0, 0]
    foreground = moving.foreground
    if bool(foreground.all()):
        return within
    return within & (sample(foreground[None, None].float(), positions, mode="nearest")[0, 0] > 0.5)


class _Comparison:
    """Compares moving images with one fixed image, whose descriptor is computed once."""

    def __init__(self, fixed: Volume, mask: torch.Tensor) -> None:
        self._fixed = levelled(fixed.data[:1], mask)[None]
        self._mask = mask
        self._stride = tuple(min(size, _stride(fixed.grid.shape)) for size in fixed.grid.shape)
        self._measure, self._nmi_measure = Mind(), Nmi(window_bins=0)
        self._encoded = self._encode(self._fixed)

    def of(self, before: Volume, after: Volume, covered_before: float, covered_after: float) -> ImageComparison:
        """Both states compared in the same region: where the MR has foreground under both transforms."""
        states = tuple(levelled_volume(state) for state in (before, after))
        common = self._mask & before.foreground & after.foreground
        nmi = [self._nmi(state, common) for state in states]
        away_from_rims = self._away_from_rims(common)
        mind = [self._mind_distance(state, away_from_rims) for state in states]
        return ImageComparison(
            name=after.name,
            coverage_before=covered_before,
            coverage_after=covered_after,
            compared_share=_share(common, self._mask),
            nmi_before=nmi[0],
            nmi_after=nmi[1],
            mind_distance_before=mind[0],
            mind_distance_after=mind[1],
        )

    def _nmi(self, state: Volume, region: torch.Tensor) -> float | None:
        if not bool(region.any()):
            return None
        return number(self._nmi_measure.mean(self._fixed, state.data[None, :1], region[None, None]))

    def _away_from_rims(self, region: torch.Tensor) -> torch.Tensor:
        """(1, 1, d, h, w), bool: descriptors that see the rim of the cone or of the MR describe the rim."""
        outside = F.max_pool3d((~region)[None, None].float(), self._stride)
        return box_mean(outside, MIND_REACH) == 0

    def _mind_distance(self, state: Volume, region: torch.Tensor) -> float | None:
        if not bool(region.any()):
            return None
        return number(-self._measure.compare(self._encoded, self._encode(state.data[None, :1]), region.float()).mean())

    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        pooled = F.avg_pool3d(image, self._stride)
        return self._measure.encode_moving(pooled, torch.ones_like(pooled))


def _stride(shape: tuple[int, int, int]) -> int:
    return math.ceil(math.pow(math.prod(shape) / MIND_VOXELS, 1 / 3))


def _share(part: torch.Tensor, whole: torch.Tensor) -> float:
    return float((part & whole).sum() / whole.sum())
