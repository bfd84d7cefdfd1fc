"""Averages over neighbourhoods: box, Gaussian, blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from MMRegCore.ops.sampling import identity_positions, sample

Outside = Literal["edge", "zeros", "none"]
# A trace of weight everywhere: where nothing counts at all, the plain average holds.
_LEAST_WEIGHT = 1e-3


def box_mean(
    volume: torch.Tensor,
    half_width: int,
    *,
    outside: Outside = "zeros",
    stride: int = 1,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over boxes of (2·half_width + 1)³ voxels.

    Parameters
    ----------
    volume : Tensor, (..., D, H, W)
        Five dimensions where ``outside`` is 'edge'.
    half_width : int
    outside : {'zeros', 'edge', 'none'}
        What counts beyond the volume: zeros, the nearest voxel, or nothing: only whole boxes are averaged, and each
        axis loses 2·half_width voxels.
    stride : int
        Distance of the boxes' centres in voxels; the first lies on the first voxel.
    weight : Tensor, (1, 1, D, H, W), optional
        Weighted mean (normalised convolution): voxels without weight follow their neighbours.
    """
    if weight is not None:
        weight = weight.clamp(min=_LEAST_WEIGHT)
        sums = (box_mean(part, half_width, outside=outside, stride=stride) for part in (volume * weight, weight))
        return next(sums) / next(sums)
    if half_width == 0 and stride == 1:
        return volume
    width = 2 * half_width + 1
    # Sums of shifted views: pooling is three to eight times as slow on a CPU, forward and backward.
    for axis in (-1, -2, -3):
        padded = volume if outside == "none" else _padded(volume, axis, half_width, outside)
        count = (padded.shape[axis] - width) // stride + 1
        total = _every(padded, axis, 0, count, stride).clone()
        for shift in range(1, width):
            total += _every(padded, axis, shift, count, stride)
        volume = total
    return volume.mul_(1 / width**3)


def gaussian_blur(
    volume: torch.Tensor, sigma_voxel: float | Sequence[float], *, outside: Literal["edge", "zeros"] = "edge"
) -> torch.Tensor:
    """Blur (B, C, D, H, W) by a Gaussian, cut off at three standard deviations.

    Parameters
    ----------
    volume : Tensor, (B, C, D, H, W)
    sigma_voxel : float or three
        Standard deviation along (d, h, w); 0 leaves an axis as it is.
    outside : {'edge', 'zeros'}
        What counts beyond the volume: the nearest voxel, or zeros.
    """
    sigmas = [sigma_voxel] * 3 if isinstance(sigma_voxel, int | float) else list(sigma_voxel)
    for axis, sigma in zip((-3, -2, -1), sigmas, strict=True):
        if sigma <= 0:
            continue
        reach = max(round(3 * sigma), 1)
        weights = [math.exp(-0.5 * (n / sigma) ** 2) for n in range(-reach, reach + 1)]
        padded, size = _padded(volume, axis, reach, outside), volume.shape[axis]
        volume = torch.zeros_like(volume)
        for shift, weight in enumerate(weights):
            volume.add_(padded.narrow(axis, shift, size), alpha=weight / sum(weights))
    return volume


def avg_pool(volume: torch.Tensor, stride: int) -> torch.Tensor:
    """Means of blocks of stride³ voxels, every voxel kept: the last block of an axis may be smaller."""
    if stride == 1:
        return volume
    return F.avg_pool3d(volume, stride, ceil_mode=True, count_include_pad=False)


def upsample(volume: torch.Tensor, stride: int, shape: Sequence[int]) -> torch.Tensor:
    """Trilinear upsampling of `avg_pool` to where its blocks were: voxel x of ``shape`` lies at (x − (s−1)/2) / s."""
    if stride == 1:
        return volume
    positions = (identity_positions(shape, volume.device, volume.dtype) - (stride - 1) / 2) / stride
    return sample(volume, positions.expand(len(volume), -1, -1, -1, -1))


def _padded(volume: torch.Tensor, axis: int, width: int, outside: str) -> torch.Tensor:
    """``width`` more voxels on both sides of an axis counted from the end."""
    padding = [0] * 6
    padding[-2 * axis - 2] = padding[-2 * axis - 1] = width
    return F.pad(volume, padding, mode="replicate" if outside == "edge" else "constant")


def _every(volume: torch.Tensor, axis: int, start: int, count: int, stride: int) -> torch.Tensor:
    """``count`` slices along an axis, ``stride`` apart."""
    if stride == 1:
        return volume.narrow(axis, start, count)
    place = [slice(None)] * volume.ndim
    place[axis] = slice(start, start + (count - 1) * stride + 1, stride)
    return volume[tuple(place)]
