"""A simulated case as files for the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MMRegCore.io.files import staged_folder
from MMRegCore.io.landmarks import Landmarks, write_landmarks
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.resampling import resample
from MMRegCore.simulate.case import SimulatedCase
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume

# The field is smooth over centimetres: a cubic B-spline of this spacing represents it to about 0.01 mm.
_TRUTH_SPACING_MM = 2.0


def write_case(case: SimulatedCase, folder: Path, description: Mapping[str, Any]) -> None:
    """Write the inputs of a registration and the ground truth; all files appear or none.

    ``ultrasound.nii.gz`` and ``ultrasound_mask.nii.gz``, ``cavity.nii.gz`` where there is one, ``mr_NAME.nii.gz`` for
    every MR, ``landmarks_ultrasound.mrk.json`` and ``landmarks_mr.mrk.json``, ``truth.h5`` (fixed to moving) and
    ``case.json``: options and settings as ``description`` gives them, and measurements of the case.  The folder is made
    where it does not exist; `InputError` when it cannot be written to.
    """
    length_mm = case.truth.magnitude_mm()[case.evaluated]
    measured = {
        "mean_shift_mm": float(length_mm.mean()),
        "largest_shift_mm": float(length_mm.max()),
        "landmarks": len(case.landmarks_fixed),
    }
    with staged_folder(folder) as staging:
        write_volume(case.fixed, staging / "ultrasound.nii.gz", dtype="uint8")
        for name, mask in (("ultrasound_mask", case.fixed.mask), ("cavity", case.cavity)):
            if mask is not None:
                write_volume(Volume(mask[None].float(), case.fixed.grid), staging / f"{name}.nii.gz", dtype="uint8")
        for image in case.moving:
            write_volume(image, staging / f"mr_{image.name}.nii.gz")
        for side, landmarks in zip(("ultrasound", "mr"), landmark_pairs(case), strict=True):
            write_landmarks(landmarks, staging / f"landmarks_{side}.mrk.json")
        write_transform(true_transform(case), staging / "truth.h5")
        (staging / "case.json").write_text(json.dumps({**description, "measured": measured}, indent=2), "utf-8")


def landmark_pairs(case: SimulatedCase) -> tuple[Landmarks, Landmarks]:
    """Landmarks of the ultrasound and of the MR, numbered L-1, L-2 and so on."""
    labels = tuple(f"L-{number + 1}" for number in range(len(case.landmarks_fixed)))
    return Landmarks(case.landmarks_fixed, labels), Landmarks(case.landmarks_moving, labels)


def true_transform(case: SimulatedCase) -> SpatialTransform:
    """The true displacement as a transform, fixed to moving; rigid far from the field of view."""
    coarse = case.truth.grid.with_spacing([_TRUTH_SPACING_MM] * 3)
    inside = Volume(case.evaluated[None].float(), case.fixed.grid)
    return composite_from_field(case.truth.on_grid(coarse), resample(inside, coarse)[0])
