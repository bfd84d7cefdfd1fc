"""What displacement and velocity fields are like, and how they are carried from one resolution to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from MMRegCore.ops.sampling import warp

# Of a positive float that is not denormal.
_SMALLEST = 1e-37
SQUARINGS = 7


def diffusion_energy(field: torch.Tensor) -> torch.Tensor:
    """Scalar: the mean squared forward difference of a field (B, C, D, H, W), summed over the three axes."""
    return sum(
        (torch.diff(field, dim=axis).square().mean() for axis in (2, 3, 4) if field.shape[axis] > 1),
        start=field.new_zeros(()),
    )


def jacobian_determinant(
    displacement_voxel: torch.Tensor, differences: Literal["central", "forward"] = "central"
) -> torch.Tensor:
    """Local volume change of ``x -> x + u(x)``; 1 keeps the volume, 0 or less folds.

    Parameters
    ----------
    displacement_voxel : Tensor, (B, 3, D, H, W)
    differences : {'central', 'forward'}
        'central': one-sided at the border, an axis of one voxel counts as constant; 'forward': each axis loses a
        voxel.

    Returns
    -------
    Tensor, (B, D, H, W) or (B, D-1, H-1, W-1)
    """
    if differences == "central":
        columns = [_central(displacement_voxel, axis) for axis in (2, 3, 4)]
    else:
        d, h, w = (n - 1 for n in displacement_voxel.shape[2:])
        columns = [torch.diff(displacement_voxel, dim=axis)[..., :d, :h, :w] for axis in (2, 3, 4)]
    # Rows: component; columns: axis of the derivative.
    (a, b, c), (d_, e, f), (g, h_, i) = (
        tuple(columns[axis][:, row] + (1.0 if axis == row else 0.0) for axis in range(3)) for row in range(3)
    )
    determinant: torch.Tensor = a * (e * i - f * h_) - b * (d_ * i - f * g) + c * (d_ * h_ - e * g)
    return determinant


def gradient_magnitude(image: torch.Tensor) -> torch.Tensor:
    """Length of the central differences of (B, C, D, H, W), one-sided at the border; per voxel, not per mm."""
    squares = torch.zeros_like(image)
    for axis in (2, 3, 4):
        if image.shape[axis] > 1:
            squares = torch.addcmul(squares, *[_central(image, axis)] * 2)
    # The root has no gradient at zero: flat regions get none.
    return squares.clamp(min=_SMALLEST).sqrt() * (squares > 0)


def integrate_velocity(velocity: torch.Tensor, squarings: int = SQUARINGS) -> torch.Tensor:
    """The displacement of the flow along a stationary velocity for unit time, by scaling and squaring (Arsigny 2006).

    Parameters
    ----------
    velocity : Tensor, (B, 3, D, H, W)
        Voxels per unit time.
    squarings : int
        The velocity is divided by 2 to this power, then composed with itself as often.
    """
    displacement: torch.Tensor = velocity / 2**squarings
    for _ in range(squarings):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def upsample_field(field: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A displacement or velocity (B, 3, d, h, w) at twice the resolution, in voxels of it, cut to ``shape``."""
    fine: torch.Tensor = 2 * F.interpolate(field, scale_factor=2, mode="trilinear", align_corners=False)
    return fine[..., : shape[0], : shape[1], : shape[2]]


def _central(volume: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.gradient(volume, dim=axis)[0] if volume.shape[axis] > 1 else torch.zeros_like(volume)
