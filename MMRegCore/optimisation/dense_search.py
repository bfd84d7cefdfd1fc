"""Dense correlation at one level: every displacement within reach at every voxel, balanced against smoothness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from MMRegCore.errors import DeviceError
from MMRegCore.monitor import Monitor
from MMRegCore.ops import avg_pool, tiles
from MMRegCore.ops.tiling import Tile
from MMRegCore.optimisation import coupled_convex
from MMRegCore.optimisation.correlation import cost_volume, matching_terms

# Of the memory that a run may use, the share that one cost volume may take.
_COST_SHARE = 0.5
# Below this the parts do not become any smaller.
_LEAST_BYTES = 2**22


@dataclass(frozen=True, eq=False)
class DescriptorPair:
    """Descriptors (1, C, D, H, W) and weights (1, 1, D, H, W) of a fixed and a moving image on one grid."""

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_weight: torch.Tensor
    moving_weight: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """(1, 1, D, H, W): where both count."""
        return self.fixed_weight * self.moving_weight

    def pooled(self, stride: int) -> DescriptorPair:
        """The same at a coarser resolution."""
        parts = (self.fixed, self.moving, self.fixed_weight, self.moving_weight)
        return DescriptorPair(*(avg_pool(part, stride) for part in parts))

    def reversed(self) -> DescriptorPair:
        """The same with the roles exchanged."""
        return DescriptorPair(self.moving, self.fixed, self.moving_weight, self.fixed_weight)


@dataclass
class DenseSearch:
    """Finds displacements by coupled convex optimisation on a dense cost volume, in parts that fit into memory.

    Memory for cost volumes is kept from one search to the next: new pages are slow to come by.
    """

    half_width: int  # displacements are searched up to this many voxels to every side
    coefficients: Sequence[float]  # of the coupling; see `coupled_convex.solve`
    masked: bool  # whether weights count
    memory_bytes: int  # what the run may use

    def __post_init__(self) -> None:
        self._most_bytes = int(self.memory_bytes * _COST_SHARE)
        self._memory: torch.Tensor | None = None

    def find(self, pair: DescriptorPair, monitor: Monitor, stage: str) -> torch.Tensor:
        """(1, 3, D, H, W): displacement in voxels of the pair's grid.

        Where memory runs out, parts become smaller; `DeviceError` when there is none for the smallest.
        """
        while True:
            try:
                return self._in_columns(pair, monitor, stage)
            except torch.OutOfMemoryError:
                self._memory = None
                self._most_bytes //= 2
                if self._most_bytes < _LEAST_BYTES:
                    raise DeviceError(
                        "expected memory for a part of the cost volume; the device has none left"
                    ) from None
                torch.cuda.empty_cache()

    def _in_columns(self, pair: DescriptorPair, monitor: Monitor, stage: str) -> torch.Tensor:
        # Columns of the grid, as wide as memory allows, each swept from end to end: only a window of its cost exists.
        depth, *area = pair.fixed.shape[2:]
        weights = (pair.fixed_weight, pair.moving_weight) if self.masked else (None, None)
        terms = matching_terms(pair.fixed, pair.moving, *weights)
        displacement = pair.fixed.new_zeros((1, 3, depth, *area))
        candidates = (2 * self.half_width + 1) ** 3
        margin = coupled_convex.margin(self.coefficients)
        most_voxels = self._most_bytes // (4 * candidates)
        columns = columns_that_fit(area, margin, most_voxels // min(depth, 2 * margin))
        largest = max(column.voxels for column in columns)
        window, step = _window(depth, margin, most_voxels // largest)
        memory = self._hold(candidates * window * largest, pair.fixed)
        for index, column in enumerate(columns):
            part = monitor.part(index / len(columns), (index + 1) / len(columns))
            h, w = column.around
            shape = (candidates, window, h.stop - h.start, w.stop - w.start)
            cost = memory[: math.prod(shape)].reshape(shape)
            weight = pair.fixed_weight[..., h, w] if self.masked else None
            sweep = coupled_convex.Sweep(
                (candidates, depth, *shape[2:]), self.coefficients, average_iterates=True, weight=weight, like=cost
            )
            for start in range(0, depth, step):
                stop, place = min(start + step, depth), start % window
                part.report(stage, start / depth)
                slab = cost[:, place : place + stop - start]
                cost_volume(*terms, (slice(start, stop), h, w), self.half_width, slab)
                part.report(stage, (start + 0.6 * (stop - start)) / depth)
                sweep.advance(cost, stop)
            displacement[..., column.core[0], column.core[1]] = sweep.displacement[
                ..., column.inner[0], column.inner[1]
            ]
        return displacement

    def _hold(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """At least ``count`` float32 values, 1-D, on the device of ``like``; what was in them is lost."""
        if self._memory is None or len(self._memory) < count:
            self._memory = None
            self._memory = like.new_empty(count)
        return self._memory


def _window(depth: int, margin: int, most: int) -> tuple[int, int]:
    """Slices of cost to keep and slices to add at once: all, or slabs of half a window, which hold the margin."""
    step = max(most // 2, margin)
    return (depth, depth) if depth <= max(most, 2 * step) else (2 * step, step)


def columns_that_fit(shape: Sequence[int], margin: int, most_voxels: int) -> list[Tile]:
    """Cut a plane into tiles that, with their margin, have at most ``most_voxels``, as far as that goes."""
    counts = [1] * len(shape)
    while True:
        found = tiles(shape, counts, margin)
        longest = max(range(len(shape)), key=lambda axis: shape[axis] / counts[axis])
        # Cores much smaller than their margin would save little memory and cost much time.
        small = shape[longest] <= counts[longest] * max(margin // 2, 1)
        if small or max(tile.voxels for tile in found) <= most_voxels:
            return found
        counts[longest] += 1
