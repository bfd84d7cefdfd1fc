"""Contrast among neighbours: descriptors are compared as registration compares them, with the points around."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from MMRegCore.ops import gaussian_blur, identity_positions

# As the preset for MR smooths descriptors, and the scales at which it compares them.
SMOOTHING_VOXEL, SCALES = 1.0, (1 / 3, 1 / 2, 3 / 4)
# Half-width of the neighbourhood in voxels of a scale; sample points of each scale at most.
HALF_WIDTH, MOST_POINTS = 2, 1500


def multiscale(descriptors: torch.Tensor) -> list[torch.Tensor]:
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
    """Eq. 4 (Mok et al. 2024) with the points within `HALF_WIDTH` voxels as the others; mean over the scales.

    Among points drawn from anywhere few are near each other, and distant ones are distinguished without being
    localised.  A displacement is found among neighbours.

    Parameters
    ----------
    first, second : sequence of Tensor, (1, C, d, h, w)
        `multiscale` descriptors of two images of the same anatomy.
    foreground : Tensor, (D, H, W), bool
        On the CPU; at full resolution.
    generator : torch.Generator
        Draws `MOST_POINTS` points of a scale where there are more.
    temperature : float
        τ.

    Returns
    -------
    Tensor, ()
        Mean of both directions, from first to second and back.  log 125 where neighbours are all the same; 0 where no
        point of the foreground has all its neighbours within the image.
    """
    total = first[0].new_zeros(())
    for one, two, scale in zip(first, second, SCALES, strict=True):
        mask = _at_scale(foreground[None, None].float(), scale)[0, 0] > 0.5
        total = total + _contrast(one, two, mask, generator, temperature) / len(SCALES)
    return total


def _contrast(
    one: torch.Tensor, two: torch.Tensor, foreground: torch.Tensor, generator: torch.Generator, temperature: float
) -> torch.Tensor:
    inner = tuple(slice(HALF_WIDTH, size - HALF_WIDTH) for size in foreground.shape)
    points = foreground[inner].nonzero() + HALF_WIDTH
    if len(points) == 0:
        return one.new_zeros(())
    points = points[torch.randperm(len(points), generator=generator)[:MOST_POINTS]]
    strides = torch.tensor([foreground.shape[1] * foreground.shape[2], foreground.shape[2], 1])
    offsets = identity_positions((2 * HALF_WIDTH + 1,) * 3, dtype=torch.int64)[0].flatten(1).t() - HALF_WIDTH
    centres = (points @ strides).to(one.device)
    neighbours = (centres[:, None] + (offsets @ strides).to(one.device)).flatten()
    target = torch.full_like(centres, len(offsets) // 2)
    rows = [volume[0].flatten(1).t().contiguous() for volume in (one, two)]
    loss = one.new_zeros(())
    for own, other in (rows, rows[::-1]):
        similarity = other[neighbours].unflatten(0, (len(centres), len(offsets))) @ own[centres][:, :, None]
        loss = loss + F.cross_entropy(similarity[:, :, 0] / temperature, target) / 2
    return loss


def _smooth_at_scale(volume: torch.Tensor, scale: float) -> torch.Tensor:
    """`gaussian_blur`, then `_at_scale`, as one matrix along each axis, which is fast in the backward pass too."""
    along_d, along_h, along_w = (_smoother(size, scale).to(volume) for size in volume.shape[2:])
    plane = along_h @ (volume @ along_w.T)
    smoothed: torch.Tensor = (along_d @ plane.flatten(3)).unflatten(3, plane.shape[3:])
    return smoothed


@lru_cache(maxsize=16)
def _smoother(size: int, scale: float) -> torch.Tensor:
    """(round(s·n), n): what smoothing and resizing do to an axis of n voxels, column by column."""
    impulses = torch.eye(size).reshape(1, size, size, 1, 1)
    return _at_scale(gaussian_blur(impulses, SMOOTHING_VOXEL), scale)[0, :, :, 0, 0].T.contiguous()


def _at_scale(volume: torch.Tensor, scale: float) -> torch.Tensor:
    size = tuple(max(round(scale * n), 2) if n > 1 else 1 for n in volume.shape[2:])
    return F.interpolate(volume, size=size, mode="trilinear", align_corners=False)
