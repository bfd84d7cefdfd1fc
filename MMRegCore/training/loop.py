"""The one loop that trains every network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from MMRegCore.config.training import TrainingSettings
from MMRegCore.errors import Cancelled, InputError
from MMRegCore.monitor import Monitor
from MMRegCore.training.averaging import Averaged
from MMRegCore.training.checkpoint import CHECKPOINT, machine_in_words, read_checkpoint, write_checkpoint, write_weights
from MMRegCore.training.curves import Curves
from MMRegCore.training.distributed import Place
from MMRegCore.training.recipe import Batches, Recipe

CURVES = "curves.csv"
BEST, LAST = "best.safetensors", "last.safetensors"
# What a checkpoint holds.
_PARTS = ("step", "best", "seconds", "scores", "curves", "recipe", "averaged")


def train(
    recipe: Recipe,
    batches: Batches,
    settings: TrainingSettings,
    folder: Path,
    *,
    place: Place | None = None,
    monitor: Monitor | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train, validate now and then, and leave curves, a checkpoint and weights.

    Parameters
    ----------
    recipe : Recipe
    batches : callable
        ``batches(generator)`` draws the batch of one step.
    settings : TrainingSettings
    folder : Path
        Must exist.  Gets ``curves.csv``, ``checkpoint.pt``, and ``best.safetensors`` and ``last.safetensors`` with a
        card (.json) each; every file is whole or not there.
    place : Place, optional
        The CPU, alone, when None.  Only the first process of several writes.
    monitor : Monitor, optional
        When it cancels, a checkpoint is written first.
    resume : bool
        Go on from the folder's checkpoint.  On a CPU with as many threads the result is the same, bit by bit, as that
        of a run that was never interrupted.
    about : mapping, optional
        What the cards say besides architecture, settings, steps, seconds, machine and scores.

    Returns
    -------
    dict
        The last scores.

    Raises
    ------
    InputError
        When a loss is not finite, ``folder`` cannot be written, there is no checkpoint to go on from, or there is one
        and ``resume`` was not asked for.
    Cancelled
        When the monitor says so.
    """
    place = place or Place(torch.device("cpu"))
    averaged = Averaged(recipe.network, settings.averaging)
    run = _Run(recipe, averaged, settings, folder, place, dict(about or {}))
    run.begin(resume)
    with _repeatable(place.device):
        while run.step < settings.steps:
            run.check_cancelled(monitor or Monitor())
            generator = place.generator(settings.seed, run.step)
            losses = recipe.step(batches(generator), generator)
            run.take(losses)
    return run.scores


@dataclass
class _Run:
    """The state of a training, and what is written of it."""

    recipe: Recipe
    averaged: Averaged
    settings: TrainingSettings
    folder: Path
    place: Place
    about: dict[str, Any]
    step: int = 0
    best: float = -float("inf")
    scores: dict[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)
    _seconds_before: float = 0.0
    _start_s: float = field(default_factory=time.monotonic)

    def begin(self, resume: bool) -> None:
        """Take up the checkpoint; refuse to write over one unasked."""
        path = self.folder / CHECKPOINT
        if not resume and path.exists():
            raise InputError(f"expected an output folder without a checkpoint, or --resume; got {self.folder}")
        if resume:
            state = read_checkpoint(path, self.place.device, _PARTS)
            self.step, self.best, self._seconds_before = int(state["step"]), state["best"], state["seconds"]
            self.scores = dict(state["scores"])
            self.curves.load_state_dict(state["curves"])
            self.recipe.load_state_dict(state["recipe"])
            self.averaged.load_state_dict(state["averaged"])

    def check_cancelled(self, monitor: Monitor) -> None:
        """Report, and stop all processes at the same step when one is asked to; what was done is kept."""
        cancelled: Cancelled | None = None
        try:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
            stage = f"step {self.step} of {self.settings.steps}"
            monitor.report(f"{stage}, {scores}" if scores else stage, self.step / self.settings.steps)
        except Cancelled as error:
            cancelled = error
        if self.place.anyone(cancelled is not None):
            self._write_checkpoint()
            raise cancelled or Cancelled("cancelled in another process")

    def take(self, losses: dict[str, float]) -> None:
        """Count a step that was done; validate and write where it is time to."""
        self.step += 1
        self.averaged.update()
        self.curves.add(self.step, losses)
        if self.step % self.settings.validate_every and self.step != self.settings.steps:
            return
        with self.averaged.in_place():
            self.scores = self.recipe.validate()
            self.curves.close(self.step, self.scores)
            if self.scores[self.recipe.score] > self.best:
                self.best = self.scores[self.recipe.score]
                self._write_weights(BEST)
            self._write_weights(LAST)
        if self.place.first:
            self.curves.write(self.folder / CURVES)
        self._write_checkpoint()

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start_s

    def _write_weights(self, name: str) -> None:
        if not self.place.first:
            return
        card = {
            **self.about,
            "architecture": self.recipe.architecture,
            "settings": self.recipe.network_settings,
            "steps": self.step,
            "seconds": round(self._seconds, 1),
            "machine": machine_in_words(self.place.device) + (f", {self.place.count}×" if self.place.count > 1 else ""),
            "scores": self.scores,
        }
        write_weights(self.recipe.network, self.folder / name, card)

    def _write_checkpoint(self) -> None:
        if not self.place.first:
            return
        state = {
            "step": self.step,
            "best": self.best,
            "seconds": self._seconds,
            "scores": self.scores,
            "curves": self.curves.state_dict(),
            "recipe": self.recipe.state_dict(),
            "averaged": self.averaged.state_dict(),
        }
        write_checkpoint(self.folder / CHECKPOINT, state)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Steps set torch's global stream: give the caller's back afterwards; take no algorithm by how fast it was."""
    devices = [device] if device.type == "cuda" else []
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before
