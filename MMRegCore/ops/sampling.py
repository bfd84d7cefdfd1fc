"""Images at positions between their voxels; the only caller of ``grid_sample``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from MMRegCore.geometry import Array, Grid, ijk_target_from_source
from MMRegCore.ops.constants import per_axis

Mode = Literal["bilinear", "nearest"]
Padding = Literal["border", "zeros"]


def identity_positions(
    shape: Sequence[int], device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """(1, 3, D, H, W): the position (d, h, w) of every voxel."""
    axes = [torch.arange(n, dtype=dtype, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample(
    image: torch.Tensor, positions: torch.Tensor, mode: Mode = "bilinear", padding_mode: Padding = "border"
) -> torch.Tensor:
    """Values of an image at positions.

    Parameters
    ----------
    image : Tensor, (B, C, D, H, W)
    positions : Tensor, (B, 3, d, h, w)
        In voxels of ``image``, components (d, h, w).
    mode : {'bilinear', 'nearest'}
        'bilinear' is trilinear on volumes.
    padding_mode : {'border', 'zeros'}

    Returns
    -------
    Tensor, (B, C, d, h, w)
    """
    size = per_axis(image.shape[2:], positions)
    # PyTorch's order is (w, h, d), its range [-1, 1] from outer face to outer face.
    grid = ((2 * positions + 1) / size - 1).flip(1).permute(0, 2, 3, 4, 1)
    count = torch.get_num_threads()
    if image.device.type == "cpu" and len(image) == 1 and grid.shape[1] >= count > 1:
        return _sample_in_slabs(image, grid, count, mode, padding_mode)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding_mode, align_corners=False)


def _sample_in_slabs(image: torch.Tensor, grid: torch.Tensor, count: int, mode: str, padding_mode: str) -> torch.Tensor:
    """The same, one slab a thread: on a CPU PyTorch shares volumes out to threads by batch only."""
    depth = grid.shape[1]
    lack = -depth % count
    if lack:
        grid = torch.cat([grid, grid[:, -1:].expand(-1, lack, -1, -1, -1)], dim=1)
    slabs = grid.reshape(count, -1, *grid.shape[2:])
    batch = image.expand(count, -1, -1, -1, -1)
    values = F.grid_sample(batch, slabs, mode=mode, padding_mode=padding_mode, align_corners=False)
    return values.transpose(0, 1).reshape(1, image.shape[1], -1, *grid.shape[2:4])[:, :, :depth]


def warp(
    image: torch.Tensor, displacement_voxel: torch.Tensor, mode: Mode = "bilinear", padding_mode: Padding = "border"
) -> torch.Tensor:
    """Pull-warp: ``out(x) = image(x + u(x))``; differentiable in both.

    Parameters
    ----------
    image : Tensor, (B, C, D, H, W)
    displacement_voxel : Tensor, (B, 3, D, H, W)
    """
    like = displacement_voxel
    positions = identity_positions(like.shape[2:], like.device, like.dtype) + displacement_voxel
    return sample(image.to(positions.dtype), positions, mode, padding_mode)


def resize(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Trilinear (B, C, D, H, W) to another ``shape`` (d, h, w); the outer faces of the outer voxels stay in place."""
    if tuple(volume.shape[2:]) == tuple(shape):
        return volume
    return F.interpolate(volume, size=tuple(shape), mode="trilinear", align_corners=False)


def positions_between(source: Grid, target: Grid, source_from_target_ras: Array | None = None) -> torch.Tensor:
    """(1, 3, D, H, W): where each voxel of ``target`` lies in ``source``, through a RAS matrix (identity if None)."""
    matrix = torch.as_tensor(ijk_target_from_source(source, target, source_from_target_ras), dtype=torch.float64)
    # Built axis by axis in float64 and summed: exact, without a float64 volume of positions.
    d, h, w = (torch.arange(n, dtype=torch.float64) for n in target.shape)
    rows = []
    for i, j, k, shift in matrix[:3].flip(0):
        rows.append(((d * k + shift)[:, None, None] + (h * j)[None, :, None] + (w * i)[None, None]).float())
    return torch.stack(rows)[None]


def inside(positions: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(B, 1, d, h, w) bool: whether positions (B, 3, d, h, w) lie within the outer voxel faces of a volume."""
    size = per_axis(tuple(shape), positions)
    return ((positions >= -0.5) & (positions <= size - 0.5)).all(dim=1, keepdim=True)
