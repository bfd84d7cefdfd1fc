"""Numbers and maps that say what a registration did; no verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, cast

import numpy as np
import torch
import torch.nn.functional as F

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.features.mind import mind_ssc
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.monitor import Monitor
from MMRegCore.qa.notes import notes_from
from MMRegCore.qa.verdict import verdict_from
from MMRegCore.similarity import mind_distance, normalised_mutual_information
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from MMRegCore.warp import inside, resampling_coordinates, sample

# MIND is compared on at most this many voxels (larger images are pooled): 12 channels of it must fit anywhere.
MIND_VOXELS = 1_500_000
# A MIND descriptor looks this many voxels around itself (patch radius 1 + dilation 2).
MIND_REACH = 3


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a registration did, on the fixed grid.

    Attributes
    ----------
    numbers : dict
        JSON-able; None where a number does not exist.  Displacements are measured beyond the linear part of the
        initial transform, inside ``mask``.
    maps : dict of str to Volume
        'displacement_mm', 'jacobian_determinant' and the extra maps that the caller gave.
    before, after : tuple of Volume
        Each moving image under the initial and under the final transform; their masks tell where the moving
        image has evidence.
    mask : Tensor, (D, H, W), bool
        Where the fixed image has evidence.
    """

    numbers: dict[str, Any]
    maps: dict[str, Volume]
    before: tuple[Volume, ...]
    after: tuple[Volume, ...]
    mask: torch.Tensor

    @property
    def notes(self) -> list[str]:
        """The findings in plain words."""
        return cast("list[str]", self.numbers["notes"])


def assess(
    fixed: Volume,
    moving: Sequence[Volume],
    transform: SpatialTransform,
    *,
    initial: SpatialTransform | None = None,
    extra_maps: Mapping[str, torch.Tensor] | None = None,
    choice: Mapping[str, Any] | None = None,
    monitor: Monitor | None = None,
) -> Assessment:
    """Measure a registration.

    Parameters
    ----------
    fixed : Volume
        Ultrasound; its mask, when it has one, is where everything is measured.
    moving : sequence of Volume
        MR images, each in its own space.
    transform : SpatialTransform
        The whole way from fixed to moving, of any kind.
    initial : SpatialTransform, optional
        The start; identity when None.
    extra_maps : mapping of str to Tensor (D, H, W), optional
        Further maps on the fixed grid, such as 'expected_error_mm'.
    choice : mapping, optional
        What competed and what was chosen, JSON-able.
    monitor : Monitor, optional

    Raises
    ------
    InputError
        When nothing is inside the mask or the transform gives non-finite displacements there.
    GeometryError
        When an extra map does not fill the fixed grid.
    """
    monitor = monitor if monitor is not None else Monitor()
    fixed, mask = _finite(fixed)
    monitor.report("measuring the displacement", 0.0)
    start = SpatialTransform.identity() if initial is None else initial
    field_after = transform.displacement_field(fixed.grid)
    field_before = _no_displacement(fixed.grid) if initial is None else start.displacement_field(fixed.grid)
    # A start that is far away (tracking) must not hide what came after.
    correction = field_after if initial is None else field_after.relative_to(start.linear_ras)
    numbers, maps = _field_numbers(correction, mask)
    comparison = _Comparison(fixed, mask)
    before, after = [], []
    for index, image in enumerate(moving):
        monitor.report(f"comparing {image.name}", 0.3 + 0.7 * index / len(moving))
        before.append(_brought(image, fixed.grid, field_before))
        after.append(_brought(image, fixed.grid, field_after))
        numbers["moving"].append(comparison.of(before[-1], after[-1]))
    for name, values in (extra_maps or {}).items():
        maps[name] = _map_volume(values, fixed.grid, name)
        numbers["extra"][name] = _summary(maps[name].data[0][mask])
    numbers["choice"] = None if choice is None else dict(choice)
    numbers["verdict"] = verdict_from(numbers)
    numbers["notes"] = notes_from(numbers)
    monitor.report("assessed", 1.0)
    return Assessment(numbers, maps, tuple(before), tuple(after), mask)


def _finite(volume: Volume) -> tuple[Volume, torch.Tensor]:
    """The image with non-finite voxels at its minimum, and its mask without them."""
    good = torch.isfinite(volume.data).all(dim=0)
    mask = good if volume.mask is None else good & volume.mask
    if not bool(mask.any()):
        raise InputError(f"expected '{volume.name}' to have finite voxels inside its mask; got none")
    if bool(good.all()):
        return volume, mask
    lowest = float(volume.data[:, good].min())
    return volume.with_data(torch.where(good, volume.data, lowest)), mask


def _no_displacement(grid: Grid) -> DisplacementField:
    return DisplacementField(torch.zeros(*grid.shape, 3), grid)


def _field_numbers(field: DisplacementField, mask: torch.Tensor) -> tuple[dict[str, Any], dict[str, Volume]]:
    """Numbers and maps of the displacement alone."""
    magnitude = field.magnitude_mm()
    if not bool(torch.isfinite(magnitude[mask]).all()):
        raise InputError("expected a transform with finite displacements on the fixed image; got others")
    determinant = field.jacobian_determinant()
    rigid = field.nearest_rigid(mask)
    numbers = {
        "region": _region_numbers(field.grid, mask),
        "displacement_mm": _summary(magnitude[mask]),
        "rigid": _rigid_numbers(rigid, field.grid, mask),
        "deformation_mm": _summary(field.relative_to(rigid).magnitude_mm()[mask]),
        "jacobian_determinant": _jacobian_numbers(determinant[mask]),
        "moving": [],
        "extra": {},
    }
    maps = {"displacement_mm": magnitude, "jacobian_determinant": determinant}
    return numbers, {name: _map_volume(values, field.grid, name) for name, values in maps.items()}


def _map_volume(values: torch.Tensor, grid: Grid, name: str) -> Volume:
    if tuple(values.shape) != grid.shape:
        raise GeometryError(f"expected the map '{name}' to fill the fixed grid {grid.shape}; got {tuple(values.shape)}")
    return Volume(values[None].cpu(), grid, name=name)


def _region_numbers(grid: Grid, mask: torch.Tensor) -> dict[str, Any]:
    voxels = int(mask.sum())
    return {
        "voxels": voxels,
        "share_of_grid": voxels / mask.numel(),
        "volume_ml": voxels * grid.voxel_volume_mm3 / 1000,
        "spacing_mm": [float(v) for v in grid.spacing_mm],
    }


def _rigid_numbers(matrix: Array, grid: Grid, mask: torch.Tensor) -> dict[str, Any]:
    """The best rigid transform in the mask: its rotation, and its shift of the mask's centroid (RAS mm)."""
    centroid = centroid_ras(grid, mask)
    shift = transform_points(matrix, centroid[None])[0] - centroid
    # atan2 of both parts stays exact near 0°, where acos of the trace alone loses half the digits.
    antisymmetric = matrix[:3, :3] - matrix[:3, :3].T
    sine = math.sqrt(antisymmetric[2, 1] ** 2 + antisymmetric[0, 2] ** 2 + antisymmetric[1, 0] ** 2)
    angle = math.degrees(math.atan2(sine, float(np.trace(matrix[:3, :3])) - 1))
    return {
        "translation_mm": float(np.linalg.norm(shift)),
        "translation_ras_mm": [float(v) for v in shift],
        "rotation_degrees": angle,
    }


def centroid_ras(grid: Grid, mask: torch.Tensor) -> Array:
    """(3,), RAS mm: the centroid of a mask (D, H, W)."""
    middle = mask.nonzero().double().mean(dim=0).flip(0).cpu().numpy()
    return cast(Array, transform_points(grid.ras_from_ijk, middle[None])[0])


def _jacobian_numbers(determinant: torch.Tensor) -> dict[str, Any]:
    values = determinant.double().cpu().numpy()
    positive = values[values > 0]
    low, high = np.percentile(values, [1, 99])
    return {
        "min": number(values.min()),
        "p01": number(low),
        "p99": number(high),
        "max": number(values.max()),
        "log_standard_deviation": number(np.log(positive).std()) if positive.size else None,
        "folding_voxels": int((values <= 0).sum()),
        "folding_share": float((values <= 0).mean()),
    }


def _summary(values: torch.Tensor) -> dict[str, float | None]:
    """Mean, 95th percentile and maximum of values (N,), the finite ones among them."""
    good = values.double().cpu().numpy()
    good = good[np.isfinite(good)]
    if good.size == 0:
        return {"mean": None, "p95": None, "max": None}
    return {"mean": number(good.mean()), "p95": number(np.percentile(good, 95)), "max": number(good.max())}


def number(value: SupportsFloat) -> float | None:
    """A JSON-able float; None when it is not finite."""
    return float(value) if math.isfinite(float(value)) else None


def _brought(moving: Volume, grid: Grid, field: DisplacementField) -> Volume:
    """The moving image on the fixed grid (trilinear); its minimum, and no mask, outside of its field of view."""
    moving, evidence = _finite(moving)
    matrix = torch.as_tensor(moving.grid.ijk_from_ras[:3, :3].copy(), dtype=torch.float32)
    coordinates = resampling_coordinates(moving.grid, grid) + (field.displacement_mm @ matrix.T)[None]
    covered = inside(coordinates, moving.grid.shape)[0]
    data = sample(moving.data[None], coordinates)[0]
    if not bool(evidence.all()):
        covered &= sample(evidence[None, None].float(), coordinates, mode="nearest")[0, 0] > 0.5
    seen = inside(coordinates, moving.grid.shape)[0]
    return Volume(torch.where(seen, data, float(moving.data.min())), grid, covered, moving.name)


class _Comparison:
    """Compares moving images with one fixed image, whose descriptor is computed once."""

    def __init__(self, fixed: Volume, mask: torch.Tensor) -> None:
        self._fixed = fixed.data[None, :1]
        self._mask = mask
        self._stride = tuple(min(size, _stride(fixed.grid.shape)) for size in fixed.grid.shape)
        self._features = self._mind(self._fixed)

    def of(self, before: Volume, after: Volume) -> dict[str, Any]:
        """Both states compared in the same place: where the MR has evidence under both transforms."""
        coverage = [_share(state.mask, self._mask) for state in (before, after)]
        common = self._mask & cast(torch.Tensor, before.mask) & cast(torch.Tensor, after.mask)
        nmi = [self._nmi(state, common) for state in (before, after)]
        mind = [self._mind_distance(state, common) for state in (before, after)]
        return {
            "name": after.name,
            "coverage_share_before": coverage[0],
            "coverage_share_after": coverage[1],
            "compared_share": _share(common, self._mask),
            "nmi_before": nmi[0],
            "nmi_after": nmi[1],
            "mind_distance_before": mind[0],
            "mind_distance_after": mind[1],
        }

    def _nmi(self, state: Volume, region: torch.Tensor) -> float | None:
        if not bool(region.any()):
            return None
        return number(normalised_mutual_information(self._fixed, state.data[None, :1], region[None, None]))

    def _mind_distance(self, state: Volume, region: torch.Tensor) -> float | None:
        # Descriptors that see the rim of the cone or of the MR describe the rim, not the brain.
        outside = F.max_pool3d((~region)[None, None].float(), self._stride)
        region = F.max_pool3d(outside, 2 * MIND_REACH + 1, stride=1, padding=MIND_REACH) < 0.5
        if not bool(region.any()):
            return None
        return number(mind_distance(self._features, self._mind(state.data[None, :1]), region))

    def _mind(self, image: torch.Tensor) -> torch.Tensor:
        return mind_ssc(F.avg_pool3d(image, self._stride))


def _stride(shape: tuple[int, int, int]) -> int:
    return math.ceil(math.pow(math.prod(shape) / MIND_VOXELS, 1 / 3))


def _share(part: torch.Tensor | None, whole: torch.Tensor) -> float:
    return float((cast(torch.Tensor, part) & whole).sum() / whole.sum())
