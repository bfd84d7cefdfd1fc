"""Contrast with what is near: descriptors are compared as instance optimisation does, with the places around."""

from __future__ import annotations

from collections.abc import Sequence
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
    smooth = gaussian_smoothed(F.normalize(descriptors, dim=1), SMOOTHING_VOXEL)
    return [F.normalize(_at_scale(smooth, scale), dim=1) for scale in SCALES]


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
    values = [volume[0].flatten(1) for volume in (one, two)]
    loss = one.new_zeros(())
    for own, other in (values, values[::-1]):
        likeness = torch.einsum("cn,cno->no", own[:, here], other[:, around].unflatten(1, (len(here), len(steps))))
        loss = loss + F.cross_entropy(likeness / temperature, right) / 2
    return loss


def _at_scale(volume: torch.Tensor, scale: float) -> torch.Tensor:
    size = tuple(max(round(scale * n), 2) for n in volume.shape[2:])
    return F.interpolate(volume, size=size, mode="trilinear", align_corners=False)
