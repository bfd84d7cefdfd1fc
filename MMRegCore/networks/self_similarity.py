"""Deep neighbourhood self-similarity: of the neighbours of a voxel, in every channel (Mok et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

# The six neighbours of a voxel, (d, h, w), and those pairs of them that are √2 apart: 12 of 15.
NEIGHBOURS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
PAIRS = tuple(
    (a, b)
    for a, b in combinations(range(len(NEIGHBOURS)), 2)
    if sum((p - q) ** 2 for p, q in zip(NEIGHBOURS[a], NEIGHBOURS[b], strict=True)) == 2
)
# Noise below which features count as constant: images go from 0 to 1, and features are about as large.
LEAST_NOISE = 1e-5
# Values of S that exist at once: what stays in a processor's cache is not fetched from memory at every operation.
_CHUNK_VALUES = {"cpu": 2**21, "cuda": 2**25}


def self_similarity(
    h: torch.Tensor,
    dilation: int,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    chunk_values: int | None = None,
) -> torch.Tensor:
    """Deep neighbourhood self-similarity of one layout, squeezed over the channels.

    In each channel c, ``S_c(x, y, y') = exp(-(h_c(y) - h_c(y'))² / σ_c²(x))`` for the 12 pairs of neighbours y, y' of x
    that are √2 · ``dilation`` apart, where σ² is the mean of the 12 squared differences (Eq. 1); then
    ``bias + Σ_c weight_c · S_c``.  S has 12 · C values for each voxel: it is computed in chunks, and again in the
    backward pass, so that it never exists as a whole.

    Parameters
    ----------
    h : Tensor, (B, C, D, H, W)
        Replicate padding outside.
    dilation : int
        Distance of the neighbours in voxels.
    weight : Tensor, (C,)
    bias : Tensor, (1,)
    chunk_values : int, optional
        Values of S that may exist at once; at least one slice of one channel.

    Returns
    -------
    Tensor, (B, 12, D, H, W), float32
        Differentiable once.
    """
    padded = F.pad(h.float().contiguous(), (dilation,) * 6, mode="replicate")
    chunk_values = chunk_values or _CHUNK_VALUES.get(h.device.type, _CHUNK_VALUES["cpu"])
    squeezed: torch.Tensor = _Squeezed.apply(padded, weight.float(), dilation, chunk_values)  # type: ignore[no-untyped-call]
    return squeezed + bias


class _Squeezed(torch.autograd.Function):
    """Σ_c weight_c · S_c of features (B, C, D + 2r, …) with ``dilation`` r around them, and its analytic gradient.

    With ``x_p = d_p / σ²`` and ``t_p = weight · g_p · exp(-x_p)`` the gradient of the squared difference d_p is
    ``(Σ_q t_q x_q / 12 - t_p) / σ²``.
    """

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, weight: torch.Tensor, dilation: int, most: int) -> torch.Tensor:  # noqa: ANN401
        ctx.save_for_backward(padded, weight)
        ctx.dilation, ctx.most = dilation, most
        batch, _, *outer = padded.shape
        squeezed = padded.new_zeros((batch, len(PAIRS), *(n - 2 * dilation for n in outer)))
        factors = weight.tolist()
        for image, channel, start, stop in _chunks(padded.shape, dilation, most):
            distances = _differences(padded[image, channel, start : stop + 2 * dilation], dilation).square_()
            similar = distances.div_(distances.mean(dim=0).add_(LEAST_NOISE).neg_()).exp_()
            squeezed[image, :, start:stop].add_(similar, alpha=factors[channel])
        return squeezed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:  # noqa: ANN401
        padded, weight = ctx.saved_tensors
        dilation, factors = ctx.dilation, weight.tolist()
        of_padded, of_weight = torch.zeros_like(padded), torch.zeros_like(weight)
        for image, channel, start, stop in _chunks(padded.shape, dilation, ctx.most):
            slab = image, channel, slice(start, stop + 2 * dilation)
            differences = _differences(padded[slab], dilation)
            scaled = differences.square()
            inverse = scaled.mean(dim=0).add_(LEAST_NOISE).reciprocal_()
            scaled.mul_(inverse)
            weighted = scaled.neg().exp_().mul_(gradient[image, :, start:stop])
            of_weight[channel] += weighted.sum()
            shared = scaled.mul_(weighted).sum(dim=0).div_(len(PAIRS))
            # Of the difference itself, twice itself times that of its square.
            inverse.mul_(2 * factors[channel])
            _spread(of_padded[slab], weighted.sub_(shared).mul_(inverse).mul_(differences).neg_(), dilation)
        return of_padded, of_weight, None, None


def _chunks(shape: torch.Size, dilation: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Image, channel, and the slices from ``start`` to ``stop`` that have at most ``most`` values of S."""
    batch, channels, depth, height, width = shape
    depth, height, width = (n - 2 * dilation for n in (depth, height, width))
    thick = max(most // (len(PAIRS) * height * width), 1)
    for image in range(batch):
        for channel in range(channels):
            for start in range(0, depth, thick):
                yield image, channel, start, min(start + thick, depth)


def _differences(slab: torch.Tensor, dilation: int) -> torch.Tensor:
    """(12, d, h, w): h(y) - h(y') of the pairs, from a slab (d + 2r, …)."""
    around = _around(slab, dilation)
    found = slab.new_empty((len(PAIRS), *around[0].shape))
    for index, (a, b) in enumerate(PAIRS):
        torch.sub(around[a], around[b], out=found[index])
    return found


def _spread(slab: torch.Tensor, of_differences: torch.Tensor, dilation: int) -> None:
    """Add the gradients of the pairs' differences to those of a slab (d + 2r, …)."""
    around = _around(slab, dilation)
    for (a, b), change in zip(PAIRS, of_differences, strict=True):
        around[a].add_(change)
        around[b].sub_(change)


def _around(slab: torch.Tensor, dilation: int) -> list[torch.Tensor]:
    """The six neighbours of every inner voxel of a slab, as views."""
    inner = [n - 2 * dilation for n in slab.shape]
    steps = [[dilation * (1 + offset) for offset in neighbour] for neighbour in NEIGHBOURS]
    return [slab[tuple(slice(s, s + n) for s, n in zip(step, inner, strict=True))] for step in steps]
