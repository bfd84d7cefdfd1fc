"""The default on a real patient: never worse than the initial transform (RESECT Case 24, 16 expert landmarks)."""

from pathlib import Path

import pytest

from MMRegCore import read_volume, register
from MMRegCore.evaluate.landmarks import target_registration_error
from MMRegCore.io.landmarks import read_landmark_pairs
from scenes import translation

pytestmark = pytest.mark.slow


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
    result = register(
        read_volume(case24["us"], name="US"), moving, initial_transform=translation(shift_mm), device="cpu"
    )
    fixed, in_mr = read_landmark_pairs(case24["landmarks"])
    error = target_registration_error(fixed, in_mr, result.transform)
    assert error.after.mean <= most_mm + 0.005
    quality = result.assessment.quality
    kept = quality.model_selection.selected == "initial"
    assert kept == (images == ("T1",))
    assert (quality.verdict.level == "accept") == (not kept)
    assert quality.jacobian_determinant.folding_voxels == 0
