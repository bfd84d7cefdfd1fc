"""Target registration error on corresponding landmarks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from MMRegCore.evaluate.pairing import pair_by_label
from MMRegCore.geometry import Array
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.transform import SpatialTransform

_log = logging.getLogger(__name__)


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
    """Target registration error before and after a registration, landmark by landmark in the order of ``labels``.

    ``paired_by`` tells whether the labels or the order of the lists paired the landmarks.
    """

    unit: str
    count: int
    labels: tuple[str, ...]
    before: TreStatistics
    after: TreStatistics
    paired_by: Literal["label", "order"]


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
        When there are no landmarks, their numbers differ, or their labels agree only in part.
    """
    fixed_ras, moving_ras = paired_points(fixed_landmarks, moving_landmarks)
    before, after = (
        _statistics(np.linalg.norm(each.apply(fixed_ras) - moving_ras, axis=1))
        for each in (initial or SpatialTransform.identity(), transform)
    )
    paired_by = pair_by_label(fixed_landmarks.labels, moving_landmarks.labels).by
    return TreSummary("mm", len(fixed_ras), fixed_landmarks.labels, before, after, paired_by)


def paired_points(fixed: Landmarks, moving: Landmarks) -> tuple[Array, Array]:
    """Give corresponding points, (N, 3) each, RAS mm, in the order of ``fixed``; `pair_by_label` tells how.

    Raises
    ------
    InputError
        When there are no landmarks, their numbers differ, or their labels agree only in part.
    """
    pairing = pair_by_label(fixed.labels, moving.labels)
    if pairing.warning:
        _log.warning("%s", pairing.warning)
    return fixed.points_ras, moving.points_ras[list(pairing.order)]


def _statistics(error_mm: Array) -> TreStatistics:
    mean, median, largest = float(error_mm.mean()), float(np.median(error_mm)), float(error_mm.max())
    return TreStatistics(mean, median, largest, float(np.quantile(error_mm, 0.3)), tuple(error_mm.tolist()))
