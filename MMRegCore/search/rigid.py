"""The rigid (on request affine) part first: many motions at a coarse resolution, fewer and fewer at finer ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.lbfgs import Minimum, Objective, minimise
from MMRegCore.search.landmarks import LandmarkTerm
from MMRegCore.search.motion_model import LINEAR, MotionModel
from MMRegCore.search.sampled import Evidence, Levels
from MMRegCore.search.settings import SearchSettings

# So many of the motions that are tried are refined at the coarsest level; candidates that go on from there and from
# each further level.
_REFINED = 16
_KEPT = (6, 3)
# Samples that are compared in one call, of all motions together: more is no faster and takes memory.
_SAMPLES_AT_ONCE = 300_000
# Two candidates nearer than this, in expected sizes of the motion, are one.
_SAME = 0.7


class _Level(NamedTuple):
    cost: Objective
    at_once: int  # motions that are compared in one call


def find_rigid(
    levels: Levels,
    model: MotionModel,
    settings: SearchSettings,
    monitor: Monitor,
    landmarks: LandmarkTerm | None = None,
) -> list[torch.Tensor]:
    """(12,) each: parameters of the rigid transforms with the largest posterior, the largest at the finest level first.

    Motions of all kinds are tried at the coarsest level; the best are refined there by L-BFGS, the best of those at the
    next level, and so on; the finest level only orders them.  No motion is one of the candidates at every level.

    Parameters
    ----------
    levels : Levels
    model : MotionModel
    settings : SearchSettings
    monitor : Monitor
    landmarks : LandmarkTerm, optional
        Further evidence on the motion.
    """
    searched = [
        _Level(
            posterior_cost(evidence, model, settings.effective_sample_size, landmarks),
            max(_SAMPLES_AT_ONCE // evidence.samples, 1),
        )
        for evidence in levels.all(settings)
    ]
    starts = _best_of_many(searched[0], model, settings, levels.prepared.spacing_mm)
    best = _refined(searched[:-1] or searched, starts, model, monitor)
    with torch.no_grad():
        order = _values(searched[-1], torch.stack(best)).argsort(stable=True)
    return [best[int(number)] for number in order.cpu()]


def posterior_cost(
    evidence: Evidence, model: MotionModel, effective_sample_size: float, landmarks: LandmarkTerm | None = None
) -> Objective:
    """Of parameters p minus the log posterior per sample, ``-log prior(p) / N − similarity(p)``; N: effective size.

    Landmarks add minus their log-likelihood over N, ``Σ |T(fixed) − moving|² / 2 σ² N``.
    """
    parts = [(weight, sampled, model.at(sampled.points)) for weight, sampled in evidence.parts]
    landmark_cost = None if landmarks is None else landmarks.cost(model)

    def cost(parameters: torch.Tensor) -> torch.Tensor:
        value = model.surprise(parameters) / effective_sample_size
        if landmark_cost is not None:
            value = value + landmark_cost(parameters) / effective_sample_size
        for weight, sampled, motion in parts:
            value = value - weight * sampled.means(motion(parameters))
        return value

    return cost


def _refined(
    levels: Sequence[_Level], starts: list[torch.Tensor], model: MotionModel, monitor: Monitor
) -> list[torch.Tensor]:
    """The best candidates, (12,) each, at the last of the levels."""
    none = torch.zeros(LINEAR, device=model.centre.device)
    for number, level in enumerate(levels):

        def report(share: float, number: int = number) -> None:
            monitor.report("rigid search", (number + share) / len(levels))

        found = minimise(
            level.cost,
            [none, *starts],
            iterations=15,
            first_step=0.5,
            tolerance=1e-4,
            at_once=level.at_once,
            report=report,
        )
        best = _distinct(found)[: _KEPT[min(number, len(_KEPT) - 1)]]
        starts = [candidate.parameters for candidate in best]
    return starts


def _best_of_many(level: _Level, model: MotionModel, settings: SearchSettings, voxel_mm: float) -> list[torch.Tensor]:
    """The best of translations and rotations (12,) spread evenly over the search range, tried without refinement."""
    if settings.starts == 0:
        return []
    # A low-discrepancy sequence of its own: the same motions in every run, whatever the seed.
    share = 2 * torch.quasirandom.SobolEngine(6, scramble=True, seed=0).draw(settings.starts) - 1
    tried = torch.zeros(len(share), LINEAR)
    tried[:, :3] = share[:, :3] * (settings.range_mm / voxel_mm / model.translation)
    tried[:, 3:6] = share[:, 3:] * (math.radians(settings.range_deg) / model.rotation)
    tried = tried.to(model.centre.device)
    with torch.no_grad():
        kept = _values(level, tried).argsort(stable=True)[:_REFINED]
    return list(tried[kept])


def _values(level: _Level, parameters: torch.Tensor) -> torch.Tensor:
    return torch.cat([level.cost(some) for some in parameters.split(level.at_once)])


def _distinct(found: Sequence[Minimum]) -> list[Minimum]:
    """Best first, each once."""
    ordered = sorted(found, key=lambda minimum: minimum.value)
    places = torch.stack([minimum.parameters for minimum in ordered]).cpu()
    kept: list[int] = []
    for number, place in enumerate(places):
        if all(float((place - places[other]).norm()) > _SAME for other in kept):
            kept.append(number)
    return [ordered[number] for number in kept]
