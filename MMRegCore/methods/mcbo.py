"""MCBO: multilevel correlation balanced optimisation (Wang et al. 2024), as published and mask-aware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from MMRegCore.errors import InputError
from MMRegCore.methods.protocol import Method, Problem, Solution
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.settings import Settings, as_text, setting
from MMRegCore.similarity.settings import DescriptorSettings

if TYPE_CHECKING:
    import torch

    from MMRegCore.monitor import Monitor
    from MMRegCore.optimisation.dense_search import DenseSearch, DescriptorPair

# Published weights add up to one; thirds written with few digits must pass too.
_WEIGHT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class McboSettings(Settings):
    """Multilevel correlation balanced optimisation (Wang et al. 2024, arXiv:2409.05040)."""

    strides: tuple[int, ...] = setting(
        (1, 2, 4, 6), "Average pooling of each level; 1 is full resolution.", unit="voxel", minimum=1, maximum=16
    )
    weights: tuple[float, ...] = setting(
        (0.10, 0.27, 0.27, 0.36), "Share of each level in the fused field; they add up to 1.", minimum=0, maximum=1
    )
    half_width: int = setting(
        4, "Displacements are searched up to this many grid steps to every side.", minimum=1, maximum=12
    )
    descriptor: DescriptorSettings = DescriptorSettings()
    coefficients: tuple[float, ...] = setting(
        (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "Coupling of match and smoothness, in turn.", minimum=0
    )
    inverse_consistency_iterations: int = setting(
        15, "Iterations that pull forward and backward fields together.", minimum=0, maximum=200
    )
    fusion: Literal["signed-max", "mean", "magnitude", "confidence"] = setting(
        "mean", "How one field is made of those of several moving images."
    )
    refine: Literal["none", "level-1", "fused-field"] = setting(
        "level-1",
        "What instance optimisation refines: nothing, the full-resolution level, or the fused field with all "
        "moving images together.",
    )
    instance: InstanceSettings = InstanceSettings()

    def check_together(self) -> None:
        """Raise `InputError` when levels and weights do not fit each other."""
        if len(self.weights) != len(self.strides):
            raise InputError(
                f"expected as many weights as strides; got {len(self.weights)} weights ({as_text(self.weights)}) "
                f"for {len(self.strides)} strides ({as_text(self.strides)})"
            )
        if abs(sum(self.weights) - 1) > _WEIGHT_TOLERANCE:
            raise InputError(f"expected the weights to add up to 1; got {as_text(self.weights)}")
        if len(set(self.strides)) != len(self.strides):
            raise InputError(f"expected every stride once; got {as_text(self.strides)}")


def solve(problem: Problem, settings: McboSettings) -> Solution:
    """Register by dense correlation at several levels, balanced against smoothness.

    Every level pools the descriptors, searches all displacements within its half-width, balances cost and smoothness by
    coupled convex optimisation, forward and backward, and makes both inverse consistent.  The fields of several
    modalities are fused per level, the levels by a weighted sum.
    """
    import torch

    from MMRegCore.optimisation.dense_search import DenseSearch, DescriptorPair
    from MMRegCore.optimisation.fusion import fuse
    from MMRegCore.similarity import make_descriptor

    prepared, monitor = problem.prepared, problem.monitor
    descriptor = make_descriptor(settings.descriptor)
    fixed = descriptor.encode_fixed(prepared.fixed.image, prepared.fixed.weight)
    search = DenseSearch(settings.half_width, settings.coefficients, prepared.masked, problem.memory_bytes)
    search_share = 0.7 if settings.refine == "fused-field" else 1.0
    count = len(prepared.moving)
    i, j, k = (float(v) for v in prepared.grid.spacing_mm)
    spacing_dhw = (k, j, i)
    per_level: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in settings.strides]
    pairs: list[DescriptorPair] = []
    for index, channel in enumerate(prepared.moving):
        name = f"modality {index + 1} of {count}" if count > 1 else ""
        part = monitor.part(search_share * index / count, search_share * (index + 1) / count, name)
        moving = descriptor.encode_moving(channel.image, channel.weight)
        pair = DescriptorPair(fixed, moving, prepared.fixed.weight, channel.weight)
        pairs.append(pair.pooled(settings.instance.grid_spacing))
        levels = _levels(pair, spacing_dhw, settings, search, part)
        for found, level in zip(per_level, levels, strict=True):
            found.append(level)
    total, disagreement = torch.zeros(()), torch.zeros(())
    for weight, found in zip(settings.weights, per_level, strict=True):
        fields, errors = zip(*found, strict=True)
        total = total + weight * fuse(fields, settings.fusion, errors)
        disagreement = disagreement + weight * torch.stack(errors).mean(dim=0)
    if settings.refine == "fused-field":
        total = _refined(total, pairs, settings, prepared.masked, monitor.part(search_share, 1.0))
    return Solution(total, {"inverse_consistency_error": disagreement})


def _levels(
    pair: DescriptorPair,
    spacing_dhw: tuple[float, float, float],
    settings: McboSettings,
    search: DenseSearch,
    monitor: Monitor,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Field (voxels) and inverse consistency error (mm) of every level, both on the working grid."""
    from MMRegCore.ops import upsample
    from MMRegCore.optimisation.inverse_consistency import inverse_consistency_error, make_inverse_consistent

    shape = tuple(pair.fixed.shape[2:])
    work = [1 / stride**3 for stride in settings.strides]
    done = [sum(work[:n]) / sum(work) for n in range(len(work) + 1)]
    for stride, (start, stop) in zip(settings.strides, pairwise(done), strict=True):
        part = monitor.part(start, stop)
        pooled = pair.pooled(stride)
        stage = f"matching at stride {stride}"
        forward = search.find(pooled, part.part(0.0, 0.45), stage)
        backward = search.find(pooled.reversed(), part.part(0.45, 0.9), f"{stage}, backwards")
        forward, backward = make_inverse_consistent(forward, backward, settings.inverse_consistency_iterations)
        error = upsample(inverse_consistency_error(forward, backward, spacing_dhw) * stride, stride, shape)
        field = upsample(forward * stride, stride, shape)
        if stride == 1 and settings.refine == "level-1":
            pairs = [pair.pooled(settings.instance.grid_spacing)]
            field = _refined(field, pairs, settings, search.masked, part.part(0.9, 1.0))
        yield field, error


def _refined(
    field: torch.Tensor, pairs: list[DescriptorPair], settings: McboSettings, masked: bool, monitor: Monitor
) -> torch.Tensor:
    """Instance optimisation of a field on the working grid, on all moving images together (pairs pooled for it)."""
    from MMRegCore.optimisation.instance import refine_field

    weights = [pair.weight for pair in pairs] if masked else None
    moving = [pair.moving for pair in pairs]
    return refine_field(pairs[0].fixed, moving, field, settings.instance, weights=weights, monitor=monitor)


METHOD = Method("mcbo", McboSettings, solve)
