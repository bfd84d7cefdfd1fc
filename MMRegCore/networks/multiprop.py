"""MultiPropReg: multi-scale propagation on learned features (Liu et al. 2021, arXiv:2004.14557)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.config.networks import MultiPropSettings
from MMRegCore.networks.blocks import Conv, leaky
from MMRegCore.networks.flow import (
    affine_map,
    cropped_to,
    finer,
    halved,
    integrated,
    nearly_constant,
    padded_to,
    positions_of,
    precise,
    warp,
)

# e^±8 is as far from unit variance as a latent may go.
_LOG_VARIANCE = 8.0
# Convolutions of the affine network, every second one at half the resolution before it.
_AFFINE_CHANNELS = (8, 16, 16, 32, 32, 32, 32, 32, 32)


@dataclass(frozen=True, eq=False)
class Latent:
    """A feature's distribution, Eq. 10: independent normal values with these means and log variances (B, C, …)."""

    mean: torch.Tensor
    log_variance: torch.Tensor

    def sampled(self, strength: float) -> torch.Tensor:
        """The mean and ``strength`` standard deviations times a normal draw from torch's global stream."""
        if strength == 0:
            return self.mean
        return self.mean + strength * (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


@dataclass(frozen=True, eq=False)
class Scale:
    """What the network holds at one scale; vectors (B, 3, d, h, w) in voxels of that scale."""

    fixed: Latent
    moving: Latent
    velocity: torch.Tensor
    displacement: torch.Tensor


@dataclass(frozen=True, eq=False)
class Propagation:
    """The whole way of one pair.

    Attributes
    ----------
    displacement_voxel : Tensor, (B, 3, D, H, W)
        At full resolution, the affine part included.
    affine : Tensor, (B, 3, 4)
        As `affine_map` takes it; the identity without an affine network.
    moving : Tensor, (B, 1, D, H, W)
        The moving image after the affine part.
    scales : tuple of Scale
        Coarse to fine; the last one has half the resolution.  Without the affine part.
    """

    displacement_voxel: torch.Tensor
    affine: torch.Tensor
    moving: torch.Tensor
    scales: tuple[Scale, ...]


class MultiProp(nn.Module):
    """Features of both images at several scales; at each, matching (Eq. 4), regularisation (6), integration (7)."""

    def __init__(self, settings: MultiPropSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.features
        self.pyramid = nn.ModuleList(_Features(a, b) for a, b in pairwise((1, *widths)))
        self.matching = nn.ModuleList(_Matching(width, settings.matching) for width in widths)
        self.context = nn.ModuleList(_Context(settings.context) for _ in widths)
        self.affine = _AffineNetwork() if settings.affine else None

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """The displacement between two images in [0, 1].

        Parameters
        ----------
        fixed, moving : Tensor, (B, 1, D, H, W)

        Returns
        -------
        Tensor, (B, 3, D, H, W)
            Components (d, h, w) in voxels, pull convention.
        """
        return self.propagate(fixed, moving).displacement_voxel

    def propagate(self, fixed: torch.Tensor, moving: torch.Tensor, *, strength: float = 0.0) -> Propagation:
        """The same with all that lies between.

        Parameters
        ----------
        fixed, moving : Tensor, (B, 1, D, H, W)
        strength : float
            Standard deviations of the features' sampling: 0 takes their means, 1 samples as in training.
        """
        shape = tuple(fixed.shape[2:])
        affine = _identity(fixed) if self.affine is None else self.affine(fixed, moving)
        if self.affine is not None:
            positions = positions_of(moving)
            moving = warp(moving, affine_map(affine, positions) - positions)
        multiple = 2 ** len(self.pyramid)
        here = self._latents(padded_to(fixed, multiple), strength)
        there = self._latents(padded_to(moving, multiple), strength)
        scales: list[Scale] = []
        # From the coarsest scale on.
        for level in reversed(range(len(self.pyramid))):
            (fixed_latent, fixed_features), (moving_latent, moving_features) = here[level], there[level]
            velocity = fixed.new_zeros((len(fixed), 3, *fixed_features.shape[2:]))
            if scales:
                velocity = finer(scales[-1].velocity, velocity.shape[2:])
            velocity = velocity + self.matching[level](self._displacement(velocity), fixed_features, moving_features)
            velocity = velocity + self.context[level](velocity)
            scales.append(Scale(fixed_latent, moving_latent, velocity, self._displacement(velocity)))
        full = cropped_to(finer(scales[-1].displacement, [2 * n for n in scales[-1].displacement.shape[2:]]), shape)
        if self.affine is not None:
            positions = positions_of(full)
            full = affine_map(affine, positions + full) - positions
        return Propagation(full, affine, moving, tuple(scales))

    def _displacement(self, velocity: torch.Tensor) -> torch.Tensor:
        return integrated(velocity) if self.settings.diffeomorphic else velocity

    def _latents(self, image: torch.Tensor, strength: float) -> list[tuple[Latent, torch.Tensor]]:
        """Distribution and sample of the features of each scale, fine to coarse."""
        found = []
        features = image
        for part in self.pyramid:
            latent: Latent = part(features)
            features = latent.sampled(strength)
            found.append((latent, features))
        return found


class _Features(nn.Module):
    """Features at half the resolution: three convolutions, then mean and log variance."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(inputs, outputs), Conv(outputs, outputs))
        self.mean = Conv(outputs, outputs, active=False)
        self.log_variance = Conv(outputs, outputs, active=False)
        # Little noise at first: features must be worth something before the noise is learned.
        nearly_constant(self.log_variance.convolution, -7.0)

    def forward(self, volume: torch.Tensor) -> Latent:
        features = self.body(halved(volume))
        log_variance = precise(self.log_variance(features)).clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
        # Zero mean and unit variance over the image, as the prior has it; faint features would drown in their noise.
        return Latent(F.instance_norm(precise(self.mean(features))), log_variance)


class _Matching(nn.Module):
    """What is added to the velocity to match the features, Eqs. 4 and 5."""

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        chain = (2 * features + 4, *widths)
        self.body = nn.Sequential(*(Conv(a, b) for a, b in pairwise(chain)))
        self.flow = Conv(chain[-1], 3, active=False)
        nearly_constant(self.flow.convolution)

    def forward(self, displacement: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        warped = warp(moving, displacement)
        inputs = torch.cat([displacement, fixed, warped, matching_error(fixed, warped)], dim=1)
        return precise(self.flow(self.body(inputs)))


class _Context(nn.Module):
    """What is added to the velocity to make it agree with its neighbourhood, Eq. 6: dilated convolutions."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        chain = (3, *widths)
        self.body = nn.ModuleList(
            nn.Conv3d(a, b, 3, dilation=2**n, padding=2**n, padding_mode="replicate")
            for n, (a, b) in enumerate(pairwise(chain))
        )
        self.flow = Conv(chain[-1], 3, active=False)
        nearly_constant(self.flow.convolution)

    def forward(self, velocity: torch.Tensor) -> torch.Tensor:
        volume = velocity
        for convolution in self.body:
            volume = leaky(convolution(volume))
        return precise(self.flow(volume))


class _AffineNetwork(nn.Module):
    """Nine convolutions and a fully connected layer: 12 numbers, as in the paper's experiments on the liver."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(Conv(a, b) for a, b in pairwise((2, *_AFFINE_CHANNELS)))
        self.numbers = nn.Linear(_AFFINE_CHANNELS[-1], 12)
        nn.init.zeros_(self.numbers.weight)
        nn.init.zeros_(self.numbers.bias)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """(B, 3, 4), as `affine_map` takes it; the identity at first."""
        volume = torch.cat([fixed, moving], dim=1)
        for index, convolution in enumerate(self.body):
            if index % 2 == 0 and min(volume.shape[2:]) > 1:
                volume = F.avg_pool3d(precise(volume), 2, ceil_mode=True, count_include_pad=False)
            volume = convolution(volume)
        change = precise(self.numbers(volume.mean(dim=(2, 3, 4)))).reshape(-1, 3, 4)
        return _identity(fixed) + change


def matching_error(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """(B, 1, D, H, W): the L1 distance of two features (B, C, D, H, W), Eq. 5, as a mean over the channels."""
    error: torch.Tensor = (fixed - warped).abs().mean(dim=1, keepdim=True)
    return error


def _identity(like: torch.Tensor) -> torch.Tensor:
    return torch.eye(3, 4, dtype=like.dtype, device=like.device).expand(len(like), -1, -1)
