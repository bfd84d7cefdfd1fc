"""The rigid (on request affine) part first: many translations at a coarse resolution, fewer and fewer at finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch

from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.lbfgs import Minimum, Objective, minimise
from MMRegCore.search.landmarks import LandmarkTerm
from MMRegCore.search.motion_model import LINEAR, MotionModel
from MMRegCore.search.sampled import Levels, SampledSimilarity
from MMRegCore.search.settings import SearchSettings

# Distance of the initial translations.
_STEP_MM = 6.0
# One of so many of them, and at least that many, are refined at the coarsest level; candidates that go on from there
# and from each further level.
_OF, _REFINED = 12, 10
_KEPT = (4, 2)
# Samples that are compared in one call, of all motions together: more is no faster and takes memory.
_SAMPLES_AT_ONCE = 300_000
# Two candidates nearer than this, in expected sizes of the motion, are one.
_SAME = 0.35


class _Level(NamedTuple):
    cost: Objective
    at_once: int  # motions that are compared in one call


def find_rigid(
    levels: Levels,
    model: MotionModel,
    settings: SearchSettings,
    monitor: Monitor,
    landmarks: LandmarkTerm | None = None,
) -> torch.Tensor:
    """(12,): parameters of the rigid transform with the largest posterior.

    The translations of a grid are tried at the coarsest level; the best are refined there by L-BFGS, the best of
    those at the next level, and so on; the finest level only chooses.  No motion is one of the candidates at every
    level.

    Parameters
    ----------
    levels : Levels
    model : MotionModel
    settings : SearchSettings
    monitor : Monitor
    landmarks : LandmarkTerm, optional
        Further evidence on the motion.
    """
    sampled = levels.all(settings.similarity, settings.sampling_spacing_mm, settings.half_width)
    searched = [
        _Level(
            posterior_cost(level, model, settings.effective_sample_size, landmarks),
            max(_SAMPLES_AT_ONCE // max(len(level.points), 1), 1),
        )
        for level in sampled
    ]
    voxel_mm = levels.prepared.spacing_mm
    starts = _translations(searched[0], model, settings.range_mm / voxel_mm, _STEP_MM / voxel_mm)
    best = _refined(searched[:-1] or searched, starts, model, monitor)
    with torch.no_grad():
        return best[int(_values(searched[-1], torch.stack(best)).argmin())]


def posterior_cost(
    sampled: SampledSimilarity,
    model: MotionModel,
    effective_sample_size: float,
    landmarks: LandmarkTerm | None = None,
) -> Objective:
    """Of parameters p minus the log posterior per sample, ``|p|² / 2N − mean similarity(p)``; N the effective size.

    Landmarks add minus their log-likelihood over N, ``Σ |T(fixed) − moving|² / 2 σ² N``.
    """
    motion = model.at(sampled.points)
    landmark_cost = None if landmarks is None else landmarks.cost(model)

    def cost(parameters: torch.Tensor) -> torch.Tensor:
        prior = parameters.square().sum(dim=1) / (2 * effective_sample_size)
        value = prior - sampled.means(motion(parameters))
        return value if landmark_cost is None else value + landmark_cost(parameters) / effective_sample_size

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
            first_step=0.25,
            tolerance=1e-4,
            at_once=level.at_once,
            report=report,
        )
        best = _distinct(found)[: _KEPT[min(number, len(_KEPT) - 1)]]
        starts = [candidate.parameters for candidate in best]
    return starts


def _translations(level: _Level, model: MotionModel, search_range: float, step: float) -> list[torch.Tensor]:
    """The best translations (12,) on a grid of half-width ``search_range`` voxels, tried without refinement."""
    count = int(search_range // step)
    steps = [n * step / model.translation for n in range(-count, count + 1)]
    tried = torch.zeros(len(steps) ** 3, LINEAR, device=model.centre.device)
    tried[:, :3] = torch.tensor(list(product(steps, repeat=3)))
    with torch.no_grad():
        kept = _values(level, tried).argsort(stable=True)[: max(len(tried) // _OF, _REFINED)]
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
