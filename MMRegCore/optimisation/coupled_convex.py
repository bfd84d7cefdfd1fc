"""Coupled convex optimisation: similarity and smoothness in turn, with a global choice at every voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from MMRegCore.ops import box_mean
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
        In [0, 1].  With it, averages are weighted (normalised convolution) and the search starts from u = 0, so that
        voxels outside the foreground follow their neighbours.  Without it the search starts, as
        published, from the unregularised minimum, and averages count zeros outside the part.

    Returns
    -------
    Tensor, (1, 3, D, H, W)
        Displacement (d, h, w) in grid steps.
    """
    sweep = Sweep(cost.shape, coefficients, average_iterates=average_iterates, weight=weight, like=cost)
    sweep.advance(cost, cost.shape[1])
    return sweep.displacement


class Sweep:
    """The same for a cost volume that comes in slabs along d, so that never more than a window of it need exist.

    A choice depends on neighbours one slice further, so the second round runs one slice behind the first, the third
    two, and so on: nothing is computed twice, and the result is that of :func:`solve`.

    Parameters
    ----------
    shape : (K, D, H, W)
        Of the whole cost volume; the rest as in :func:`solve`.
    like : Tensor
        Of the type and on the device of the cost.

    Attributes
    ----------
    displacement : Tensor, (1, 3, D, H, W)
        Complete once the sweep has reached D.
    """

    def __init__(
        self,
        shape: Sequence[int],
        coefficients: Sequence[float],
        *,
        average_iterates: bool,
        weight: torch.Tensor | None,
        like: torch.Tensor,
    ) -> None:
        count, self._depth = shape[0], shape[1]
        self._width = round(count ** (1 / 3))
        self._candidates = displacement_candidates((self._width - 1) // 2, like.device)
        # The unregularised minimum to start from is a round without coupling, and no iterate.
        self._coefficients = [*coefficients] if weight is not None else [0.0, *coefficients]
        self._first_iterate = 1 if weight is not None else 2
        self._iterates = len(coefficients)
        self._average_iterates = average_iterates
        self._weight = weight
        # Whole steps, and a field for every round: a byte each will do.
        self._choices = [like.new_zeros((1, 3, *shape[1:]), dtype=torch.int8) for _ in self._coefficients]
        self._reached = 0
        self.displacement = like.new_zeros((1, 3, *shape[1:]))

    def advance(self, cost: torch.Tensor, stop: int) -> None:
        """Go on to slice ``stop``, as far as that can be known.

        ``cost`` (K, R, H, W), contiguous, holds slice d in place d mod R, for all slices from :func:`margin` before the
        last stop to ``stop``.
        """
        rounds = len(self._coefficients)
        for index in range(rounds + 1):
            slices = slice(self._known(index, self._reached), self._known(index, stop))
            if slices.start == slices.stop:
                continue
            smooth = self._smooth(index, slices)
            if index == rounds or self._average_iterates:
                self._keep(index, slices, smooth)
            if index < rounds:
                self._choose(index, slices, smooth, cost)
        self._reached = stop

    def _known(self, index: int, stop: int) -> int:
        """Where a round ends when the cost is there up to ``stop``."""
        return stop if stop == self._depth else max(stop - index, 0)

    def _smooth(self, index: int, slices: slice) -> torch.Tensor:
        """(1, 3, d, H, W): what a round starts from, the average of the choices of the one before."""
        if index == 0:
            return torch.zeros_like(self.displacement[:, :, slices])
        around = slice(max(slices.start - 1, 0), min(slices.stop + 1, self._depth))
        weight = None if self._weight is None else self._weight[:, :, around]
        smooth = box_mean(self._choices[index - 1][:, :, around].to(self.displacement.dtype), 1, weight=weight)
        return smooth[:, :, slices.start - around.start :][:, :, : slices.stop - slices.start]

    def _keep(self, index: int, slices: slice, smooth: torch.Tensor) -> None:
        if not self._average_iterates:
            self.displacement[:, :, slices] = smooth
        elif index >= self._first_iterate:
            self.displacement[:, :, slices] += smooth / self._iterates

    def _choose(self, index: int, slices: slice, smooth: torch.Tensor, cost: torch.Tensor) -> None:
        places, start = cost.shape[1], slices.start
        choices = self._choices[index]
        while start < slices.stop:
            place = start % places
            # As far as the slices lie side by side in the window.
            stop = min(slices.stop, start + places - place)
            here = cost[:, place : place + stop - start].reshape(*(self._width,) * 3, -1)
            target = smooth[:, :, start - slices.start : stop - slices.start]
            choices[:, :, start:stop] = _best(here, target, self._coefficients[index], self._candidates)
            start = stop


def margin(coefficients: Sequence[float]) -> int:
    """How far a voxel's result depends on its neighbours, in voxels: parts that overlap by it join without a seam."""
    return len(coefficients) + 1


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
