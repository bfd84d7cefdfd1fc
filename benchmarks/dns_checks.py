"""Parts of `benchmarks.dns` that look at MMReg as a whole: the real patient, and what it takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.calibration import make_case
from MMRegCore import load_preset, read_volume, register
from MMRegCore.config import with_changes
from MMRegCore.io.landmarks import read_landmark_pairs

Row = dict[str, Any]
_SIZES, _TRAINED = (192, 256), 192
# Of `benchmarks.calibration.CASES`, those with a shift of at most 1.5 mm.
_SMALL_SHIFTS = (0, 5, 22, 10, 16)


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
        "dns, without model selection": with_changes(preset, {"model_selection.enabled": False}),
    }
    for what, settings in found.items():
        result = register(fixed, moving, settings=settings, device="cpu")
        quality = result.assessment.quality
        rows.append(
            {
                "what": what,
                **errors(result.transform.apply(at_fixed.points_ras)),
                "selected": quality.model_selection and quality.model_selection.selected,
                "folding voxels": quality.jacobian_determinant.folding_voxels,
                "seconds": round(result.provenance.timings_s["total"], 1),
            }
        )
        print(rows[-1], flush=True)
    record.write(
        "dns-case24",
        rows,
        "RESECT Case 24, T1 and FLAIR, preset dns: target registration error of 16 expert landmarks; 'without model "
        "selection' is the deformation as the method finds it.",
        "dns case24",
    )


def chance() -> None:
    """How the similarity improves when nearly nothing moved: what `model_selection.least_improvement` was set on."""
    preset = load_preset("dns")
    unopposed = with_changes(preset, {"model_selection.enabled": False})
    rows = []
    for number in _SMALL_SHIFTS:
        name, case = make_case(number)
        fixed = case.fixed.with_mask(None)
        result = register(fixed, case.moving, settings=preset, device="cpu")
        selection = result.assessment.quality.model_selection
        if selection is None:
            raise RuntimeError("expected a model selection; got none")
        free = register(fixed, case.moving, settings=unopposed, device="cpu")
        points = fixed.grid.points_ras().reshape(-1, 3)[::997]
        inside = (fixed.data[0].flatten()[::997] > 0).numpy()
        there = points + case.truth.on_grid(fixed.grid).displacement_mm.reshape(-1, 3)[::997].numpy()
        results = {
            "start": points,
            "selected": result.transform.apply(points),
            "deformed": free.transform.apply(points),
        }
        errors = {
            f"{what} mm": round(float(np.linalg.norm(got - there, axis=1)[inside].mean()), 2)
            for what, got in results.items()
        }
        improvement = {candidate.name: candidate.improvement for candidate in selection.candidates}
        rows.append(
            {
                "case": name,
                **errors,
                "improvement, rigid": round(improvement["rigid"], 4),
                "improvement, deformed": round(improvement["deformed"], 4),
                "selected": selection.selected,
            }
        )
        print(rows[-1], flush=True)
    record.write(
        "dns-chance",
        rows,
        "Preset dns on simulated cases of the calibration whose shift is at most 1.5 mm: mean error in the field of "
        "view, and by how much the similarity improves.",
        "dns chance",
    )


def sizes() -> None:
    """Memory and time of describing a whole volume, and of one step of training on one, in a process of its own."""
    rows = []
    for size in _SIZES:
        script = (
            "import torch; from MMRegCore.similarity.descriptors.dns import Dns; "
            f"image = torch.rand(1, 1, {size}, {size}, {size}); Dns().encode_moving(image, torch.ones_like(image))"
        )
        rows.append({"what": f"{size}³ described", **_cost([sys.executable, "-c", script])})
        print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, number in (("training", 1), ("validation", 11)):
            folder = Path(scratch) / name / "one"
            folder.mkdir(parents=True)
            labels = record.data_folder("synthseg_labels") / f"training_seg_{number:02d}.nii.gz"
            shutil.copyfile(labels, folder / "labels.nii.gz")
        settings = ("training.steps=1", "training.precision=mixed", "validation_pairs=1", "neighbours=1")
        command = [sys.executable, "-m", "MMRegCore", "train", "masr-net", "--device", "cpu", "--data", scratch]
        command += ["--output", f"{scratch}/run", "--set", f"patches.crop_voxel={_TRAINED}", *settings]
        rows.append({"what": f"{_TRAINED}³ twice, one step of training and a validation", **_cost(command)})
    record.write(
        "dns-sizes",
        rows,
        "Descriptors of MASR-Net of a whole volume, and a training on pairs of that size: 8196 points and their "
        "neighbours, mixed precision. On one thread of a CPU.",
        "dns sizes",
    )


def _cost(command: list[str]) -> Row:
    """Seconds and peak memory of a command, on one thread."""
    measured = [sys.executable, str(record.ROOT / "benchmarks" / "measured.py"), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(measured, cwd=record.ROOT, env=environment, capture_output=True, text=True, check=True)
    found: Row = json.loads(ran.stdout)
    return found
