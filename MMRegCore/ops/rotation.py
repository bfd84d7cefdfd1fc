"""Rotations in space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from MMRegCore.geometry import Array


def rotation_matrix(vector: Sequence[float] | Array) -> Array:
    """(3, 3): the turn about a vector (3,) by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = (float(v) / max(angle, 1e-300) for v in vector)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)


def rotation_angle(matrix: Array) -> float:
    """By how much a rotation (3, 3) turns, in radians."""
    # atan2 of both parts stays exact near 0, where acos of the trace alone loses half the digits.
    antisymmetric = matrix - matrix.T
    sine = math.sqrt(antisymmetric[2, 1] ** 2 + antisymmetric[0, 2] ** 2 + antisymmetric[1, 0] ** 2)
    return math.atan2(sine, float(np.trace(matrix)) - 1)
