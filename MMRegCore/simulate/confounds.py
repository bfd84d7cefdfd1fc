"""What makes ultrasound of patients hard to register: echo that the MR does not explain, trends that any MR explains.

Without it the true pose stands 10 to 20 standard deviations above false ones, on real pairs 2 to 5 (``python -m
benchmarks discriminability``), and whatever is set on simulated cases is set where the answer is easy to see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.geometry import Array
from MMRegCore.ops import gaussian_blur, rotation_matrix
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.beams import BeamGrid
from MMRegCore.simulate.noise import random_stream, smooth_noise, smooth_step

# Reverberations in the gel: distance of the lines, and loss from one to the next.
_REVERBERATION_MM, _REVERBERATION_LOSS = 1.7, 0.5


@dataclass(frozen=True)
class ConfoundSettings(Settings):
    """What of the ultrasound an MR explains wrongly or not at all."""

    unmatched: float = setting(
        0.5,
        "Share of the brain whose echo has no counterpart in the MR: it is that of another place.",
        minimum=0,
        maximum=1,
    )
    region_mm: float = setting(4.0, "Size of the regions without a counterpart.", minimum=0.5)
    trend_db: float = setting(3.0, "Standard deviation of a smooth gain over the image.", minimum=0)
    trend_mm: float = setting(12.0, "Length over which that gain changes.", minimum=1)
    depth_trend_db: float = setting(
        4.0, "Standard deviation of the gain's difference between surface and greatest depth.", minimum=0
    )
    contact: float = setting(
        6.0, "Echo of the dura and of reverberations in the gel above it, relative to white matter.", minimum=0
    )
    contact_mm: float = setting(1.0, "Thickness of the dura and its distance from the brain's surface.", minimum=0.1)
    gel_mm: float = setting(
        3.0, "Gel between probe and brain, where the MR shows skull and scalp.", minimum=0, maximum=20
    )
    vessels: float = setting(5.0, "Echo of vessels' walls, which no MR without contrast agent shows.", minimum=0)


def unmatched_share(beams: BeamGrid, settings: ConfoundSettings, seed: int) -> torch.Tensor:
    """(S, A, R), 0 to 1: how much of the echo at a place is that of another place; `unmatched` on average."""
    share, size = settings.unmatched, settings.region_mm
    if share in (0, 1):
        return torch.full(beams.shape, float(share))
    noise = beams.noise("unmatched", seed, size, size, size)
    # Smooth noise has normal values: above this quantile lies the wanted share.
    quantile = float(torch.erfinv(torch.tensor(1 - 2 * share))) * math.sqrt(2)
    return smooth_step(noise, quantile - 0.35, quantile + 0.35)


def decoy_points(beams: BeamGrid, seed: int) -> Array:
    """(S, A, R, 3), RAS mm: the other place of each sample: turned about the middle beam, as deep as before."""
    random = random_stream(seed, "decoy")
    axis = beams.points_ras[tuple(n // 2 for n in beams.shape[:2])]
    direction = (axis[-1] - axis[0]) / np.linalg.norm(axis[-1] - axis[0])
    turn = rotation_matrix(direction * random.uniform(math.pi / 2, 3 * math.pi / 2))
    lateral = np.cross(direction, random.standard_normal(3))
    shift = lateral / np.linalg.norm(lateral) * random.uniform(8, 16)
    return np.asarray((beams.points_ras - axis[0]) @ turn.T + axis[0] + shift)


def trend(beams: BeamGrid, settings: ConfoundSettings, seed: int) -> torch.Tensor:
    """(S, A, R): a smooth factor of the amplitude: coupling, gain over the depth, what overlying tissue takes away."""
    random = random_stream(seed, "depth trend")
    length = settings.trend_mm
    relative_depth = beams.depth_mm / float(beams.depth_mm[-1]) - 0.5
    slope, bend = random.standard_normal(2)
    over_depth = settings.depth_trend_db * (slope * relative_depth + bend * (4 * relative_depth.square() - 0.33))
    gain_db = settings.trend_db * beams.noise("trend", seed, length, length, length) + over_depth
    factor: torch.Tensor = 10 ** (gain_db / 20)
    return factor


def vessels(beams: BeamGrid, settings: ConfoundSettings, seed: int) -> torch.Tensor:
    """(S, A, R): curved bright tubes, where two smooth random fields are zero together."""
    first, second = (beams.noise(f"vessels {name}", seed, 7, 7, 7) for name in ("first", "second"))
    tube = torch.exp(-0.5 * (first.square() + second.square()) / 0.11**2)
    return settings.vessels * tube * smooth_step(beams.noise("vessel length", seed, 8, 8, 8), -0.5, 0.5)


def contact_band(brain: torch.Tensor, beams: BeamGrid, settings: ConfoundSettings, seed: int) -> torch.Tensor:
    """(S, A, R): the dura along the brain's surface, where the MR has the skull, and reverberations in front of it.

    ``brain`` (S, A, R) is the fraction of brain and its fluid.
    """
    sweeps, angles, _ = beams.shape
    flat = beams.sigma_voxel(6, 6, 1)[:2]
    strength = torch.exp(0.5 * smooth_noise((sweeps, angles), flat, random_stream(seed, "contact strength")))[..., None]
    smooth = gaussian_blur(brain[None, None], beams.sigma_voxel(1.5, 1.5, settings.contact_mm))[0, 0]
    dura = (4 * smooth * (1 - smooth)) ** 2
    lines = torch.cos(math.pi * beams.depth_mm / _REVERBERATION_MM) ** 8
    fading = _REVERBERATION_LOSS ** (beams.depth_mm / _REVERBERATION_MM)
    return settings.contact * strength * (dura + lines * fading)
