"""The one loop that trains every network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from MMRegCore.errors import Cancelled, InputError
from MMRegCore.monitor import Monitor
from MMRegCore.training.engine.averaging import AveragedWeights
from MMRegCore.training.engine.checkpoint import (
    CHECKPOINT,
    machine_name,
    read_checkpoint,
    write_checkpoint,
    write_weights,
)
from MMRegCore.training.engine.curves import Curves
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.engine.recipe import Recipe
from MMRegCore.training.settings import TrainingSettings

CURVES = "curves.csv"
BEST, LAST = "best.safetensors", "last.safetensors"
# What a checkpoint holds of a run, and the parts whose states it holds.
_NUMBERS, _PARTS = ("step", "best", "seconds", "scores"), ("curves", "recipe", "averaged")


def train(
    recipe: Recipe,
    settings: TrainingSettings,
    folder: Path,
    *,
    context: ProcessContext | None = None,
    monitor: Monitor | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train, validate now and then, and write curves, a checkpoint and weights; gives the last scores.

    Parameters
    ----------
    folder : Path
        Must exist.  Gets ``curves.csv``, ``checkpoint.pt``, and ``best.safetensors`` and ``last.safetensors`` with a
        card (.json) each; every file is written atomically.
    context : ProcessContext, optional
        The CPU, alone, when None.  Only the main process of several writes.
    resume : bool
        Resume from the folder's checkpoint.  On a CPU with as many threads the result is the same, bit by bit, as that
        of a run that was never interrupted.
    about : mapping, optional
        What the cards say besides architecture, settings, steps, seconds, machine and scores.

    Raises
    ------
    InputError, Cancelled
        When a loss is not finite, ``folder`` cannot be written, or has no checkpoint to resume from or one that was not
        asked for; when the monitor is cancelled, after a checkpoint was written.
    """
    context = context or ProcessContext(torch.device("cpu"))
    run = _Run(recipe, AveragedWeights(recipe.network, settings.averaging), settings, folder, context, about or {})
    run.begin(resume)
    with _deterministic(context):
        while run.step < settings.steps:
            run.check_cancelled(monitor or Monitor())
            generator = context.generator(settings.seed, run.step)
            run.finish_step(recipe.step(recipe.draw(generator), generator))
    return run.scores


@dataclass
class _Run:
    """The state of a training, and what is written of it."""

    recipe: Recipe
    averaged: AveragedWeights
    settings: TrainingSettings
    folder: Path
    context: ProcessContext
    about: Mapping[str, Any]
    step: int = 0
    best: float = -float("inf")
    scores: dict[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)
    seconds: float = 0.0  # up to what was written last
    _counted_s: float = field(default_factory=time.monotonic)

    def begin(self, resume: bool) -> None:
        """Read the checkpoint; refuse to overwrite one unasked."""
        path = self.folder / CHECKPOINT
        if not resume and path.exists():
            raise InputError(f"expected an output folder without a checkpoint, or --resume; got {self.folder}")
        if resume:
            state = read_checkpoint(path, self.context.device, (*_NUMBERS, *_PARTS))
            for name in _NUMBERS:
                setattr(self, name, state[name])
            for name in _PARTS:
                getattr(self, name).load_state_dict(state[name])

    def check_cancelled(self, monitor: Monitor) -> None:
        """Report, and stop all processes at the same step when one is asked to, with a checkpoint."""
        cancelled: Cancelled | None = None
        try:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
            stage = f"step {self.step} of {self.settings.steps}"
            monitor.report(f"{stage}, {scores}" if scores else stage, self.step / self.settings.steps)
        except Cancelled as error:
            cancelled = error
        if self.context.any_rank(cancelled is not None):
            self._write_checkpoint()
            raise cancelled or Cancelled("cancelled in another process")

    def finish_step(self, losses: dict[str, float]) -> None:
        """Count a step; validate and write where that is due."""
        self.step += 1
        self.averaged.update()
        self.curves.add(self.step, losses)
        if self.step % self.settings.validate_every and self.step != self.settings.steps:
            return
        with self.averaged.applied():
            self.scores = self.recipe.validate()
            self.curves.close(self.step, self.scores)
            if self.scores[self.recipe.score] > self.best:
                self.best = self.scores[self.recipe.score]
                self._write_weights(BEST)
            self._write_weights(LAST)
        if self.context.is_main:
            self.curves.write(self.folder / CURVES)
        self._write_checkpoint()

    def _count_seconds(self) -> None:
        now_s = time.monotonic()
        self.seconds, self._counted_s = self.seconds + now_s - self._counted_s, now_s

    def _write_weights(self, name: str) -> None:
        if not self.context.is_main:
            return
        self._count_seconds()
        count = self.context.world_size
        about = {
            **self.about,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "machine": machine_name(self.context.device) + (f", {count}×" if count > 1 else ""),
            "scores": self.scores,
        }
        write_weights(self.recipe.network, self.folder / name, about)

    def _write_checkpoint(self) -> None:
        if not self.context.is_main:
            return
        self._count_seconds()
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        states = {name: getattr(self, name).state_dict() for name in _PARTS}
        write_checkpoint(self.folder / CHECKPOINT, {**numbers, **states})


@contextmanager
def _deterministic(context: ProcessContext) -> Iterator[None]:
    """Steps set torch's global stream, which is restored afterwards; no algorithm is chosen by timing it."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        with torch.random.fork_rng(devices=context.fork_devices):
            yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before
