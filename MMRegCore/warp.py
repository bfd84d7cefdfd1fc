"""Sampling of images at displaced positions; the only caller of ``grid_sample``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MMRegCore.geometry import Array, Grid, ijk_target_from_source, normalised_from_voxel
from MMRegCore.volume import Volume


def voxel_coordinates(shape: tuple[int, ...], device: torch.device | None = None) -> torch.Tensor:
    """(1, D, H, W, 3): the voxel coordinates (w, h, d) of every voxel."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    d, h, w = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([w, h, d], dim=-1)[None]


def sample(
    image: torch.Tensor, coordinates: torch.Tensor, mode: str = "bilinear", padding_mode: str = "border"
) -> torch.Tensor:
    """Values of an image at voxel coordinates.

    Parameters
    ----------
    image : Tensor, (B, C, D, H, W)
    coordinates : Tensor, (B, d, h, w, 3)
        Positions in voxels of ``image``, components (w, h, d).
    mode : {'bilinear', 'nearest'}
        'bilinear' is trilinear on volumes.
    padding_mode : {'border', 'zeros'}

    Returns
    -------
    Tensor, (B, C, d, h, w)
    """
    grid = normalised_from_voxel(coordinates, image.shape[2:])
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
    image: torch.Tensor, displacement_voxel: torch.Tensor, mode: str = "bilinear", padding_mode: str = "border"
) -> torch.Tensor:
    """Pull-warp: ``out(x) = image(x + u(x))``.

    Parameters
    ----------
    image : Tensor, (B, C, D, H, W)
    displacement_voxel : Tensor, (B, 3, D, H, W)
        Components (d, h, w) in voxels.
    """
    shape = tuple(displacement_voxel.shape[2:])
    positions = voxel_coordinates(shape, displacement_voxel.device) + displacement_voxel.flip(1).permute(0, 2, 3, 4, 1)
    return sample(image, positions, mode, padding_mode)


def resample(
    volume: Volume,
    grid: Grid,
    moving_from_fixed_ras: Array | None = None,
    mode: str = "bilinear",
    padding_mode: str = "border",
) -> torch.Tensor:
    """Bring an image onto another grid through a linear transform.

    Parameters
    ----------
    volume : Volume
    grid : Grid
        Target (fixed) grid.
    moving_from_fixed_ras : ndarray, (4, 4), optional
        RAS mm of the target to RAS mm of ``volume``; identity when None.

    Returns
    -------
    Tensor, (C, D, H, W) on ``grid``.
    """
    coordinates = resampling_coordinates(volume.grid, grid, moving_from_fixed_ras)
    return sample(volume.data[None], coordinates, mode, padding_mode)[0]


def resampling_coordinates(source: Grid, target: Grid, source_from_target_ras: Array | None = None) -> torch.Tensor:
    """(1, D, H, W, 3): where each voxel of ``target`` lies in ``source``, voxel coordinates (w, h, d)."""
    matrix = torch.as_tensor(ijk_target_from_source(source, target, source_from_target_ras), dtype=torch.float64)
    # Built axis by axis in float64 and summed: exact, without a float64 coordinate volume.
    d, h, w = (torch.arange(n, dtype=torch.float64) for n in target.shape)
    parts = [w[:, None] * matrix[:3, 0], h[:, None] * matrix[:3, 1], d[:, None] * matrix[:3, 2] + matrix[:3, 3]]
    return (parts[2][:, None, None] + parts[1][None, :, None] + parts[0][None, None]).float()[None]


def inside(coordinates: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(B, d, h, w) bool: whether voxel coordinates (B, d, h, w, 3), (w, h, d), lie within the outer voxel faces."""
    size = torch.tensor(list(shape)[::-1], dtype=coordinates.dtype, device=coordinates.device)
    return ((coordinates >= -0.5) & (coordinates <= size - 0.5)).all(dim=-1)
