"""The rigid (on request affine) part first: many starts at a coarse resolution, fewer and fewer at finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.optimisation.lbfgs import Objective, minimise
from MMRegCore.optimisation.motion import LINEAR, Motion

# One of so many starts, and at least that many, are refined at the coarsest level; those that go on from there and from
# each further level.
_OF, _REFINED = 12, 10
_KEPT = (4, 2)
# Two poses nearer than this, in expected sizes of the motion, are one.
_SAME = 0.35


@dataclass(frozen=True, eq=False)
class Pose:
    """A rigid pose, or an affine one where the motion may stretch.

    Attributes
    ----------
    parameters : Tensor, (12,)
        Of `Motion`.
    cost : float
        Minus the log posterior per unit of evidence; smaller is better.
    """

    parameters: torch.Tensor
    cost: float


def find_rigid(
    levels: Sequence[Agreement], motion: Motion, *, evidence: float, reach: float, step: float, monitor: Monitor
) -> list[Pose]:
    """Find the rigid pose with the largest posterior.

    The translations of a lattice are tried at the coarsest level; the best are refined there by L-BFGS, the best of
    those at the next level, and so on.  No motion at all is one of the starts at every level.

    Parameters
    ----------
    levels : sequence of Agreement
        Coarse to fine.
    motion : Motion
    evidence : float
        How many independent observations the gain stands for.
    reach, step : float
        Half-width and spacing of the lattice of starts, in voxels of the working grid.
    monitor : Monitor

    Returns
    -------
    list of Pose
        The best at the finest level, best first.
    """
    still = torch.zeros(LINEAR, device=motion.centre.device)
    starts = _lattice(partial(posterior_cost, levels[0], motion, evidence), motion, reach, step)
    best: list[Pose] = []
    for number, level in enumerate(levels):
        cost = partial(posterior_cost, level, motion, evidence)
        poses = []
        for index, start in enumerate([still, *starts]):
            monitor.report("rigid search", (number + index / (len(starts) + 1)) / len(levels))
            found = minimise(cost, start, iterations=15, first_step=0.25, tolerance=1e-4)
            poses.append(Pose(found.parameters, found.value))
        best = _distinct(poses)[: _KEPT[min(number, len(_KEPT) - 1)]]
        starts = [pose.parameters for pose in best]
    return best


def posterior_cost(level: Agreement, motion: Motion, evidence: float, parameters: torch.Tensor) -> torch.Tensor:
    """Scalar: minus the log posterior per unit of evidence, ``|p|² / (2·evidence) − mean gain(p)``."""
    return parameters.square().sum() / (2 * evidence) - level.mean_gain(motion.move(parameters, level.positions))


def _lattice(cost: Objective, motion: Motion, reach: float, step: float) -> list[torch.Tensor]:
    """The best translations of a lattice (12,), tried without refinement."""
    count = int(reach // step)
    steps = [n * step / motion.translation for n in range(-count, count + 1)]
    tried = []
    with torch.no_grad():
        for shift in product(steps, repeat=3):
            parameters = torch.tensor([*shift, *[0.0] * (LINEAR - 3)], device=motion.centre.device)
            tried.append((float(cost(parameters)), parameters))
    tried.sort(key=lambda pair: pair[0])
    return [parameters for _, parameters in tried[: max(len(tried) // _OF, _REFINED)]]


def _distinct(poses: list[Pose]) -> list[Pose]:
    """Best first, each pose once."""
    kept: list[Pose] = []
    for pose in sorted(poses, key=lambda p: p.cost):
        if all(float((pose.parameters - other.parameters).norm()) > _SAME for other in kept):
            kept.append(pose)
    return kept
