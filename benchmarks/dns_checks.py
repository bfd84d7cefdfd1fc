"""Parts of `benchmarks.dns` that look at MMReg as a whole: the real patient, and what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import record
from MMRegCore import load_preset, read_volume, register
from MMRegCore.io import read_landmark_pairs

Row = dict[str, Any]
_SIZES = (192, 256)


def case24() -> None:
    """The real patient with the presets on descriptors, from its start."""
    folder = record.data_folder("resect")
    fixed = read_volume(folder / "Case24_US_0.5mm.nii.gz", name="US")
    moving = [read_volume(folder / f"Case24_{name}_0.5mm.nii.gz", name=name) for name in ("T1", "FLAIR")]
    at_fixed, at_moving = read_landmark_pairs(folder / "Case24_landmarks_ras.csv")

    def errors(points: np.ndarray) -> Row:
        length = np.linalg.norm(points - at_moving.points_ras, axis=1)
        return {"mean mm": round(float(length.mean()), 2), "max mm": round(float(length.max()), 2)}

    rows: list[Row] = [{"what": "start", **errors(at_fixed.points_ras)}]
    preset = load_preset("dns")
    found = {
        "dns": preset,
        "dns, without choice": replace(preset, choice=replace(preset.choice, compete=False)),
    }
    for what, settings in found.items():
        result = register(fixed, moving, settings=settings, device="cpu")
        choice = result.assessment.numbers.get("choice") or {}
        rows.append(
            {
                "what": what,
                **errors(result.transform.apply(at_fixed.points_ras)),
                "chosen": choice.get("chosen"),
                "folding voxels": result.assessment.numbers["jacobian_determinant"]["folding_voxels"],
                "seconds": round(result.provenance["timings_s"]["total"], 1),
            }
        )
        print(rows[-1], flush=True)
    record.write(
        "dns-case24",
        rows,
        "RESECT Case 24, T1 and FLAIR, preset dns: target registration error of 16 expert landmarks; 'without choice' "
        "is the deformation as the method finds it, whatever the start.",
        "dns case24",
    )


def sizes() -> None:
    """Memory and time of describing a whole volume, in a process of its own."""
    rows = []
    for size in _SIZES:
        script = (
            "import torch; from MMRegCore.features.dns import dns; "
            "from MMRegCore.networks.weights import load_network; "
            f"dns(torch.rand(1, 1, {size}, {size}, {size}), load_network('masrnet'))"
        )
        command = [sys.executable, str(record.ROOT / "benchmarks" / "measured.py"), sys.executable, "-c", script]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, cwd=record.ROOT, env=environment, capture_output=True, text=True, check=True)
        rows.append({"volume": f"{size}³", **json.loads(ran.stdout)})
    record.write("dns-sizes", rows, "Descriptors of MASR-Net of a whole volume, on one thread of a CPU.", "dns sizes")
