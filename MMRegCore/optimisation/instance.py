"""Instance optimisation: gradient descent (Adam) on one pair's displacement, at one resolution or coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from MMRegCore.monitor import Monitor
from MMRegCore.ops import avg_pool, box_mean, diffusion_energy, integrate_velocity, resize, upsample
from MMRegCore.optimisation.adam import Adam, DescriptorDistance
from MMRegCore.optimisation.settings import InstanceSettings

Parametrisation = Literal["displacement", "velocity"]


def refine_field(
    fixed: torch.Tensor,
    moving: Sequence[torch.Tensor],
    start_voxel: torch.Tensor,
    settings: InstanceSettings,
    *,
    weights: Sequence[torch.Tensor] | None = None,
    monitor: Monitor | None = None,
) -> torch.Tensor:
    """Refine a displacement: mean squared descriptor difference plus diffusion, by Adam on a coarser control grid.

    Minimises ``mean_x 12·mean_c (F_c(x) − M_c(x + u(x)))² + λ·Σ mean |∂u|²``, the first term averaged over the moving
    images, where u is the parameter after three 3³ averages (Siebert et al., 2021).

    Descriptors (1, C, D, H, W) are pooled to the control grid (``settings.grid_spacing``), as are the weights (1, 1, D,
    H, W) in [0, 1] for each moving image: the similarity counts only there, and averages of the result are weighted by
    them.  Takes and gives displacements (1, 3, D', H', W') in voxels on the working grid.
    """
    stride, shape = settings.grid_spacing, tuple(start_voxel.shape[2:])
    each = weights if weights is not None else [torch.ones_like(fixed[:, :1])] * len(moving)
    terms = [DescriptorDistance.of(fixed, one, weight) for one, weight in zip(moving, each, strict=True)]
    scale = 12 / (fixed.shape[1] * len(terms))
    parameter = (avg_pool(start_voxel, stride) / stride).requires_grad_(True)
    adam = Adam(parameter, settings.learning_rate)
    smooth = parameter
    for iteration in range(settings.iterations):
        if monitor is not None:
            monitor.report("fine adjustment", iteration / settings.iterations)
        smooth = parameter
        for _ in range(settings.smoothing_passes):
            smooth = box_mean(smooth, 1)
        loss = settings.regularisation * diffusion_energy(smooth)
        for term in terms:
            loss = loss + scale * term(smooth, "zeros")
        adam.step(torch.autograd.grad(loss, parameter)[0])
    fine = upsample(smooth.detach() * stride, stride, shape)
    weight = None if weights is None else upsample(torch.stack(list(weights)).amax(dim=0), stride, shape)
    for _ in range(settings.final_smoothing_passes):
        fine = box_mean(fine, 2, weight=weight)
    return fine


@dataclass(frozen=True)
class Level:
    """One resolution of `optimise_levels`."""

    scale: float  # size of the grid, as a share of the working grid
    iterations: int
    learning_rate: float  # in halves of the grid's length
    regularisation: float  # λ


def optimise_levels(
    fixed: torch.Tensor,
    moving: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    levels: Sequence[Level],
    *,
    parametrisation: Parametrisation,
    unit: bool,
    monitor: Monitor,
) -> torch.Tensor:
    """Find the displacement under which descriptors agree, coarse to fine (Mok et al. 2024, Eq. 5 and Table 4).

    Minimises ``mean_x ½|F(x) − M(x + u(x))|² + λ·Σ mean |∂u|²``, the first term averaged over the moving images; of
    unit vectors it is one more than the negated cosine similarity.  The parameter is u in halves of the grid's length
    along each axis, which is what the learning rates of Table 4 are steps of; ∂u is without unit.

    Descriptors are (1, C, D, H, W); with ``unit`` only their direction counts.  Where the weight (1, 1, D, H, W), 0 to
    1, of a moving image is zero the field follows its neighbours.  Gives the displacement (1, 3, D, H, W) in voxels.
    """
    shape = tuple(fixed.shape[2:])
    parameter = fixed.new_zeros((1, 3, *shape))
    work = [level.iterations * level.scale**3 for level in levels]
    for number, level in enumerate(levels):
        size = tuple(max(round(level.scale * n), 2) for n in shape)
        there = resize(fixed, size)
        pairs = zip(moving, weights, strict=True)
        terms = [DescriptorDistance.of(there, resize(m, size), resize(w, size), unit=unit) for m, w in pairs]
        parameter = resize(parameter, size).requires_grad_(True)
        adam = Adam(parameter, level.learning_rate)
        start, stop = (sum(work[:n]) / max(sum(work), 1) for n in (number, number + 1))
        for iteration in range(level.iterations):
            done = start + (stop - start) * iteration / level.iterations
            monitor.report(f"descriptors at scale {level.scale:g}", done)
            loss = level.regularisation * diffusion_energy(_in_voxels(parameter))
            field = _displacement(parameter, parametrisation)
            for term in terms:
                loss = loss + term(field) / (2 * len(terms))
            adam.step(torch.autograd.grad(loss, parameter)[0])
        parameter = parameter.detach()
    return _displacement(resize(parameter, shape), parametrisation)


def _displacement(parameter: torch.Tensor, parametrisation: Parametrisation) -> torch.Tensor:
    field = _in_voxels(parameter)
    return integrate_velocity(field) if parametrisation == "velocity" else field


def _in_voxels(parameter: torch.Tensor) -> torch.Tensor:
    """From halves of the grid's length, edge to edge, to voxels."""
    halves = parameter.new_tensor(parameter.shape[2:]) / 2
    voxels: torch.Tensor = parameter * halves.reshape(1, 3, 1, 1, 1)
    return voxels
