"""Instance optimisation: gradient descent (Adam) on one pair's displacement."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MMRegCore.config import InstanceSettings
from MMRegCore.monitor import Monitor
from MMRegCore.warp import sample, voxel_coordinates


def optimise_instance(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    start_voxel: torch.Tensor,
    settings: InstanceSettings,
    *,
    weight: torch.Tensor | None = None,
    monitor: Monitor | None = None,
) -> torch.Tensor:
    """Refine a displacement: mean squared feature difference plus diffusion, by Adam on a coarser control grid.

    Minimises ``mean_x 12·mean_c (F_c(x) − M_c(x + u(x)))² + λ·Σ mean |∂u|²`` where u is the parameter after three 3³
    averages (Siebert et al., 2021).

    Parameters
    ----------
    fixed, moving : Tensor, (1, C, D, H, W)
        Features on the working grid.
    start_voxel : Tensor, (1, 3, D, H, W)
        Displacement (d, h, w) in voxels to start from.
    weight : Tensor, (1, 1, D, H, W), optional
        Evidence at each voxel, in [0, 1]; the similarity counts only there.

    Returns
    -------
    Tensor, (1, 3, D, H, W)
        Displacement (d, h, w) in voxels.
    """
    stride = settings.grid_spacing
    shape = tuple(start_voxel.shape[2:])
    fixed_coarse, moving_coarse = (pool(features, stride) for features in (fixed, moving))
    share = torch.ones_like(fixed_coarse[:, :1]) if weight is None else pool(weight, stride)
    share = share / share.sum().clamp(min=1e-12)
    parameter = (pool(start_voxel, stride) / stride).requires_grad_(True)
    positions = voxel_coordinates(tuple(fixed_coarse.shape[2:]), fixed.device)
    optimiser = torch.optim.Adam([parameter], lr=settings.learning_rate)
    smooth = parameter
    for iteration in range(settings.iterations):
        if monitor is not None:
            monitor.report("fine adjustment", iteration / settings.iterations)
        optimiser.zero_grad()
        smooth = smoothed(parameter, 3, settings.smoothing_passes)
        warped = sample(moving_coarse, positions + smooth.flip(1).permute(0, 2, 3, 4, 1), padding_mode="zeros")
        difference = (warped - fixed_coarse).square().mean(dim=1, keepdim=True) * 12
        loss = (difference * share).sum() + settings.regularisation * roughness(smooth)
        loss.backward()
        optimiser.step()
    fine = unpool(smooth.detach() * stride, stride, shape)
    return smoothed(fine, 5, settings.final_smoothing_passes)


def roughness(displacement: torch.Tensor) -> torch.Tensor:
    """Diffusion energy: the mean squared forward difference, summed over the three axes."""
    return sum(
        ((torch.diff(displacement, dim=axis).square().mean()) for axis in (2, 3, 4) if displacement.shape[axis] > 1),
        start=displacement.new_zeros(()),
    )


def smoothed(volume: torch.Tensor, size: int, times: int) -> torch.Tensor:
    """Average over size³ boxes, ``times`` in a row; zeros outside, as published."""
    for _ in range(times):
        # Padded by hand: avg_pool3d refuses axes shorter than its kernel.
        volume = F.avg_pool3d(F.pad(volume, (size // 2,) * 6), size, stride=1)
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
