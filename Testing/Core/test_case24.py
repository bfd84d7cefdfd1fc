"""The default on a real patient: never worse than the start (RESECT Case 24, 16 expert landmarks)."""

from pathlib import Path

import numpy as np
import pytest

from MMRegCore import read_volume, register
from MMRegCore.evaluate import target_registration_error
from MMRegCore.io import read_landmark_pairs
from MMRegCore.transform import SpatialTransform


def moved_by(shift_mm: tuple[float, float, float]) -> SpatialTransform:
    matrix = np.eye(4)
    matrix[:3, 3] = shift_mm
    return SpatialTransform.from_matrix(matrix)


@pytest.mark.parametrize(
    ("images", "shift_mm", "most_mm"),
    [
        (("T1", "FLAIR"), (0.0, 0.0, 0.0), 1.10),
        (("T1",), (0.0, 0.0, 0.0), 1.10),  # one image alone says too little here, and must say so
        (("T1", "FLAIR"), (5.0, -4.0, 4.0), 1.8),
    ],
)
def test_landmarks_end_where_they_should(
    case24: dict[str, Path], images: tuple[str, ...], shift_mm: tuple[float, float, float], most_mm: float
) -> None:
    moving = [read_volume(case24[name.lower()], name=name) for name in images]
    result = register(read_volume(case24["us"], name="US"), moving, initial_transform=moved_by(shift_mm), device="cpu")
    fixed, in_mr = read_landmark_pairs(case24["landmarks"])
    error = target_registration_error(fixed, in_mr, result.transform)
    assert error["after"]["mean"] <= most_mm + 0.005
    numbers = result.assessment.numbers
    kept = numbers["choice"]["chosen"] == "start"
    assert kept == (images == ("T1",))
    assert (numbers["verdict"]["level"] == "accept") == (not kept)
    assert numbers["jacobian_determinant"]["folding_voxels"] == 0
