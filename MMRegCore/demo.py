"""The demonstration: a simulated case whose answer is known, from real anatomy, without any download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from MMRegCore.evaluate.landmarks import TreSummary, target_registration_error
from MMRegCore.io.files import staged_folder
from MMRegCore.io.landmarks import write_landmarks
from MMRegCore.io.volumes import write_volume
from MMRegCore.monitor import Monitor
from MMRegCore.pipeline import register
from MMRegCore.records import to_json
from MMRegCore.simulate import BrainShiftSettings, SimulatedCase, landmark_pairs, load_template, simulate
from MMRegCore.transform import SpatialTransform

# As on average over the cases of RESECT; a drawn shift may be too small to show anything.
MEAN_SHIFT_MM = 5.0


@dataclass(frozen=True)
class Lengths:
    """Of displacements or errors, in mm."""

    mean: float
    max: float


@dataclass(frozen=True)
class FieldError:
    """Error of a transform inside the field of view, before and after."""

    unit: str
    before: Lengths
    after: Lengths


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration came to, measured against the known truth."""

    field: FieldError
    landmarks: TreSummary


def run_demo(
    output: Path,
    *,
    device: str = "auto",
    memory_gb: float | None = None,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> DemoResult:
    """Simulate an ultrasound of the MNI152 brain after a brain shift, register the MR to it, compare with the truth.

    The folder ``output`` gets what ``mmreg register`` writes, the two input images and their landmarks, ``truth.json``;
    the rest is as in `register`, and ``seed`` also decides the simulated case.  Raises `InputError` when nilearn, which
    carries the anatomy, is not there, or the folder cannot be written.
    """
    monitor = monitor if monitor is not None else Monitor()
    monitor.report("simulating the ultrasound", 0.0)
    case = simulate(load_template(), shift=BrainShiftSettings(mean_mm=MEAN_SHIFT_MM), seed=seed)
    # The mask is left out: finding the field of view is part of the task.
    fixed = case.fixed.with_mask(None)
    result = register(
        fixed, case.moving, device=device, memory_gb=memory_gb, seed=seed, monitor=monitor.part(0.2, 0.95)
    )
    monitor.report("writing the result", 0.95)
    truth = compare_with_truth(case, result.transform)
    with staged_folder(output) as folder:
        result.save(folder, fixed=fixed)
        _write_case(case, folder)
        (folder / "truth.json").write_text(json.dumps(to_json(truth), indent=2), encoding="utf-8")
    monitor.report("done", 1.0)
    return truth


def compare_with_truth(case: SimulatedCase, transform: SpatialTransform) -> DemoResult:
    """Measure a transform against a simulated case's true displacement and landmarks."""
    true_mm = case.truth.displacement_mm[case.evaluated]
    found_mm = transform.displacement_field(case.fixed.grid).displacement_mm[case.evaluated]
    fixed, moving = landmark_pairs(case)
    field = FieldError("mm", _lengths(true_mm), _lengths(found_mm - true_mm))
    return DemoResult(field, target_registration_error(fixed, moving, transform))


def _lengths(difference_mm: torch.Tensor) -> Lengths:
    length_mm = difference_mm.norm(dim=-1)
    return Lengths(float(length_mm.mean()), float(length_mm.max()))


def _write_case(case: SimulatedCase, folder: Path) -> None:
    write_volume(case.fixed, folder / "input_ultrasound.nii.gz")
    for image in case.moving:
        write_volume(image, folder / f"input_{image.name}.nii.gz")
    for name, landmarks in zip(("ultrasound", "mr"), landmark_pairs(case), strict=True):
        write_landmarks(landmarks, folder / f"landmarks_{name}.mrk.json")
