"""Displacements inside networks: warping, integration, change of resolution, affine motion.

Voxel i of a coarser level lies at 2i + ½ of the finer one, as the mean of a 2³ block does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

SQUARINGS = 7


def warp(image: torch.Tensor, displacement_voxel: torch.Tensor) -> torch.Tensor:
    """Pull-warp ``out(x) = image(x + u(x))``, trilinear, the edge carried on; differentiable in both.

    Parameters
    ----------
    image : Tensor, (B, C, D, H, W)
    displacement_voxel : Tensor, (B, 3, D, H, W)
        Components (d, h, w) in voxels of that grid.
    """
    positions = positions_of(image) + displacement_voxel
    last = [max(n - 1, 1) for n in image.shape[2:]]
    size = torch.tensor(last, dtype=positions.dtype, device=positions.device).reshape(1, 3, 1, 1, 1)
    normalised = (2 * positions / size - 1).flip(1).permute(0, 2, 3, 4, 1)
    values: torch.Tensor = F.grid_sample(
        image.to(normalised.dtype), normalised, padding_mode="border", align_corners=True
    )
    return values


def positions_of(volume: torch.Tensor) -> torch.Tensor:
    """(1, 3, D, H, W): the voxel position (d, h, w) of every voxel of a volume (B, C, D, H, W)."""
    axes = [torch.arange(n, dtype=torch.float32, device=volume.device) for n in volume.shape[2:]]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
    return positions.double() if volume.dtype == torch.float64 else positions


def precise(flow: torch.Tensor) -> torch.Tensor:
    """The same in float32 at least: half precision would lose tenths of a voxel."""
    same: torch.Tensor = flow if flow.dtype == torch.float64 else flow.float()
    return same


def integrated(velocity: torch.Tensor, squarings: int = SQUARINGS) -> torch.Tensor:
    """The displacement of the flow along a stationary velocity for unit time, by scaling and squaring (Arsigny 2006).

    Parameters
    ----------
    velocity : Tensor, (B, 3, D, H, W)
        Components (d, h, w), voxels per unit time.
    squarings : int
        The velocity is divided by 2 to this power, then composed with itself as often.
    """
    displacement: torch.Tensor = velocity / 2**squarings
    for _ in range(squarings):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def finer(flow: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A displacement or velocity (B, 3, d, h, w) at twice the resolution, in voxels of it, cut to ``shape``."""
    fine: torch.Tensor = 2 * F.interpolate(flow, scale_factor=2, mode="trilinear", align_corners=False)
    return cropped_to(fine, shape)


def halved(volume: torch.Tensor) -> torch.Tensor:
    """Means of 2³ blocks; sizes are even."""
    # Sums of halves: torch pools in float32 only, and slowly where channels lie together.
    for axis in (2, 3, 4):
        pairs = volume.unflatten(axis, (-1, 2))
        volume = pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)
    return volume / 8


def padded_to(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """The image (B, C, D, H, W) with its far edges carried on until every size is a multiple."""
    lack = [-n % multiple for n in image.shape[2:]]
    if not any(lack):
        return image
    return F.pad(image, (0, lack[2], 0, lack[1], 0, lack[0]), mode="replicate")


def cropped_to(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first ``shape`` voxels of a volume (B, C, D, H, W)."""
    return volume[..., : shape[0], : shape[1], : shape[2]]


def nearly_constant(convolution: nn.Conv3d, value: float = 0.0) -> None:
    """Let a convolution give almost the same value everywhere at first; no motion, where it gives a flow."""
    nn.init.normal_(convolution.weight, std=1e-3)
    if convolution.bias is not None:
        nn.init.constant_(convolution.bias, value)


def affine_map(matrices: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Where affine maps about the middle of a grid bring positions.

    Parameters
    ----------
    matrices : Tensor, (B, 3, 4)
        Linear part and translation on coordinates that are 0 in the middle of the grid and ±1 half its longest side
        away; components (d, h, w).
    positions : Tensor, (B, 3, D, H, W)
        Voxels (d, h, w) of a grid of that size.
    """
    shape = positions.shape[2:]
    middle = torch.tensor([(n - 1) / 2 for n in shape], dtype=positions.dtype, device=positions.device)
    middle = middle.reshape(1, 3, 1, 1, 1)
    scale = max(shape) / 2
    moved = torch.einsum(
        "bij,bjdhw->bidhw", matrices[..., :3], (positions - middle).expand(len(matrices), -1, -1, -1, -1)
    )
    return moved + scale * matrices[..., 3].reshape(-1, 3, 1, 1, 1) + middle
