"""Images and displacements at points in space instead of voxels."""

from __future__ import annotations

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.ops import sample
from MMRegCore.ops.sampling import Padding


def values_at(image: torch.Tensor, grid: Grid, points_ras: Array, padding_mode: Padding = "border") -> torch.Tensor:
    """(C, ...): trilinear interpolation of an image (C, D, H, W) on ``grid`` at points (..., 3), RAS mm."""
    voxels_dhw = transform_points(grid.ijk_from_ras, points_ras).reshape(-1, 3)[:, ::-1]
    positions = torch.from_numpy(voxels_dhw.T.copy()).float()[None, :, :, None, None]
    return sample(image[None], positions, padding_mode=padding_mode).reshape(len(image), *points_ras.shape[:-1])


def displacement_at(field: DisplacementField, points_ras: Array) -> Array:
    """(..., 3): the displacement at points (..., 3), RAS mm, trilinear; replicated outside the field's grid."""
    values = values_at(field.displacement_mm.permute(3, 0, 1, 2), field.grid, points_ras)
    return np.moveaxis(values.double().numpy(), 0, -1)
