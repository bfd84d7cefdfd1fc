"""A synthetic pair with a known motion: an 'ultrasound' mixed from an MR, its gradient magnitude and noise."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from MMRegCore.geometry import Grid
from MMRegCore.ops import identity_positions, rotation_matrix, sample
from MMRegCore.prepare import Prepared
from MMRegCore.similarity.lc2 import Lc2
from MMRegCore.volume import Channel

SIZE = 44
MARGIN = 8


def texture(seed: int, size: int = SIZE) -> torch.Tensor:
    """(1, 1, n, n, n): smooth random structure with a correlation of some voxels."""
    coarse = torch.rand((1, 1, size // 3, size // 3, size // 3), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(size,) * 3, mode="trilinear", align_corners=True)


def known_positions(shift: tuple[float, float, float], degrees: float, scale: float) -> torch.Tensor:
    """(1, 3, D, H, W): positions scaled and turned about the middle (about axis d, from h to w), then shifted."""
    positions, middle = identity_positions((SIZE,) * 3), (SIZE - 1) / 2
    matrix = scale * torch.from_numpy(rotation_matrix((-math.radians(degrees), 0, 0))).float()
    turned = (matrix @ (positions - middle).flatten(2)).reshape(positions.shape)
    return turned + middle + torch.tensor(shift).reshape(1, 3, 1, 1, 1)


def made_up_pair(
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    degrees: float = 0.0,
    *,
    related: bool = True,
    noise: float = 0.3,
    scale: float = 1.0,
) -> tuple[Prepared, torch.Tensor]:
    """A pair on a grid of 1 mm, and where each voxel truly lies in the MR.

    Parameters
    ----------
    shift : tuple of float
        (d, h, w), voxels.
    degrees : float
        Rotation about axis d.
    related : bool
        Whether the ultrasound is made of the MR; otherwise of other texture.
    noise : float
        Standard deviation; the explained part has about 1.
    scale : float

    Returns
    -------
    prepared : Prepared
    truth : Tensor, (1, 3, D, H, W)
        Positions (d, h, w) in voxels.
    """
    moving = texture(1)
    everywhere = torch.ones_like(moving)
    truth = known_positions(shift, degrees, scale)
    explaining = sample(Lc2().encode_moving(moving if related else texture(2), everywhere), truth)
    speckle = noise * torch.randn(moving.shape, generator=torch.Generator().manual_seed(3))
    fixed = explaining[:, :1] + 0.5 * explaining[:, 1:] + speckle
    weight = torch.zeros_like(fixed)
    weight[(..., *[slice(MARGIN, SIZE - MARGIN)] * 3)] = 1
    return Prepared(Grid((SIZE,) * 3, np.eye(4)), Channel(fixed, weight), (Channel(moving, everywhere),)), truth


def error_voxel(displacement: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> float:
    """Mean length of the error of a displacement (1, 3, D, H, W) where the weight (1, 1, D, H, W) is not zero."""
    found = identity_positions((SIZE,) * 3) + displacement
    return float((found - truth).norm(dim=1, keepdim=True)[weight > 0].mean())
