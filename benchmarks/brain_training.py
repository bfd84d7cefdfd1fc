"""The training of the shipped brain extraction: label maps 1 to 10, chosen on 11 and 12; no image of anybody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks import record
from benchmarks.subjects import SPLITS
from MMRegCore import Monitor
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import make_screen
from MMRegCore.training.engine.checkpoint import CHECKPOINT
from MMRegCore.training.engine.loop import CURVES, LAST
from MMRegCore.training.recipes import find_recipe, read_settings
from MMRegCore.training.run import run_training

NAME = "brain-unet"
DATA, RUN = (record.ROOT / "build" / name for name in ("brain-unet-data", "brain-unet"))
WEIGHTS = record.ROOT / "MMRegCore" / "weights"


def train_brain_unet() -> None:
    """Train or go on training, and put the weights into the package."""
    for split, name in (("train", "training"), ("validation", "validation")):
        for number in SPLITS[split]:
            folder = DATA / name / f"{number:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            source = record.data_folder("synthseg_labels") / f"training_seg_{number:02d}.nii.gz"
            shutil.copyfile(source, folder / "labels.nii.gz")
    monitor = Monitor(make_screen(as_json=False))
    with cancel_on_signals(monitor):
        settings = read_settings(find_recipe(NAME), Path(__file__).with_name(f"{NAME}.json"))
        resume = (RUN / CHECKPOINT).exists()
        run_training(NAME, settings, DATA, RUN, device="cpu", resume=resume, monitor=monitor)
    ship(RUN)


def ship(run: Path) -> None:
    """Copy the weights at the end of a training into the package, with a card; its curves to the results."""
    card = json.loads((run / LAST).with_suffix(".json").read_text("utf-8"))
    card |= {
        "name": NAME,
        "data": "synthseg_labels 01-10 (label maps of SynthSeg's repository, Apache-2.0) in random contrasts; "
        "validated on 11 and 12",
        "command": "python -m benchmarks train-brain-unet",
        "licence": "Apache-2.0",
        "note": "A small network, trained on one thread of a CPU; it has seen no real patient. It began with the weights of "
        "a first run of 500 steps on harder contrasts, and its first 600 steps knew no oblique cuts.",
    }
    WEIGHTS.mkdir(exist_ok=True)
    shutil.copyfile(run / LAST, WEIGHTS / f"{NAME}.safetensors")
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (WEIGHTS / f"{NAME}.json").write_text(text, encoding="utf-8")
    shutil.copyfile(run / CURVES, record.RESULTS / f"{NAME}-curves.csv")
