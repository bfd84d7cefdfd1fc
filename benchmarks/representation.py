"""The training of MASR-Net's shipped weights: its data, its run, its card.

Trained on ten of the label maps (rendered anew in every step) and on ultrasound simulated from them; chosen on two
others.  The test subjects, the patients in ``open_ms`` and ``tcga_fg6692``, ``subject4_t1t2`` and RESECT take no part.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from benchmarks import record
from benchmarks.subjects import BRAIN, SPLITS, label_map, one_sided
from MMRegCore import Grid, Monitor, Volume, write_volume
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import make_screen
from MMRegCore.networks.weights import read_card
from MMRegCore.resampling import resample
from MMRegCore.simulate import BrainShiftSettings, anatomy_from_labels, simulate, with_contrasts
from MMRegCore.simulate.anatomy import cropped
from MMRegCore.training.data.patches import ULTRASOUND
from MMRegCore.training.engine.checkpoint import CHECKPOINT
from MMRegCore.training.engine.loop import BEST, CURVES, LAST
from MMRegCore.training.recipes import find_recipe, read_settings
from MMRegCore.training.run import run_training

DATA = record.ROOT / "build" / "masr-net-data"
# Sample points from everywhere first; then, with the best of these weights, points among their neighbours too.
FIRST, SECOND = (record.ROOT / "build" / name for name in ("masr-net", "masr-net-near"))
WEIGHTS = record.ROOT / "MMRegCore" / "weights"

# Every third label map keeps its head; brains alone, as skull-stripping leaves them, are what is most often registered.
_WITH_HEAD = 3
_MARGIN_VOXEL = 12
_CASES_EACH = 2
# From the middle of the brain to the craniotomy, RAS.
_ENTRIES = (
    (0.95, 0.2, 0.1),
    (-0.9, 0.3, 0.4),
    (-0.95, -0.2, 0.25),
    (0.6, 0.1, 0.75),
    (0.8, 0.5, 0.2),
    (-0.5, 0.5, 0.7),
)
# No benchmark uses seeds from here on.
_FIRST_SEED = 70_000


def train_masr_net() -> None:
    """Make the data where it is not there, train or go on training, and put the weights into the package."""
    if not (DATA / "complete").exists():
        write_data(DATA)
    monitor = Monitor(make_screen(as_json=False))
    with cancel_on_signals(monitor):
        for run in (FIRST, SECOND):
            settings = read_settings(find_recipe("masr-net"), Path(__file__).with_name(f"{run.name}.json"))
            if (run / LAST).exists() and read_card(run / LAST)["steps"] == settings.training.steps:
                continue
            resume = (run / CHECKPOINT).exists()
            run_training("masr-net", settings, DATA, run, device="cpu", resume=resume, monitor=monitor)
    ship()


def ship() -> None:
    """Copy the weights at the end of the second stage into the package, with a card; the curves to the results."""
    card, first = (json.loads(path.with_suffix(".json").read_text("utf-8")) for path in (SECOND / LAST, FIRST / BEST))
    card["name"] = "masrnet"
    card["data"] = (
        "synthseg_labels 01-10 (label maps of SynthSeg's repository, Apache-2.0) in random synthetic contrasts, and "
        "ultrasound simulated from them beside T1, T2 and FLAIR rendered from them; validated on 11 and 12"
    )
    card["first_stage"] = {key: first[key] for key in ("training_settings", "steps", "seconds", "machine", "scores")}
    card["command"] = "python -m benchmarks train-masr-net"
    card["licence"] = "Apache-2.0"
    card["note"] = (
        "A small network, trained on one thread of a CPU for an hour and a half, on cubes of 40 voxels, in two "
        "stages; the first was chosen by its retrieval on the validation subjects, the second is as it ended. It has "
        "seen no real patient."
    )
    WEIGHTS.mkdir(exist_ok=True)
    shutil.copyfile(SECOND / LAST, WEIGHTS / "masrnet.safetensors")
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (WEIGHTS / "masrnet.json").write_text(text, encoding="utf-8")
    for run in (FIRST, SECOND):
        if (run / CURVES).exists():
            shutil.copyfile(run / CURVES, record.RESULTS / f"{run.name}-curves.csv")


def write_data(folder: Path) -> None:
    """Write label maps and simulated cases as ``mmreg train`` reads them: a folder for each subject."""
    for split, name in (("train", "training"), ("validation", "validation")):
        for number in SPLITS[split]:
            _write_subject(folder / name, number)
    (folder / "complete").touch()


def _write_subject(folder: Path, number: int) -> None:
    head = label_map(number)
    brain = head.with_data(head.data * torch.isin(head.data, torch.tensor(BRAIN, dtype=torch.float32)))
    target = folder / f"labels_{number:02d}"
    target.mkdir(parents=True, exist_ok=True)
    kept, whole = cropped([brain, head], margin=_MARGIN_VOXEL)
    write_volume(_one_sided(whole if number % _WITH_HEAD == 0 else kept), target / "labels.nii.gz", dtype="int16")
    anatomy = with_contrasts(anatomy_from_labels([], head), ["t1", "t2", "flair"], seed=_FIRST_SEED + number)
    for index in range(_CASES_EACH):
        seed = _FIRST_SEED + number * _CASES_EACH + index
        entry = _ENTRIES[seed % len(_ENTRIES)]
        case = simulate(
            anatomy,
            entry_direction_ras=entry,
            spacing_mm=1.0,
            shift=BrainShiftSettings(mean_mm=0.01),
            landmarks=0,
            seed=seed,
        )
        _write_case(folder / f"case_{number:02d}_{index}", case.fixed, case.moving)


def _write_case(folder: Path, ultrasound: Volume, images: tuple[Volume, ...]) -> None:
    """The MR on the ultrasound's grid, which it lies under: the brain shift of these cases is none."""
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(ultrasound, folder / f"{ULTRASOUND}.nii.gz")
    for image in images:
        on_grid = Volume(resample(image, ultrasound.grid, padding_mode="zeros"), ultrasound.grid)
        write_volume(on_grid, folder / f"{image.name.lower()}.nii.gz")


def _one_sided(labels: Volume) -> Volume:
    """Right as left: both sides look alike in every real contrast; RAS axes, which a network does not ask about."""
    data = one_sided(labels.data)
    return Volume(data, Grid(labels.grid.shape, np.eye(4)), name="labels")
