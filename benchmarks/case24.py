"""The real patient, RESECT Case 24: every level of the published method, and the presets, against expert landmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import record
from MMRegCore import RegistrationSettings, load_preset, read_volume, register
from MMRegCore.config import with_changes
from MMRegCore.io.landmarks import read_landmark_pairs

# The reference implementation on the same images, measured before MMReg was written (mm).
REFERENCE = {"stride 2": 1.53, "stride 4": 2.15, "stride 6": 4.50, "stride 1 + Adam": 1.23}
REFERENCE_FUSED = {"T1": 2.47, "FLAIR": 1.85, "T1 + FLAIR": 1.77}


def main() -> None:
    """Measure and write ``results/case24``."""
    folder = record.data_folder("resect")
    fixed = read_volume(folder / "Case24_US_0.5mm.nii.gz", name="US")
    moving = {name: read_volume(folder / f"Case24_{name}_0.5mm.nii.gz", name=name) for name in ("T1", "FLAIR")}
    at_fixed, at_moving = read_landmark_pairs(folder / "Case24_landmarks_ras.csv")
    start = np.linalg.norm(at_fixed.points_ras - at_moving.points_ras, axis=1)
    rows: list[dict[str, Any]] = [
        {"preset": "start", "images": "", "what": "", **_errors(start), "reference mean": None}
    ]

    def measure(settings: RegistrationSettings, preset: str, names: str, what: str, reference: float | None) -> None:
        images = [moving[name] for name in names.split(" + ")]
        result = register(fixed, images, settings=settings, device="cpu")
        errors = np.linalg.norm(result.transform.apply(at_fixed.points_ras) - at_moving.points_ras, axis=1)
        rows.append(
            {
                "preset": preset,
                "images": names,
                "what": what,
                **_errors(errors),
                "reference mean": reference,
                "seconds": round(result.provenance.timings_s["total"], 1),
                "folding voxels": result.assessment.quality.jacobian_determinant.folding_voxels,
            }
        )
        print(rows[-1], flush=True)

    published = load_preset("mcbo-published")
    for what, reference in REFERENCE.items():
        stride = what.removeprefix("stride ").removesuffix(" + Adam")
        level = with_changes(published, {"mcbo.strides": stride, "mcbo.weights": "1"})
        measure(level, "mcbo-published", "T1", what, reference)
    for names, reference in REFERENCE_FUSED.items():
        measure(published, "mcbo-published", names, "all levels", reference)
    for preset in ("lc2", "mcbo"):
        for names in ("T1", "FLAIR", "T1 + FLAIR"):
            measure(load_preset(preset), preset, names, "", None)
    record.write(
        "case24",
        rows,
        "Target registration error of 16 expert landmarks in mm (fixed landmarks through the transform, against the "
        "moving ones). 'reference' is the authors' implementation on the same images, measured beforehand.",
    )


def _errors(errors: np.ndarray) -> dict[str, float]:
    return {
        "mean mm": round(float(errors.mean()), 2),
        "median mm": round(float(np.median(errors)), 2),
        "max mm": round(float(errors.max()), 2),
    }
