"""Smoothing of descriptors before they are compared."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def gaussian_smoothed(volume: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur (1, C, D, H, W) by a Gaussian of ``sigma`` voxels, the edge carried on outside."""
    if sigma == 0:
        return volume
    reach = max(round(3 * sigma), 1)
    weights = [math.exp(-0.5 * (n / sigma) ** 2) for n in range(-reach, reach + 1)]
    for axis in (2, 3, 4):
        padding = [0] * 6
        padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = reach
        padded, size = F.pad(volume, padding, mode="replicate"), volume.shape[axis]
        volume = torch.zeros_like(volume)
        for shift, weight in enumerate(weights):
            volume.add_(padded.narrow(axis, shift, size), alpha=weight / sum(weights))
    return volume
