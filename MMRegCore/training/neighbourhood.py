"""Contrast with what is near: descriptors are compared as instance optimisation does, with the places around."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F

from MMRegCore.features.smoothing import gaussian_smoothed

# As the preset for MR smooths descriptors, and the resolutions at which it compares them.
SMOOTHING_VOXEL, SCALES = 1.0, (1 / 3, 1 / 2, 3 / 4)
# Voxels of a resolution to each side among which a place is to be told apart; places of each that are asked.
REACH, MOST = 2, 1500


def resolutions(descriptors: torch.Tensor) -> list[torch.Tensor]:
    """Descriptors (1, C, D, H, W) as unit vectors, smoothed, at each of `SCALES`: (1, C, round(sD), …) each."""
    unit = F.normalize(descriptors, dim=1)
    return [F.normalize(_smooth_at_scale(unit, scale), dim=1) for scale in SCALES]


def neighbourhood_loss(
    first: Sequence[torch.Tensor],
    second: Sequence[torch.Tensor],
    foreground: torch.Tensor,
    generator: torch.Generator,
    temperature: float = 0.07,
) -> torch.Tensor:
    """Eq. 4 (Mok et al. 2024) with the places within `REACH` voxels as the others; mean over the resolutions.

    Among places drawn from anywhere, few are near each other, and what is far is told apart without knowing exactly
    where it is.  A displacement is found among neighbours.

    Parameters
    ----------
    first, second : sequence of Tensor, (1, C, d, h, w)
        `resolutions` of two images of the same places.
    foreground : Tensor, (D, H, W), bool
        On the CPU; at full resolution.
    generator : torch.Generator
        Draws `MOST` places of a resolution where there are more.
    temperature : float
        τ.

    Returns
    -------
    Tensor, ()
        Both ways, from first to second and back.  log 125 where neighbours are not told apart; 0 where no place of
        the foreground has all its neighbours within the image.
    """
    total = first[0].new_zeros(())
    for one, two, scale in zip(first, second, SCALES, strict=True):
        there = _at_scale(foreground[None, None].float(), scale)[0, 0] > 0.5
        total = total + _told_apart(one, two, there, generator, temperature) / len(SCALES)
    return total


def _told_apart(
    one: torch.Tensor, two: torch.Tensor, foreground: torch.Tensor, generator: torch.Generator, temperature: float
) -> torch.Tensor:
    inner = tuple(slice(REACH, size - REACH) for size in foreground.shape)
    places = foreground[inner].nonzero() + REACH
    if len(places) == 0:
        return one.new_zeros(())
    places = places[torch.randperm(len(places), generator=generator)[:MOST]]
    strides = torch.tensor([foreground.shape[1] * foreground.shape[2], foreground.shape[2], 1])
    steps = torch.tensor(list(product(range(-REACH, REACH + 1), repeat=3)))
    here = (places @ strides).to(one.device)
    around = (here[:, None] + (steps @ strides).to(one.device)).flatten()
    right = torch.full_like(here, len(steps) // 2)
    rows = [volume[0].flatten(1).t().contiguous() for volume in (one, two)]
    loss = one.new_zeros(())
    for own, other in (rows, rows[::-1]):
        likeness = other[around].unflatten(0, (len(here), len(steps))) @ own[here][:, :, None]
        loss = loss + F.cross_entropy(likeness[:, :, 0] / temperature, right) / 2
    return loss


def _smooth_at_scale(volume: torch.Tensor, scale: float) -> torch.Tensor:
    """`gaussian_smoothed`, then `_at_scale`, as one matrix along each axis: the way back is as short."""
    along_d, along_h, along_w = (_smoother(size, scale).to(volume) for size in volume.shape[2:])
    plane = along_h @ (volume @ along_w.T)
    found: torch.Tensor = (along_d @ plane.flatten(3)).unflatten(3, plane.shape[3:])
    return found


@lru_cache(maxsize=16)
def _smoother(size: int, scale: float) -> torch.Tensor:
    """(round(s·n), n): what smoothing and resizing make of an axis of n voxels, column by column."""
    impulses = torch.eye(size).reshape(1, size, size, 1, 1)
    return _at_scale(gaussian_smoothed(impulses, SMOOTHING_VOXEL), scale)[0, :, :, 0, 0].T.contiguous()


def _at_scale(volume: torch.Tensor, scale: float) -> torch.Tensor:
    size = tuple(max(round(scale * n), 2) if n > 1 else 1 for n in volume.shape[2:])
    return F.interpolate(volume, size=size, mode="trilinear", align_corners=False)
