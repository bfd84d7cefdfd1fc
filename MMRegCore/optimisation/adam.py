"""Adam on one tensor, and what it makes small: the distance of descriptors under a displacement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.ops import identity_positions, sample
from MMRegCore.ops.sampling import Padding


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
class DescriptorDistance:
    """Weighted mean of |F(x) − M(x + u(x))|², summed over the channels, over the N voxels that have a weight."""

    fixed: torch.Tensor  # (1, C, N, 1, 1)
    moving: torch.Tensor  # (1, C, D, H, W)
    share: torch.Tensor  # (N,): the weights, adding up to 1
    voxels: torch.Tensor  # (N,): flat indices
    positions: torch.Tensor  # (1, 3, N, 1, 1)
    unit: bool  # whether only the direction of descriptors counts

    @classmethod
    def of(
        cls, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor, *, unit: bool = False
    ) -> DescriptorDistance:
        """From descriptors (1, C, D, H, W) and a weight (1, 1, D, H, W) on one grid."""
        voxels = weight.flatten().nonzero()[:, 0]
        share = weight.flatten()[voxels]
        positions = identity_positions(fixed.shape[2:], fixed.device).flatten(2)[..., voxels, None, None]
        values = fixed.flatten(2)[..., voxels, None, None]
        values = F.normalize(values, dim=1) if unit else values
        return cls(values, moving, share / share.sum().clamp(min=1e-12), voxels, positions, unit)

    def __call__(self, displacement_voxel: torch.Tensor, padding_mode: Padding = "border") -> torch.Tensor:
        """Scalar: the distance under a displacement (1, 3, D, H, W)."""
        there = self.positions + displacement_voxel.flatten(2)[..., self.voxels, None, None]
        warped = sample(self.moving, there, padding_mode=padding_mode)
        warped = F.normalize(warped, dim=1) if self.unit else warped
        return ((warped - self.fixed).square().sum(dim=1).flatten() * self.share).sum()
