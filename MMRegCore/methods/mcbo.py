"""MCBO: multilevel correlation balanced optimisation (Wang et al. 2024), as published and mask-aware."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch

from MMRegCore.config import McboSettings
from MMRegCore.errors import DeviceError
from MMRegCore.methods.descriptors import descriptors
from MMRegCore.methods.fusion import Fusion, fuse
from MMRegCore.methods.solution import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation import coupled_convex
from MMRegCore.optimisation.correlation import cost_volume, matching_terms
from MMRegCore.optimisation.instance import optimise_instance, pool, unpool
from MMRegCore.optimisation.inverse_consistency import inverse_consistency_error, make_inverse_consistent
from MMRegCore.preprocess import Prepared

# Of the memory that a run may use, the share that one cost volume may take.
_COST_SHARE = 0.5
# Below this the parts do not become any smaller.
_LEAST_BYTES = 2**22


def mcbo(prepared: Prepared, settings: McboSettings, fusion: Fusion, memory_bytes: int, monitor: Monitor) -> Solution:
    """Register by dense correlation at several levels, balanced against smoothness.

    Every level pools the features (MIND-SSC, or descriptors of MASR-Net), searches all displacements within its
    half-width, balances cost and smoothness by coupled convex optimisation, forward and backward, and makes both
    inverse consistent.  The fields of several modalities are fused per level, the levels by a weighted sum.

    Parameters
    ----------
    prepared : Prepared
        On the device where the work is to happen.
    memory_bytes : int
        What the run may use; the finest level is solved in overlapping parts that fit.
    """
    describe = descriptors(settings, prepared.fixed.device)
    fixed = describe(prepared.fixed, prepared.fixed_weight)
    per_level: list[list[torch.Tensor]] = [[] for _ in settings.strides]
    errors: list[list[torch.Tensor]] = [[] for _ in settings.strides]
    pairs: list[_Pair] = []
    scratch = _Scratch(int(memory_bytes * _COST_SHARE))
    search_share = 0.7 if settings.refine == "fused-field" else 1.0
    count = len(prepared.moving)
    k, j, i = (float(v) for v in prepared.grid.spacing_mm[::-1])
    spacing_dhw = (k, j, i)
    for index, (image, weight) in enumerate(zip(prepared.moving, prepared.moving_weight, strict=True)):
        name = f"modality {index + 1} of {count}" if count > 1 else ""
        part = monitor.part(search_share * index / count, search_share * (index + 1) / count, name)
        moving = describe(image, weight)
        pair = _Pair(fixed, moving, prepared.fixed_weight, weight)
        pairs.append(pair.pooled(settings.instance.grid_spacing))
        for level, (field, error) in enumerate(_levels(pair, spacing_dhw, settings, scratch, part)):
            per_level[level].append(field)
            errors[level].append(error)
    total, disagreement = torch.zeros_like(per_level[0][0]), torch.zeros_like(errors[0][0])
    for weight_of_level, fields, of_level in zip(settings.weights, per_level, errors, strict=True):
        total += weight_of_level * fuse(fields, fusion, of_level)
        disagreement += weight_of_level * torch.stack(of_level).mean(dim=0)
    if settings.refine == "fused-field":
        total = _refined(total, pairs, settings, monitor.part(search_share, 1.0))
    return Solution(total, {"inverse_consistency_error_mm": disagreement})


@dataclass(frozen=True, eq=False)
class _Pair:
    """Features (1, C, D, H, W) and weights (1, 1, D, H, W) of a fixed and a moving image on one grid."""

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_weight: torch.Tensor
    moving_weight: torch.Tensor

    def pooled(self, stride: int) -> _Pair:
        return _Pair(*(pool(t, stride) for t in (self.fixed, self.moving, self.fixed_weight, self.moving_weight)))

    def reversed(self) -> _Pair:
        return _Pair(self.moving, self.fixed, self.moving_weight, self.fixed_weight)


def _levels(
    pair: _Pair, spacing_dhw: tuple[float, float, float], settings: McboSettings, scratch: _Scratch, monitor: Monitor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Field (voxels) and inverse consistency error (mm) of every level, both on the working grid."""
    shape = tuple(pair.fixed.shape[2:])
    work = [1 / stride**3 for stride in settings.strides]
    done = [sum(work[:n]) / sum(work) for n in range(len(work) + 1)]
    for stride, (start, stop) in zip(settings.strides, pairwise(done), strict=True):
        part = monitor.part(start, stop)
        pooled = pair.pooled(stride)
        stage = f"matching at stride {stride}"
        forward = _search(pooled, settings, scratch, part.part(0.0, 0.45), stage)
        backward = _search(pooled.reversed(), settings, scratch, part.part(0.45, 0.9), f"{stage}, backwards")
        forward, backward = make_inverse_consistent(forward, backward, settings.inverse_consistency_iterations)
        error = unpool(inverse_consistency_error(forward, backward, spacing_dhw) * stride, stride, shape)
        field = unpool(forward * stride, stride, shape)
        if stride == 1 and settings.refine == "level-1":
            field = _refined(field, [pair.pooled(settings.instance.grid_spacing)], settings, part.part(0.9, 1.0))
        yield field, error


def _refined(field: torch.Tensor, pairs: list[_Pair], settings: McboSettings, monitor: Monitor) -> torch.Tensor:
    """Instance optimisation of a field on the working grid, on all moving images together (pairs pooled for it)."""
    return optimise_instance(
        pairs[0].fixed,
        [pair.moving for pair in pairs],
        field,
        settings.instance,
        weights=[pair.fixed_weight * pair.moving_weight for pair in pairs] if settings.masked else None,
        monitor=monitor,
    )


class _Scratch:
    """Memory for cost volumes, kept from one search to the next: new pages are slow to come by."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._memory: torch.Tensor | None = None

    def hold(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """At least ``count`` float32 values, 1-D, on the device of ``like``; what was in them is lost."""
        if self._memory is None or len(self._memory) < count:
            self._memory = None
            self._memory = like.new_empty(count)
        return self._memory

    def halve(self) -> None:
        """Let go of the memory and from now on take at most half of it."""
        self._memory = None
        self.most_bytes //= 2


def _search(pair: _Pair, settings: McboSettings, scratch: _Scratch, monitor: Monitor, stage: str) -> torch.Tensor:
    """Displacement (1, 3, D, H, W) in voxels of the pair's grid; smaller parts where memory runs out."""
    while True:
        try:
            return _search_in_parts(pair, settings, scratch, monitor, stage)
        except torch.OutOfMemoryError:
            scratch.halve()
            if scratch.most_bytes < _LEAST_BYTES:
                raise DeviceError("expected memory for a part of the cost volume; the device has none left") from None
            torch.cuda.empty_cache()


def _search_in_parts(
    pair: _Pair, settings: McboSettings, scratch: _Scratch, monitor: Monitor, stage: str
) -> torch.Tensor:
    # Columns of the grid, as wide as memory allows, each swept from end to end: only a window of its cost exists.
    depth, *area = pair.fixed.shape[2:]
    weights = (pair.fixed_weight, pair.moving_weight) if settings.masked else (None, None)
    fixed_terms, moving_terms = matching_terms(pair.fixed, pair.moving, *weights)
    displacement = pair.fixed.new_zeros((1, 3, depth, *area))
    candidates = (2 * settings.half_width + 1) ** 3
    margin = coupled_convex.margin(settings.coefficients)
    most_voxels = scratch.most_bytes // (4 * candidates)
    columns = split(tuple(area), margin, most_voxels // min(depth, 2 * margin))
    largest = max(math.prod(s.stop - s.start for s in around) for _, around in columns)
    window, step = _window(depth, margin, most_voxels // largest)
    memory = scratch.hold(candidates * window * largest, pair.fixed)
    for index, (core, (h, w)) in enumerate(columns):
        part = monitor.part(index / len(columns), (index + 1) / len(columns))
        shape = (candidates, window, h.stop - h.start, w.stop - w.start)
        cost = memory[: math.prod(shape)].reshape(shape)
        weight = pair.fixed_weight[..., h, w] if settings.masked else None
        sweep = coupled_convex.Sweep(
            (candidates, depth, *shape[2:]), settings.coefficients, average_iterates=True, weight=weight, like=cost
        )
        for start in range(0, depth, step):
            stop, place = min(start + step, depth), start % window
            part.report(stage, start / depth)
            slab = cost[:, place : place + stop - start]
            cost_volume(fixed_terms, moving_terms, (slice(start, stop), h, w), settings.half_width, slab)
            part.report(stage, (start + 0.6 * (stop - start)) / depth)
            sweep.advance(cost, stop)
        inner = [slice(c.start - a.start, c.stop - a.start) for c, a in zip(core, (h, w), strict=True)]
        displacement[..., core[0], core[1]] = sweep.displacement[..., inner[0], inner[1]]
    return displacement


def _window(depth: int, margin: int, most: int) -> tuple[int, int]:
    """Slices of cost to keep and slices to add at once: all, or slabs of half a window, which hold the margin."""
    step = max(most // 2, margin)
    return (depth, depth) if depth <= max(most, 2 * step) else (2 * step, step)


def split(shape: tuple[int, ...], margin: int, most_voxels: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Cut a grid into parts that, with ``margin`` around them, have at most ``most_voxels``, as far as that goes.

    Returns
    -------
    list of (core, around)
        The cores, a slice for each axis, tile the grid; ``around`` is the core with its margin, within the grid.
    """
    counts = [1] * len(shape)
    while True:
        cuts = [_cuts(size, count) for size, count in zip(shape, counts, strict=True)]
        around = [[_widened(c, margin, size) for c in along] for along, size in zip(cuts, shape, strict=True)]
        largest = math.prod(max(s.stop - s.start for s in along) for along in around)
        longest = max(range(len(shape)), key=lambda axis: shape[axis] / counts[axis])
        # Cores much smaller than their margin would save little memory and cost much time.
        if largest <= most_voxels or shape[longest] <= counts[longest] * max(margin // 2, 1):
            return list(zip(product(*cuts), product(*around), strict=True))
        counts[longest] += 1


def _cuts(size: int, count: int) -> list[slice]:
    bounds = [round(size * n / count) for n in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def _widened(core: slice, margin: int, size: int) -> slice:
    return slice(max(core.start - margin, 0), min(core.stop + margin, size))
