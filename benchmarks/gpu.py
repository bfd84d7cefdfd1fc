"""Time and memory of the presets on a GPU, Case 24 with one modality; on request, since most machines have none."""

from __future__ import annotations

import sys
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import record
from MMRegCore import RegistrationResult, Volume, read_volume, register
from MMRegCore.io.landmarks import read_landmark_pairs

# The presets of networks need weights that are not here.
PRESETS = ("lc2", "mcbo", "mcbo-published", "mcbo-clem", "dns", "dns-mr")
ROUNDS = 3


def main() -> int:
    """Measure and write ``results/gpu``; 2 where there is no GPU."""
    if not torch.cuda.is_available():
        print(f"expected a GPU; PyTorch {torch.__version__} finds none", file=sys.stderr)
        return 2
    folder = record.data_folder("resect")
    fixed, moving = (read_volume(folder / f"Case24_{name}_0.5mm.nii.gz", name=name) for name in ("US", "T1"))
    at_fixed, _ = read_landmark_pairs(folder / "Case24_landmarks_ras.csv")
    rows = [_row(preset, fixed, moving, at_fixed.points_ras) for preset in PRESETS]
    record.write(
        "gpu",
        rows,
        f"{torch.cuda.get_device_name()}; whole registrations without files, medians of {ROUNDS} after one that is not "
        "counted; one registration on the CPU; apart: mean distance of both results at the landmarks.",
    )
    return 0


def _row(preset: str, fixed: Volume, moving: Volume, points: np.ndarray) -> dict[str, Any]:
    on_cpu = register(fixed, moving, settings=preset, device="cpu")
    register(fixed, moving, settings=preset, device="cuda")  # loads the kernels
    torch.cuda.reset_peak_memory_stats()
    on_gpu = [register(fixed, moving, settings=preset, device="cuda") for _ in range(ROUNDS)]
    apart = on_gpu[-1].transform.apply(points) - on_cpu.transform.apply(points)
    return {
        "preset": preset,
        "ran on": on_gpu[-1].provenance.device,
        "seconds": _seconds(on_gpu, "total"),
        "solve": _seconds(on_gpu, "solve"),
        "CPU seconds": _seconds([on_cpu], "total"),
        "CPU solve": _seconds([on_cpu], "solve"),
        "peak GPU GB": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "apart mm": round(float(np.linalg.norm(apart, axis=1).mean()), 3),
    }


def _seconds(results: list[RegistrationResult], part: str) -> float:
    return round(median(result.provenance.timings_s[part] for result in results), 2)
