"""Images brought onto other grids."""

from __future__ import annotations

import numpy as np
import torch

from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import gaussian_blur, positions_between, sample
from MMRegCore.ops.sampling import Mode, Padding
from MMRegCore.volume import Volume


def resample(
    volume: Volume,
    grid: Grid,
    moving_from_fixed_ras: Array | None = None,
    mode: Mode = "bilinear",
    padding_mode: Padding = "border",
) -> torch.Tensor:
    """Bring an image onto another grid through a linear transform.

    Parameters
    ----------
    grid : Grid
        Target (fixed) grid.
    moving_from_fixed_ras : ndarray, (4, 4), optional
        RAS mm of the target to RAS mm of ``volume``; identity when None.

    Returns
    -------
    Tensor, (C, D, H, W) on ``grid``.
    """
    return sample(volume.data[None], positions_between(volume.grid, grid, moving_from_fixed_ras), mode, padding_mode)[0]


def resample_smoothed(volume: Volume, grid: Grid) -> torch.Tensor:
    """(C, D, H, W): an image on another grid, blurred first to what that grid can hold; 0 outside the image."""
    return resample(volume.with_data(smooth_for(volume.data, volume.grid, grid)), grid, padding_mode="zeros")


def smooth_for(image: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """Blur (C, D, H, W) to what the target grid can hold, axis by axis, where that is coarser."""
    directions = source.ras_from_ijk[:3, :3] / source.spacing_mm
    # How coarse the target is along each axis of the source.
    steps: Array = np.abs(directions.T @ (target.ras_from_ijk[:3, :3] / target.spacing_mm)) @ target.spacing_mm
    ratio = np.minimum(steps, target.spacing_mm.max()) / source.spacing_mm
    sigma = 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0))
    if sigma.max() < 0.25:
        return image
    return gaussian_blur(image[None], sigma[::-1].tolist())[0]
