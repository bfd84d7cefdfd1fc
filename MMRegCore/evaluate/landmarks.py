"""Target registration error on corresponding landmarks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array
from MMRegCore.io import Landmarks
from MMRegCore.transform import SpatialTransform


def target_registration_error(
    fixed_landmarks: Landmarks,
    moving_landmarks: Landmarks,
    transform: SpatialTransform,
    *,
    initial: SpatialTransform | None = None,
) -> dict[str, Any]:
    """Distance between where the transform takes the fixed landmarks and where the moving ones are.

    ``TRE_i = |T(fixed_i) - moving_i|``, measured in moving space, in mm.

    Parameters
    ----------
    fixed_landmarks, moving_landmarks : Landmarks
        Corresponding points (N, 3), RAS mm; paired as `paired_points` says.
    transform : SpatialTransform
        Fixed to moving, the whole way.
    initial : SpatialTransform, optional
        The start that "before" is measured with; identity when None.

    Returns
    -------
    dict
        ``unit``, ``count``, ``labels``, and for ``before`` and ``after``: ``mean``, ``median``, ``max``,
        ``quantile_30`` (30 % of the landmarks are at least as good) and ``per_point`` in mm.

    Raises
    ------
    InputError
        When there are no landmarks or their numbers differ.
    """
    fixed_ras, moving_ras = paired_points(fixed_landmarks, moving_landmarks)
    start = SpatialTransform.identity() if initial is None else initial
    return {
        "unit": "mm",
        "count": len(fixed_ras),
        "labels": list(fixed_landmarks.labels),
        "before": _summary(_distance_mm(fixed_ras, moving_ras, start)),
        "after": _summary(_distance_mm(fixed_ras, moving_ras, transform)),
    }


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


def _distance_mm(fixed_ras: Array, moving_ras: Array, transform: SpatialTransform) -> Array:
    return cast(Array, np.linalg.norm(transform.apply(fixed_ras) - moving_ras, axis=1))


def _summary(distance_mm: Array) -> dict[str, Any]:
    return {
        "mean": float(distance_mm.mean()),
        "median": float(np.median(distance_mm)),
        "max": float(distance_mm.max()),
        "quantile_30": float(np.quantile(distance_mm, 0.3)),
        "per_point": [float(value) for value in distance_mm],
    }
