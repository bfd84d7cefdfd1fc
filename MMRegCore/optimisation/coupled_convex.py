"""Coupled convex optimisation: similarity and smoothness in turn, with a global choice at every voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from MMRegCore.optimisation.correlation import displacement_candidates

# Voxels searched at once on a CPU: few enough for its caches, enough to make small operations worth their start.
_CPU_CHUNK = 4096


def solve(
    cost: torch.Tensor,
    coefficients: Sequence[float],
    *,
    average_iterates: bool,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Find the displacement that balances cost and smoothness.

    In turn, for each coefficient c: ``v(x) = argmin_d cost(d, x) + c·|d − u(x)|²`` over all displacements, then
    ``u`` = 3³ average of ``v`` (Heinrich et al., WBIR 2014; Siebert et al., 2021).  The weight-balanced form of MCBO
    returns the mean of the iterates u instead of the last one.

    Parameters
    ----------
    cost : Tensor, (K, D, H, W)
        K = (2·half_width + 1)³ candidates.
    coefficients : sequence of float
        Strength of the coupling, increasing.
    average_iterates : bool
        True for the weight-balanced form.
    weight : Tensor, (1, 1, D, H, W), optional
        Evidence at each voxel, in [0, 1].  With it, averages are weighted (normalised convolution) and the search
        starts from u = 0, so that voxels without evidence follow their neighbours.  Without it the search starts, as
        published, from the unregularised minimum, and averages count zeros outside the part.

    Returns
    -------
    Tensor, (1, 3, D, H, W)
        Displacement (d, h, w) in grid steps.
    """
    shape = tuple(cost.shape[1:])
    width = round(cost.shape[0] ** (1 / 3))
    candidates = displacement_candidates((width - 1) // 2, cost.device)
    flat = cost.reshape(width, width, width, -1)
    smooth = cost.new_zeros((1, 3, *shape))
    if weight is None:
        smooth = _average(_best(flat, smooth, 0.0, candidates), weight)
    mean = torch.zeros_like(smooth)
    for coefficient in coefficients:
        smooth = _average(_best(flat, smooth, coefficient, candidates), weight)
        mean += smooth / len(coefficients)
    return mean if average_iterates else smooth


def margin(coefficients: Sequence[float]) -> int:
    """How far a voxel's result depends on its neighbours, in voxels: parts that overlap by it join without a seam."""
    return len(coefficients) + 1


def _average(displacement: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return _box(displacement)
    # A trace of weight everywhere: where there is no evidence at all, the plain average holds.
    weight = weight.clamp(min=1e-3)
    return _box(displacement * weight) / _box(weight)


def _box(volume: torch.Tensor) -> torch.Tensor:
    """3³ average, zeros outside; padded by hand because ``avg_pool3d`` refuses axes shorter than its kernel."""
    return F.avg_pool3d(F.pad(volume, (1,) * 6), 3, stride=1)


def _best(cost: torch.Tensor, smooth: torch.Tensor, coefficient: float, candidates: torch.Tensor) -> torch.Tensor:
    """(1, 3, D, H, W): ``argmin_d cost + coefficient·|d − u|²`` for every voxel."""
    width, count = cost.shape[0], cost.shape[-1]
    target = smooth.reshape(3, 1, count)
    steps = candidates[:width, 2].reshape(1, width, 1)
    chunk = _CPU_CHUNK if cost.device.type == "cpu" else count
    index = torch.empty(count, dtype=torch.long, device=cost.device)
    for start in range(0, count, chunk):
        here = slice(start, min(start + chunk, count))
        # |d − u|² is a sum over the axes, so each axis has a table of its own.
        penalty = (steps - target[..., here]).square_().mul_(coefficient)
        index[here] = _argmin(cost[..., here], penalty, coefficient > 0)
    return candidates[index].T.reshape(smooth.shape)


def _argmin(cost: torch.Tensor, penalty: torch.Tensor, coupled: bool) -> torch.Tensor:
    """(n,): index of the smallest cost + penalties, axis by axis.

    Minima over an axis are vectorised where a plain argmin is not: the w axis is folded first, the few survivors after.
    """
    width, count = cost.shape[0], cost.shape[-1]
    over_w = (cost + penalty[2] if coupled else cost).amin(dim=2)
    over_w += penalty[1]
    best_d = (over_w.amin(dim=1) + penalty[0]).min(dim=0).indices
    best_h = over_w.gather(0, best_d.expand(1, width, count))[0].min(dim=0).indices
    line = best_d * width + best_h
    along_w = cost.reshape(width * width, width, count).gather(0, line.expand(1, width, count))[0]
    return line * width + (along_w + penalty[2]).min(dim=0).indices
