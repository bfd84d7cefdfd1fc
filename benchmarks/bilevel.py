"""Whether bilevel training finds the weight of a loss that a person would set, also from one that is far off.

MultiPropReg on a coarse grid, the weight of smoothness by hand, a hundred times too small and a hundred times too
large, and each of these with the upper level on; everything else alike.  The upper level judges by the validation
subjects, the table by the test subjects.  Single trainings scatter by a few thousandths of Dice: those that are to be
told apart, by hand with and without, are done with three seeds, the others, which are much worse, with one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from benchmarks import record
from benchmarks.learned import TRAINED, measured, network_of, pairs_with_template
from benchmarks.subjects import Subject
from benchmarks.training_subjects import write_training_data
from MMRegCore.networks.weights import read_card
from MMRegCore.settings import with_changes
from MMRegCore.training.engine.curves import read_curves
from MMRegCore.training.engine.loop import CURVES, LAST
from MMRegCore.training.recipes import find_recipe, read_settings
from MMRegCore.training.recipes.multiprop import MultiPropTraining
from MMRegCore.training.run import run_training

Row: TypeAlias = dict[str, Any]

STEPS = 1500
_CONFIG = Path(__file__).with_name("multiprop.json")
_COARSE: dict[str, object] = {
    "training.steps": STEPS,
    "training.validate_every": 100,
    "network.trained_on.spacing_mm": 5.0,
}
_UPPER: dict[str, object] = {
    "bilevel.every": 2,
    "bilevel.start_step": 400,
    "bilevel.learning_rate": 8.0,
    "bilevel.objective": "dice",
    "bilevel.learned": "regularisation",
}
_GOOD = "by hand"
_FACTORS = {_GOOD: 1.0, "100 times too large": 100.0, "100 times too small": 0.01}
_SEEDS = (0, 1, 2)


def main() -> None:
    """Train what is not there yet, measure, and write ``results/bilevel``."""
    torch.set_num_threads(1)
    pairs = list(pairs_with_template())
    rows: list[Row] = [
        {"weight of smoothness": "(affine only)", **measured(lambda pair: torch.zeros(1, 3, *pair.grid.shape), pairs)}
    ]
    for name in _runs():
        rows.append({"weight of smoothness": name, **_measured_run(name, pairs)})
        print(rows[-1], flush=True)
    record.write("bilevel", rows, _note(rows))


def trained(name: str, seed: int) -> Path:
    """The folder of one of the trainings, which is done where it is not there."""
    folder = TRAINED / "bilevel" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    if not (folder / LAST).exists() or read_card(folder / LAST)["steps"] < STEPS:
        shutil.rmtree(folder, ignore_errors=True)
        data = write_training_data(TRAINED / "data")
        changes = {**_COARSE, **_runs()[name], "training.seed": seed}
        run_training("multiprop", with_changes(_by_hand(), changes), data, folder, device="cpu")
    return folder


def _runs() -> dict[str, dict[str, object]]:
    """What is changed in each kind of training, by name."""
    runs: dict[str, dict[str, object]] = {}
    for name, factor in _FACTORS.items():
        weight: dict[str, object] = {"smoothness": factor * _by_hand().smoothness}
        runs[name], runs[f"{name}, bilevel"] = weight, {**weight, **_UPPER}
    return runs


def _by_hand() -> MultiPropTraining:
    return cast(MultiPropTraining, read_settings(find_recipe("multiprop"), _CONFIG))


def _measured_run(name: str, pairs: list[tuple[Subject, Subject]]) -> Row:
    """Means over the trainings of this kind, and of each its Dice and the weight of smoothness at its end."""
    folders = [trained(name, seed) for seed in (_SEEDS if name.startswith(_GOOD) else _SEEDS[:1])]
    each = [measured(network_of(folder / LAST, "multiprop"), pairs) for folder in folders]
    ends = [_at_the_end(name, folder) for folder in folders]
    means = {column: round(float(np.mean([row[column] for row in each])), 4) for column in each[0]}
    listed = {
        "Dice of each": "; ".join(f"{row['Dice']:.4f}" for row in each),
        "at the end": "; ".join(f"{end:.3g}" for end in ends),
    }
    return {**means, **listed}


def _at_the_end(name: str, folder: Path) -> float:
    curve = read_curves(folder / CURVES).get(("training", "weight of smoothness"))
    return curve[-1][1] if curve else with_changes(_by_hand(), _runs()[name]).smoothness


def _note(rows: list[Row]) -> str:
    dice = {row["weight of smoothness"]: row["Dice"] for row in rows}
    regained = []
    for name in (name for name in _FACTORS if name != _GOOD):
        lost, again = dice[_GOOD] - dice[name], dice[f"{name}, bilevel"] - dice[name]
        regained.append(f"{name}, {100 * again / lost:.0f} %" if lost > 0 else f"{name}, nothing was lost")
    return (
        f"MultiPropReg, {STEPS} steps on a 5 mm grid, T2 of subjects 13 to 16 to the T1 of the template; as "
        "benchmarks/multiprop.json otherwise. The upper level judges by the Dice of subjects 11 and 12, every second "
        f"step from step {_UPPER['bilevel.start_step']} on, and learns the weights of the regularisation: smoothness, "
        "folding, latent divergence. Of the Dice that "
        f"a bad weight loses it regains: {'; '.join(regained)}. Means over the four subjects and, by hand, with and "
        f"without, over {len(_SEEDS)} trainings that differ by their seed; one training of the others."
    )
