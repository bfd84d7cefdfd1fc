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
    voxel_mm = float(prepared.grid.spacing_mm.mean())
    motion = Motion.of(prepared, settings.motion)
    levels = agreement_levels(prepared, settings)
    coarse = levels[:-1] if len(levels) > 1 else levels
    poses = find_rigid(
        coarse,
        motion,
        evidence=settings.evidence,
        reach=settings.reach_mm / voxel_mm,
        step=_START_STEP_MM / voxel_mm,
        monitor=monitor.part(0.0, 0.35),
    )
    finest, part = levels[-1], monitor.part(0.35, 1.0)

    cost = partial(posterior_cost, finest, motion, settings.evidence)
    starts = [motion.from_pose(pose.parameters) for pose in poses]
    with torch.no_grad():
        start = min(starts, key=lambda parameters: float(cost(parameters)))
    best = minimise(
        cost,
        start,
        iterations=settings.iterations,
        first_step=0.5,
        tolerance=settings.tolerance,
        report=lambda share: part.report("deformation", share),
    ).parameters
    lattice = voxel_coordinates(tuple(prepared.fixed.shape[2:]), prepared.fixed.device)
    with torch.no_grad():
        displacement = (motion.move(best, lattice) - lattice).permute(0, 4, 1, 2, 3).flip(1)
    return Solution(displacement, {})


def agreement_levels(prepared: Prepared, settings: Lc2Settings) -> Sequence[Agreement]:
    """The agreement at each of the settings' levels, coarse to fine."""
    return [Agreement.of(prepared, *level) for level in zip(settings.lattice_mm, settings.radius, strict=True)]
