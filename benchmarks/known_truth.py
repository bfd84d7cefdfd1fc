"""Known truth: T1 deformed by a smooth field, T2 of the same patient brought onto it by MCBO."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import record
from MMRegCore import DisplacementField, Volume, read_volume, register
from MMRegCore.ops import warp
from MMRegCore.simulate import smooth_random_field

AMPLITUDE_MM = 8.0
# Shortest wave of the field: as smooth as brain shift, and harder than that.
WAVELENGTHS_MM = (100.0, 60.0)


def main() -> None:
    """Measure and write ``results/known-truth``."""
    folder = record.data_folder("open_ms")
    rows: list[dict[str, Any]] = []
    for patient in ("07", "19"):
        t1, t2 = (read_volume(folder / f"patient{patient}_{name}.nii.gz", name=name) for name in ("T1", "T2"))
        for wavelength_mm in WAVELENGTHS_MM:
            truth = smooth_random_field(t1.grid, AMPLITUDE_MM, wavelength_mm, seed=1)
            deformed = warp(t1.data[None], truth.to_voxel(), padding_mode="zeros")[0]
            # The images are skull-stripped: outside the brain they are zero.
            brain = deformed[0].abs() > 1e-3
            name = f"open_ms {patient}, waves from {wavelength_mm:g} mm"
            rows.append(_measured(name, t1.with_data(deformed), [t2], truth, brain))
            print(rows[-1], flush=True)
    record.write(
        "known-truth",
        rows,
        "Error of the transform against the known field, mm, over the brain (open_ms, T1 to T2); preset mcbo.",
    )


def _measured(
    name: str, fixed: Volume, moving: list[Volume], truth: DisplacementField, region: torch.Tensor
) -> dict[str, Any]:
    result = register(fixed, moving, settings="mcbo", device="cpu")
    found = result.transform.displacement_field(fixed.grid).displacement_mm
    before = truth.magnitude_mm()[region]
    after = (found - truth.displacement_mm).norm(dim=-1)[region]
    return {
        "case": name,
        "mean before mm": round(float(before.mean()), 2),
        "mean after mm": round(float(after.mean()), 2),
        "95 % after mm": round(float(after.kthvalue(int(0.95 * len(after))).values), 2),
        "max before mm": round(float(before.max()), 2),
        "max after mm": round(float(after.max()), 2),
        "folding voxels": result.assessment.quality.jacobian_determinant.folding_voxels,
        "seconds": round(result.provenance.timings_s["total"], 1),
    }
