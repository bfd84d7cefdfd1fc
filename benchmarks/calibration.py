"""What do-no-harm and the expected error were set on: simulated cases of brains that no benchmark judges.

``--set hard-setting`` takes the cases of a set of ``accuracy`` with a known displacement instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import record
from benchmarks.cases import SETS
from benchmarks.problem import Problem as Answered
from MMRegCore import DisplacementField, SpatialTransform, Volume, load_preset, read_volume
from MMRegCore.assessment.expected_error import standard_error_mm
from MMRegCore.methods import find_method
from MMRegCore.methods.protocol import Problem
from MMRegCore.monitor import Monitor
from MMRegCore.ops import identity_positions
from MMRegCore.prepare import prepare
from MMRegCore.runtime import GIB
from MMRegCore.search.model_selection import select_model
from MMRegCore.search.sampled import Levels
from MMRegCore.simulate import (
    BrainShiftSettings,
    CavitySettings,
    SimulatedCase,
    anatomy_from_labels,
    load_template,
    simulate,
    with_contrasts,
)

# Brain, contrasts, mean shift in mm; the last are beyond what the search reaches.
CASES = (
    ("MNI152", "t1", 0.3),
    ("MNI152", "t1+t2", 2),
    ("training_seg_03", "flair", 4),
    ("MNI152", "t1+flair", 6),
    ("MNI152", "t1", 9),
    ("training_seg_06", "t1+t2", 0.3),
    ("MNI152", "flair", 3),
    ("MNI152", "t1+flair", 5),
    ("training_seg_09", "t1", 8),
    ("MNI152", "t1+t2", 14),
    ("MNI152", "flair", 1),
    ("training_seg_12", "t1+flair", 2.5),
    ("MNI152", "t1", 4.5),
    ("MNI152", "t1+t2", 7),
    ("training_seg_15", "flair", 11),
    ("MNI152", "t1+flair", 20),
    ("training_seg_01", "t2", 1.5),
    ("MNI152", "t2+flair", 30),
    ("training_seg_03", "t1", 3.5),
    ("MNI152", "t1+t2", 5.5),
    ("training_seg_05", "flair", 25),
    ("MNI152", "t1+flair", 6.5),
    ("training_seg_07", "t2", 0.6),
    ("MNI152", "t2+flair", 2.2),
    ("training_seg_09", "t1", 16),
    ("MNI152", "t1+t2", 4.2),
    ("training_seg_11", "flair", 8.5),
    ("MNI152", "t1+flair", 40),
    ("training_seg_13", "t2", 3.2),
    ("MNI152", "t2+flair", 5.2),
    ("training_seg_15", "t1", 28),
    ("MNI152", "t1+t2", 7.5),
)
SITES = ((0.95, 0.2, 0.1), (-0.9, 0.3, 0.4), (0.6, 0.5, 0.75), (-0.8, -0.5, 0.4))
FIRST_SEED = 1300
SAMPLES = 1500
# Added to the error before its logarithm is taken.
SMALLEST_MM = 0.05


@dataclass(frozen=True, eq=False)
class Example:
    """One case, and what the method made of it; standard error and error at the same voxels."""

    row: dict[str, Any]
    spread_mm: np.ndarray
    error_mm: np.ndarray


def main(words: Sequence[str] = ()) -> None:
    """Measure and write ``results/calibration``, or ``calibration-SET``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks calibration")
    parser.add_argument("--set", choices=[name for name in SETS if name != "case24"], help="cases of ``accuracy``")
    options = parser.parse_args(words)
    examples = []
    for name, case in _answered(options.set):
        examples.append(_measured(case, name))
        print(examples[-1].row, flush=True)
    spread = np.log(np.stack([example.spread_mm for example in examples]))
    error = np.log(np.stack([example.error_mm for example in examples]) + SMALLEST_MM)
    slope, offset = np.polyfit(spread.ravel(), error.ravel(), 1)
    fitted = slope * spread + offset
    rows = [
        example.row | {"expected mm": round(float(expected), 2)}
        for example, expected in zip(examples, np.exp(fitted).mean(axis=1), strict=True)
    ]
    record.write(
        "calibration" if options.set is None else f"calibration-{options.set}",
        rows,
        f"Expected error: log(error + {SMALLEST_MM}) = {offset:.2f} {slope:+.2f} · log(standard error), standard "
        f"deviation {float(np.std(error - fitted)):.2f}, over {SAMPLES} voxels of each case. Improvement: of the "
        "similarity, by the deformation; where the shift is 0.3 mm it is what chance gives.",
        " ".join(["calibration", *words]),
    )


def _answered(set_name: str | None) -> Iterator[tuple[str, Answered]]:
    """Name and problem of each of `CASES`, or of the cases of a set."""
    if set_name is None:
        for number in range(len(CASES)):
            name, case = make_case(number)
            yield name, Answered(case.fixed, case.moving, case.evaluated, case.truth, None, None, np.eye(4))
        return
    for one in SETS[set_name]():
        yield one.name, Answered.read(one.folder())


def make_case(number: int) -> tuple[str, SimulatedCase]:
    """Name and files of one of `CASES`."""
    brain, contrasts, shift_mm = CASES[number]
    wanted = contrasts.split("+")
    if brain == "MNI152":
        # The template comes with a T1, which is left out again where it is not wanted.
        skipped = 0 if "t1" in wanted else 1
        extra = [contrast for contrast in wanted if contrast != "t1"]
        anatomy = with_contrasts(load_template(), extra, seed=number) if extra else load_template()
    else:
        labels = read_volume(record.data_folder("synthseg_labels") / f"{brain}.nii.gz", name="labels")
        anatomy, skipped = with_contrasts(anatomy_from_labels([], labels), wanted, seed=number), 0
    case = simulate(
        anatomy,
        entry_direction_ras=SITES[(number * 7) % 4],
        shift=BrainShiftSettings(mean_mm=shift_mm),
        cavity=CavitySettings() if number % 5 == 3 else None,
        spacing_mm=0.7,
        seed=FIRST_SEED + number,
    )
    return f"{brain}, {contrasts}", SimulatedCase(**{**vars(case), "moving": case.moving[skipped:]})


def _measured(case: Answered, name: str) -> Example:
    settings = load_preset("lc2")
    fixed, start = case.fixed.with_mask(None), SpatialTransform.from_matrix(case.start_ras)
    pair = prepare(
        fixed,
        case.moving,
        start,
        spacing_mm=settings.working_spacing_mm,
        masked=True,
        margin_mm=settings.margin_mm,
    )
    levels, options = Levels(pair), settings.model_selection
    problem = Problem(pair, levels, 2 * GIB, Monitor())
    found = find_method("lc2").solve(problem, settings.options).displacement_voxel
    finest = levels.at(options.similarity, options.sampling_spacing_mm, options.half_width)
    deformed = select_model(pair, found, finest, options)[1].candidates[2]
    spread = standard_error_mm(finest, found, pair.spacing_mm).flatten().numpy()
    # What is found is followed by the start.
    turn = torch.from_numpy(case.start_ras[:3, :3].T.copy()).float()
    total = DisplacementField.from_voxel(found, pair.grid).displacement_mm @ turn
    total = total + DisplacementField.from_linear(case.start_ras, pair.grid).displacement_mm
    difference = total - case.truth.on_grid(pair.grid).displacement_mm
    error_mm = Volume(difference.norm(dim=-1)[None], pair.grid)
    weight = finest.shares()
    places = finest.origin[:, None] + finest.place_voxel * identity_positions(weight.shape[2:])[0].flatten(1)
    top = torch.tensor(pair.grid.shape)[:, None] - 1
    d, h, w = places.round().long().clamp(min=torch.zeros_like(top), max=top)
    at_patches = error_mm.data[0, d, h, w].numpy()
    weight = weight.flatten()
    random = np.random.default_rng(0)
    chosen = random.choice(np.flatnonzero((weight > 0.3 * weight.max()).numpy()), SAMPLES)
    inside = pair.fixed.weight[0, 0] > 0
    row = {
        "case": name,
        "shift mm": round(float(case.truth.on_grid(pair.grid).magnitude_mm()[inside].mean()), 2),
        "error mm": round(float(error_mm.data[0][inside].mean()), 2),
        "improvement": round(deformed.improvement, 4),
        "standard errors": round(deformed.significance, 1),
    }
    return Example(row, spread[chosen], at_patches[chosen])
