"""The rigid (on request affine) part first: many translations at a coarse resolution, fewer and fewer at finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.lbfgs import Objective, minimise
from MMRegCore.search.motion_model import LINEAR, MotionModel
from MMRegCore.search.sampled import Levels, SampledSimilarity
from MMRegCore.search.settings import SearchSettings

# Distance of the initial translations.
_STEP_MM = 6.0
# One of so many of them, and at least that many, are refined at the coarsest level; candidates that go on from there
# and from each further level.
_OF, _REFINED = 12, 10
_KEPT = (4, 2)
# Two candidates nearer than this, in expected sizes of the motion, are one.
_SAME = 0.35


@dataclass(frozen=True, eq=False)
class RigidCandidate:
    """A rigid transform, or an affine one where the prior has scale and shear.

    Attributes
    ----------
    parameters : Tensor, (12,)
        Of `MotionModel`.
    cost : float
        Minus the log posterior per sample; smaller is better.
    """

    parameters: torch.Tensor
    cost: float


def find_rigid(levels: Levels, model: MotionModel, settings: SearchSettings, monitor: Monitor) -> torch.Tensor:
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
    """
    sampled = levels.all(settings.similarity, settings.sampling_spacing_mm, settings.half_width)
    costs = [posterior_cost(level, model, settings.effective_sample_size) for level in sampled]
    voxel_mm = levels.prepared.spacing_mm
    starts = _translations(costs[0], model, settings.range_mm / voxel_mm, _STEP_MM / voxel_mm)
    best = _refined(costs[:-1] or costs, starts, model, monitor)
    with torch.no_grad():
        return min((candidate.parameters for candidate in best), key=lambda parameters: float(costs[-1](parameters)))


def posterior_cost(sampled: SampledSimilarity, model: MotionModel, effective_sample_size: float) -> Objective:
    """Of parameters p minus the log posterior per sample, ``|p|² / 2N − mean similarity(p)``; N the effective size."""
    motion = model.at(sampled.points)

    def cost(parameters: torch.Tensor) -> torch.Tensor:
        return parameters.square().sum() / (2 * effective_sample_size) - sampled.mean(motion(parameters))

    return cost


def _refined(
    costs: Sequence[Objective], starts: list[torch.Tensor], model: MotionModel, monitor: Monitor
) -> list[RigidCandidate]:
    """The best candidates at the last of the levels."""
    none = torch.zeros(LINEAR, device=model.centre.device)
    best: list[RigidCandidate] = []
    for number, cost in enumerate(costs):
        candidates = []
        for index, start in enumerate([none, *starts]):
            monitor.report("rigid search", (number + index / (len(starts) + 1)) / len(costs))
            found = minimise(cost, start, iterations=15, first_step=0.25, tolerance=1e-4)
            candidates.append(RigidCandidate(found.parameters, found.value))
        best = _distinct(candidates)[: _KEPT[min(number, len(_KEPT) - 1)]]
        starts = [candidate.parameters for candidate in best]
    return best


def _translations(cost: Objective, model: MotionModel, search_range: float, step: float) -> list[torch.Tensor]:
    """The best translations (12,) on a grid of half-width ``search_range`` voxels, tried without refinement."""
    count = int(search_range // step)
    steps = [n * step / model.translation for n in range(-count, count + 1)]
    tried = []
    with torch.no_grad():
        for shift in product(steps, repeat=3):
            parameters = torch.tensor([*shift, *[0.0] * (LINEAR - 3)], device=model.centre.device)
            tried.append((float(cost(parameters)), parameters))
    tried.sort(key=lambda pair: pair[0])
    return [parameters for _, parameters in tried[: max(len(tried) // _OF, _REFINED)]]


def _distinct(candidates: list[RigidCandidate]) -> list[RigidCandidate]:
    """Best first, each once."""
    kept: list[RigidCandidate] = []
    for candidate in sorted(candidates, key=lambda c: c.cost):
        if all(float((candidate.parameters - other.parameters).norm()) > _SAME for other in kept):
            kept.append(candidate)
    return kept
