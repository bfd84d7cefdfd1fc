"""Registration by LC²: the pose first, then a smooth deformation, both where the posterior is largest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from MMRegCore.config import Lc2Settings
from MMRegCore.methods.solution import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.optimisation.lbfgs import minimise
from MMRegCore.optimisation.motion import Motion
from MMRegCore.optimisation.rigid import find_rigid, posterior_cost
from MMRegCore.preprocess import Prepared
from MMRegCore.warp import voxel_coordinates

# Distance of the starts of the rigid search.
_START_STEP_MM = 6.0


def lc2(prepared: Prepared, settings: Lc2Settings, monitor: Monitor) -> Solution:
    """Register by LC² (Wein et al. 2008, Fuerst et al. 2014) with a prior on the motion.

    Maximises ``mean gain(p) − |p|² / (2·evidence)`` over the parameters p of `Motion`: first of the rigid part alone,
    from many starts and from coarse to fine, then of the rigid part and a smooth deformation together at the finest
    level.

    Parameters
    ----------
    prepared : Prepared
        On the device where the work is to happen; its margin is how far the search can see.
    settings : Lc2Settings
    monitor : Monitor
    """
    motion = Motion.of(prepared, settings.motion)
    levels = agreement_levels(prepared, settings)
    pose, part = best_pose(prepared, settings, motion, levels, monitor.part(0.0, 0.35)), monitor.part(0.35, 1.0)
    cost = partial(posterior_cost, levels[-1], motion, settings.evidence)
    best = minimise(
        cost,
        motion.from_pose(pose),
        iterations=settings.iterations,
        first_step=0.5,
        tolerance=settings.tolerance,
        report=lambda share: part.report("deformation", share),
    ).parameters
    lattice = voxel_coordinates(tuple(prepared.fixed.shape[2:]), prepared.fixed.device)
    with torch.no_grad():
        displacement = (motion.move(best, lattice) - lattice).permute(0, 4, 1, 2, 3).flip(1)
    return Solution(displacement, {})


def best_pose(
    prepared: Prepared, settings: Lc2Settings, motion: Motion, levels: Sequence[Agreement], monitor: Monitor
) -> torch.Tensor:
    """(12,): parameters of the pose with the largest posterior at the finest level, searched at the coarser ones."""
    voxel_mm = float(prepared.grid.spacing_mm.mean())
    poses = find_rigid(
        levels[:-1] or levels,
        motion,
        evidence=settings.evidence,
        reach=settings.reach_mm / voxel_mm,
        step=_START_STEP_MM / voxel_mm,
        monitor=monitor,
    )
    with torch.no_grad():
        cost = partial(posterior_cost, levels[-1], motion, settings.evidence)
        return min((pose.parameters for pose in poses), key=lambda parameters: float(cost(parameters)))


def agreement_levels(prepared: Prepared, settings: Lc2Settings) -> Sequence[Agreement]:
    """The agreement at each of the settings' levels, coarse to fine."""
    return [Agreement.of(prepared, *level) for level in zip(settings.lattice_mm, settings.radius, strict=True)]
