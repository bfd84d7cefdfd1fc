"""Target registration error on corresponding landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.transform import SpatialTransform


@dataclass(frozen=True)
class TreStatistics:
    """Target registration errors in mm; 30 % of the landmarks are at least as good as ``quantile_30``."""

    mean: float
    median: float
    max: float
    quantile_30: float
    per_point: tuple[float, ...]


@dataclass(frozen=True)
class TreSummary:
    """Target registration error before and after a registration, landmark by landmark in the order of ``labels``."""

    unit: str
    count: int
    labels: tuple[str, ...]
    before: TreStatistics
    after: TreStatistics


def target_registration_error(
    fixed_landmarks: Landmarks,
    moving_landmarks: Landmarks,
    transform: SpatialTransform,
    *,
    initial: SpatialTransform | None = None,
) -> TreSummary:
    """Distance between where the transform takes the fixed landmarks and where the moving ones are.

    ``TRE_i = |T(fixed_i) - moving_i|``, measured in moving space, in mm.

    Parameters
    ----------
    fixed_landmarks, moving_landmarks : Landmarks
        Corresponding points (N, 3), RAS mm; paired as `paired_points` says.
    transform : SpatialTransform
        Fixed to moving, the whole way.
    initial : SpatialTransform, optional
        What "before" is measured with; identity when None.

    Raises
    ------
    InputError
        When there are no landmarks or their numbers differ.
    """
    fixed_ras, moving_ras = paired_points(fixed_landmarks, moving_landmarks)
    before, after = (
        _statistics(np.linalg.norm(each.apply(fixed_ras) - moving_ras, axis=1))
        for each in (initial or SpatialTransform.identity(), transform)
    )
    return TreSummary("mm", len(fixed_ras), fixed_landmarks.labels, before, after)


def paired_points(fixed: Landmarks, moving: Landmarks) -> tuple[Array, Array]:
    """Give corresponding points, (N, 3) each, RAS mm, in the order of ``fixed``.

    Points with the same labels belong together where both lists hold the same labels, each once; otherwise the
    order counts.

    Raises
    ------
    InputError
        When there are no landmarks or their numbers differ.
    """
    if len(fixed) != len(moving) or len(fixed) == 0:
        raise InputError(
            f"expected as many fixed as moving landmarks, at least one; got {len(fixed)} fixed and {len(moving)} moving"
        )
    place = {label: index for index, label in enumerate(moving.labels)}
    if len(place) == len(moving.labels) and set(fixed.labels) == set(place):
        return fixed.points_ras, moving.points_ras[[place[label] for label in fixed.labels]]
    return fixed.points_ras, moving.points_ras


def _statistics(error_mm: Array) -> TreStatistics:
    mean, median, largest = float(error_mm.mean()), float(np.median(error_mm)), float(error_mm.max())
    return TreStatistics(mean, median, largest, float(np.quantile(error_mm, 0.3)), tuple(error_mm.tolist()))
