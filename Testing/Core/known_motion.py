"""A made-up pair with a known motion: an 'ultrasound' that is a mixture of an MR, its gradient magnitude and noise."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from MMRegCore.geometry import Grid
from MMRegCore.preprocess import Prepared
from MMRegCore.similarity import lc2_regressors
from MMRegCore.warp import sample, voxel_coordinates

SIZE = 44
MARGIN = 8


def texture(seed: int, size: int = SIZE) -> torch.Tensor:
    """(1, 1, n, n, n): smooth random structure with a correlation of some voxels."""
    coarse = torch.rand((1, 1, size // 3, size // 3, size // 3), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(size,) * 3, mode="trilinear", align_corners=True)


def rotation(degrees: float) -> torch.Tensor:
    """(3, 3): about the last axis of (w, h, d)."""
    angle = math.radians(degrees)
    turn = torch.eye(3)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[1, 0], turn[0, 1] = math.sin(angle), -math.sin(angle)
    return turn


def made_up_pair(
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    degrees: float = 0.0,
    *,
    related: bool = True,
    noise: float = 0.3,
    stretch: float = 1.0,
) -> tuple[Prepared, torch.Tensor]:
    """A pair on a grid of 1 mm, and where each voxel truly lies in the MR: (1, D, H, W, 3), voxels (w, h, d)."""
    moving = texture(1)
    everywhere = torch.ones_like(moving)
    lattice = voxel_coordinates((SIZE,) * 3)
    middle = torch.full((3,), (SIZE - 1) / 2)
    truth = stretch * (lattice - middle) @ rotation(degrees).T + middle + torch.tensor(shift)
    regressors = lc2_regressors(moving if related else texture(2), everywhere)
    seen = sample(regressors, truth)
    speckle = noise * torch.randn(moving.shape, generator=torch.Generator().manual_seed(3))
    fixed = seen[:, :1] + 0.5 * seen[:, 1:] + speckle
    weight = torch.zeros_like(fixed)
    weight[(..., *[slice(MARGIN, SIZE - MARGIN)] * 3)] = 1
    return Prepared(Grid((SIZE,) * 3, np.eye(4)), fixed, weight, (moving,), (everywhere,)), truth


def error_voxel(displacement: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> float:
    """Mean length of the error of a displacement (1, 3, D, H, W), (d, h, w), where there is evidence."""
    found = voxel_coordinates((SIZE,) * 3) + displacement.flip(1).permute(0, 2, 3, 4, 1)
    return float((found - truth).norm(dim=-1)[weight[:, 0] > 0].mean())
