"""Instance optimisation: gradient descent (Adam) on one pair's displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.config import InstanceSettings
from MMRegCore.monitor import Monitor
from MMRegCore.warp import sample, voxel_coordinates


def optimise_instance(
    fixed: torch.Tensor,
    moving: Sequence[torch.Tensor],
    start_voxel: torch.Tensor,
    settings: InstanceSettings,
    *,
    weights: Sequence[torch.Tensor] | None = None,
    monitor: Monitor | None = None,
) -> torch.Tensor:
    """Refine a displacement: mean squared feature difference plus diffusion, by Adam on a coarser control grid.

    Minimises ``mean_x 12·mean_c (F_c(x) − M_c(x + u(x)))² + λ·Σ mean |∂u|²``, the first term averaged over the moving
    images, where u is the parameter after three 3³ averages (Siebert et al., 2021).

    Parameters
    ----------
    fixed : Tensor, (1, C, D, H, W)
        Features pooled to the control grid (``settings.grid_spacing``).
    moving : sequence of Tensor, (1, C, D, H, W)
        Features of each moving image, pooled alike.
    start_voxel : Tensor, (1, 3, D', H', W')
        Displacement (d, h, w) in voxels to start from, on the working grid.
    weights : sequence of Tensor, (1, 1, D, H, W), optional
        Evidence for each moving image on the control grid, in [0, 1]; the similarity counts only there, and averages
        of the result are weighted by it.

    Returns
    -------
    Tensor, (1, 3, D', H', W')
        Displacement (d, h, w) in voxels on the working grid.
    """
    stride = settings.grid_spacing
    shape = tuple(start_voxel.shape[2:])
    evidence = weights if weights is not None else [torch.ones_like(fixed[:, :1])] * len(moving)
    terms = [_Term.of(fixed, features, weight) for features, weight in zip(moving, evidence, strict=True)]
    parameter = (pool(start_voxel, stride) / stride).requires_grad_(True)
    adam = Adam(parameter, settings.learning_rate)
    smooth = parameter
    for iteration in range(settings.iterations):
        if monitor is not None:
            monitor.report("fine adjustment", iteration / settings.iterations)
        smooth = smoothed(parameter, 3, settings.smoothing_passes)
        loss = settings.regularisation * roughness(smooth)
        for term in terms:
            loss = loss + 12 / len(terms) * term.dissimilarity(smooth)
        adam.step(torch.autograd.grad(loss, parameter)[0])
    fine = unpool(smooth.detach() * stride, stride, shape)
    together = None if weights is None else unpool(torch.stack(list(weights)).amax(dim=0), stride, shape)
    return smoothed(fine, 5, settings.final_smoothing_passes, together)


class Adam:
    """Adam (Kingma and Ba 2015) on one tensor; torch.optim would import its compiler first, a second of every run."""

    def __init__(self, parameter: torch.Tensor, learning_rate: float) -> None:
        self._parameter = parameter
        self._rate = learning_rate
        self._mean = torch.zeros_like(parameter)
        self._square = torch.zeros_like(parameter)
        self._steps = 0

    @torch.no_grad()
    def step(self, gradient: torch.Tensor) -> None:
        """Go one step down the gradient, in place."""
        self._steps += 1
        self._mean.lerp_(gradient, 1 - 0.9)
        self._square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        scale = (self._square / (1 - 0.999**self._steps)).sqrt_().add_(1e-8)
        self._parameter.addcdiv_(self._mean, scale, value=-self._rate / (1 - 0.9**self._steps))


@dataclass(frozen=True, eq=False)
class _Term:
    """Weighted mean squared feature difference to one moving image, over the N voxels that are evidence at all."""

    fixed: torch.Tensor  # (1, C, N, 1, 1)
    moving: torch.Tensor  # (1, C, D, H, W)
    share: torch.Tensor  # (N,), adds up to 1
    places: torch.Tensor  # (N,), index of the voxels
    positions: torch.Tensor  # (N, 3), their coordinates (w, h, d)

    @classmethod
    def of(cls, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> _Term:
        places = weight.flatten().nonzero()[:, 0]
        share = weight.flatten()[places]
        positions = voxel_coordinates(tuple(fixed.shape[2:]), fixed.device).reshape(-1, 3)[places]
        values = fixed.flatten(2)[:, :, places, None, None]
        return cls(values, moving, share / share.sum().clamp(min=1e-12), places, positions)

    def dissimilarity(self, displacement_voxel: torch.Tensor) -> torch.Tensor:
        there = self.positions + displacement_voxel.flatten(2)[0, :, self.places].flip(0).t()
        warped = sample(self.moving, there[None, :, None, None], padding_mode="zeros")
        return ((warped - self.fixed).square().mean(dim=1).flatten() * self.share).sum()


def roughness(displacement: torch.Tensor) -> torch.Tensor:
    """Diffusion energy: the mean squared forward difference, summed over the three axes."""
    return sum(
        ((torch.diff(displacement, dim=axis).square().mean()) for axis in (2, 3, 4) if displacement.shape[axis] > 1),
        start=displacement.new_zeros(()),
    )


def smoothed(volume: torch.Tensor, size: int, times: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Average over size³ boxes, ``times`` in a row.

    Without ``weight`` (1, 1, D, H, W) zeros count outside, as published; with it averages are weighted, so that voxels
    without evidence follow their neighbours.
    """
    if weight is not None:
        # A trace of weight everywhere: where there is no evidence at all, the plain average holds.
        weight = weight.clamp(min=1e-3)
        norm = _box(weight, size)
    for _ in range(times):
        volume = _box(volume, size) if weight is None else _box(volume * weight, size) / norm
    return volume


def _box(volume: torch.Tensor, size: int) -> torch.Tensor:
    """One average, axis by axis: 3·size additions a voxel instead of size³."""
    half = size // 2
    for kernel, padding in (
        ((size, 1, 1), (0, 0, 0, 0, half, half)),
        ((1, size, 1), (0, 0, half, half)),
        ((1, 1, size), (half, half)),
    ):
        # Padded by hand: avg_pool3d refuses axes shorter than its kernel.
        volume = F.avg_pool3d(F.pad(volume, padding), kernel, stride=1)
    return volume


def pool(volume: torch.Tensor, stride: int) -> torch.Tensor:
    """Average pooling that keeps every voxel: the last block may be smaller."""
    if stride == 1:
        return volume
    return F.avg_pool3d(volume, stride, ceil_mode=True, count_include_pad=False)


def unpool(volume: torch.Tensor, stride: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Trilinear upsampling of pooled values to exactly where their blocks were: voxel x lies at (x − (s−1)/2)/s."""
    if stride == 1:
        return volume
    return sample(volume, (voxel_coordinates(shape, volume.device) - (stride - 1) / 2) / stride)
