"""Instance optimisation: gradient descent (Adam) on one pair's displacement, at one resolution or coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from MMRegCore.monitor import Monitor
from MMRegCore.ops import avg_pool, box_mean, diffusion_energy, integrate_velocity, resize, upsample
from MMRegCore.ops.constants import per_axis
from MMRegCore.optimisation.adam import Adam, DescriptorDistance
from MMRegCore.optimisation.settings import InstanceSettings


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

    Parameters
    ----------
    fixed : Tensor, (1, C, D, H, W)
        Descriptors pooled to the control grid (``settings.grid_spacing``).
    moving : sequence of Tensor, (1, C, D, H, W)
        Descriptors of each moving image, pooled alike.
    start_voxel : Tensor, (1, 3, D', H', W')
        Displacement in voxels to start from, on the working grid.
    weights : sequence of Tensor, (1, 1, D, H, W), optional
        For each moving image on the control grid, in [0, 1]; the similarity counts only there, and averages of the
        result are weighted by it.

    Returns
    -------
    Tensor, (1, 3, D', H', W')
        Displacement in voxels on the working grid.
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
    """One resolution of `optimise_levels`.

    Attributes
    ----------
    scale : float
        Size of the grid, as a share of the working grid.
    iterations : int
    learning_rate : float
        In halves of the grid's length.
    regularisation : float
        λ.
    """

    scale: float
    iterations: int
    learning_rate: float
    regularisation: float


def optimise_levels(
    fixed: torch.Tensor,
    moving: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    levels: Sequence[Level],
    *,
    parametrisation: Literal["displacement", "velocity"],
    unit: bool,
    monitor: Monitor,
) -> torch.Tensor:
    """Find the displacement under which descriptors agree, coarse to fine (Mok et al. 2024, Eq. 5 and Table 4).

    Minimises ``mean_x ½|F(x) − M(x + u(x))|² + λ·Σ mean |∂u|²``, the first term averaged over the moving images; of
    unit vectors it is one more than the negated cosine similarity.  The parameter is u in halves of the grid's length
    along each axis, which is what the learning rates of Table 4 are steps of; ∂u is without unit.

    Parameters
    ----------
    fixed : Tensor, (1, C, D, H, W)
        Descriptors.
    moving : sequence of Tensor, (1, C, D, H, W)
        Of each moving image.
    weights : sequence of Tensor, (1, 1, D, H, W)
        For each moving image, in [0, 1]; where it is zero the field follows its neighbours.
    levels : sequence of Level
    parametrisation : {'displacement', 'velocity'}
        A velocity is integrated to a diffeomorphism.
    unit : bool
        Whether descriptors are compared by their direction only.
    monitor : Monitor

    Returns
    -------
    Tensor, (1, 3, D, H, W)
        Displacement in voxels.
    """

    def displacement(parameter: torch.Tensor) -> torch.Tensor:
        field = _in_voxels(parameter)
        return integrate_velocity(field) if parametrisation == "velocity" else field

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
        start, share = sum(work[:number]) / max(sum(work), 1), work[number] / max(sum(work), 1)
        for iteration in range(level.iterations):
            monitor.report(f"descriptors at scale {level.scale:g}", start + share * iteration / level.iterations)
            loss = level.regularisation * diffusion_energy(_in_voxels(parameter))
            field = displacement(parameter)
            for term in terms:
                loss = loss + term(field) / (2 * len(terms))
            adam.step(torch.autograd.grad(loss, parameter)[0])
        parameter = parameter.detach()
    return displacement(resize(parameter, shape))


def _in_voxels(parameter: torch.Tensor) -> torch.Tensor:
    """From halves of the grid's length, edge to edge, to voxels."""
    return parameter * (per_axis(parameter.shape[2:], parameter) / 2)
