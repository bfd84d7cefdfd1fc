"""Registration by descriptors: the pose first, then a displacement or diffeomorphism by instance optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from MMRegCore.config import DnsSettings, Lc2Settings
from MMRegCore.features.smoothing import gaussian_smoothed
from MMRegCore.methods.descriptors import descriptors
from MMRegCore.methods.lc2 import agreement_levels, best_pose
from MMRegCore.methods.solution import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.motion import Motion
from MMRegCore.optimisation.multilevel import optimise_levels
from MMRegCore.preprocess import Prepared
from MMRegCore.warp import sample, voxel_coordinates


def dns(prepared: Prepared, settings: DnsSettings, rigid: Lc2Settings, monitor: Monitor) -> Solution:
    """Register on descriptors that do not depend on contrast (Mok et al. 2024).

    Descriptors are computed once for each image, after the rigid part, since they turn with the image; smoothed by a
    Gaussian; and compared by cosine similarity while Adam moves them onto each other at three resolutions.

    Parameters
    ----------
    prepared : Prepared
        On the device where the work is to happen.
    settings : DnsSettings
    rigid : Lc2Settings
        Of the rigid search, where ``settings.start`` asks for one.
    monitor : Monitor
    """
    describe = descriptors(settings, prepared.fixed.device)
    move = _rigid(prepared, rigid, monitor.part(0.0, 0.2)) if settings.start == "lc2" else None
    posed = prepared if move is None else _posed(prepared, move)
    seen = [(posed.fixed, posed.fixed_weight), *zip(posed.moving, posed.moving_weight, strict=True)]
    described = []
    for number, (image, weight) in enumerate(seen):
        monitor.report("descriptors", 0.2 + 0.2 * number / len(seen))
        described.append(gaussian_smoothed(describe(image, weight), settings.smoothing_voxel))
    displacement = optimise_levels(
        described[0],
        described[1:],
        [posed.fixed_weight * weight for weight in posed.moving_weight],
        settings,
        monitor.part(0.4, 1.0),
        unit=settings.features == "dns",
    )
    if move is not None:
        lattice = voxel_coordinates(tuple(displacement.shape[2:]), displacement.device)
        with torch.no_grad():
            there = move(lattice + displacement.flip(1).permute(0, 2, 3, 4, 1))
        displacement = (there - lattice).permute(0, 4, 1, 2, 3).flip(1)
    return Solution(displacement, {})


def _rigid(prepared: Prepared, settings: Lc2Settings, monitor: Monitor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The pose that LC² prefers, as it moves positions (1, D, H, W, 3)."""
    motion = Motion.of(prepared, settings.motion)
    levels = agreement_levels(prepared, settings)
    return partial(motion.move, best_pose(prepared, settings, motion, levels, monitor))


@torch.no_grad()
def _posed(prepared: Prepared, move: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
    """The pair with each moving image brought into the pose."""
    place = move(voxel_coordinates(tuple(prepared.fixed.shape[2:]), prepared.fixed.device))
    return replace(
        prepared,
        moving=tuple(sample(image, place) for image in prepared.moving),
        moving_weight=tuple(
            sample(weight, place, mode="nearest", padding_mode="zeros") for weight in prepared.moving_weight
        ),
    )
