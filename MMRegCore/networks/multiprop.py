"""MultiPropReg: multi-scale propagation on learned features (Liu et al. 2021, arXiv:2004.14557)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.errors import InputError
from MMRegCore.networks.blocks import (
    Conv,
    affine_map,
    avg_pool2,
    init_small,
    leaky_relu,
    pad_to_multiple,
    to_float32,
    two_convs,
)
from MMRegCore.networks.protocol import RegistrationNetwork, RegistrationNetworkSettings
from MMRegCore.ops import avg_pool, identity_positions, integrate_velocity, upsample_field, warp
from MMRegCore.settings import as_text, setting

# e^±8 is as far from unit variance as a latent may go.
_LOG_VARIANCE = 8.0
# Convolutions of the affine network, every second one at half the resolution before it.
_AFFINE_CHANNELS = (8, 16, 16, 32, 32, 32, 32, 32, 32)


@dataclass(frozen=True)
class MultiPropSettings(RegistrationNetworkSettings):
    """MultiPropReg, multi-scale propagation on learned features (Liu et al. 2021, arXiv:2004.14557)."""

    features: tuple[int, ...] = setting(
        (8, 16, 16), "Feature channels at half, quarter … resolution: 2, 3 or 4 scales.", minimum=1, maximum=256
    )
    matching: tuple[int, ...] = setting((48, 32, 16), "Channels of the matching convolutions.", minimum=1, maximum=256)
    context: tuple[int, ...] = setting(
        (48, 48, 32),
        "Channels of the convolutions that regularise; each dilation is twice the one before.",
        minimum=1,
        maximum=256,
    )
    diffeomorphic: bool = setting(True, "Whether velocities are integrated, or taken for displacements.")
    affine: bool = setting(False, "Whether a network for the affine part comes first.")

    def check_together(self) -> None:
        """Raise `InputError` unless there are 2 to 4 scales."""
        if not 2 <= len(self.features) <= 4:
            raise InputError(f"expected features for 2, 3 or 4 scales; got {as_text(self.features)}")


@dataclass(frozen=True, eq=False)
class Latent:
    """A feature's distribution, Eq. 10: independent normal values with these means and log variances (B, C, …)."""

    mean: torch.Tensor
    log_variance: torch.Tensor

    def sample(self, strength: float) -> torch.Tensor:
        """The mean and ``strength`` standard deviations times a normal draw from torch's global stream."""
        if strength == 0:
            return self.mean
        return self.mean + strength * (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


@dataclass(frozen=True, eq=False)
class Scale:
    """What the network computes at one scale: latents of fixed and moving; (B, 3, d, h, w) in voxels of that scale."""

    latents: tuple[Latent, Latent]
    velocity: torch.Tensor
    displacement: torch.Tensor


@dataclass(frozen=True, eq=False)
class Propagation:
    """What the network computes for a pair."""

    displacement_voxel: torch.Tensor  # (B, 3, D, H, W): at full resolution, the affine part included
    moving: torch.Tensor  # (B, 1, D, H, W): the moving image after the affine part
    scales: tuple[Scale, ...]  # coarse to fine; the last one has half the resolution; without the affine part


class MultiProp(RegistrationNetwork):
    """Features of both images at several scales; at each, matching (Eq. 4), regularisation (6), integration (7)."""

    name = "multiprop"
    settings_class = MultiPropSettings
    settings: MultiPropSettings

    def __init__(self, settings: MultiPropSettings) -> None:
        super().__init__(settings)
        widths = settings.features
        self.pyramid = nn.ModuleList(_Features(a, b) for a, b in pairwise((1, *widths)))
        self.matching = nn.ModuleList(_Matching(width, settings.matching) for width in widths)
        self.context = nn.ModuleList(_Context(settings.context) for _ in widths)
        self.affine = _AffineNetwork() if settings.affine else None

    def predict(self, fixed: torch.Tensor, moving: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """(B, 3, D, H, W): the displacement in voxels, with the means of the features."""
        return self.propagate(fixed, moving).displacement_voxel

    def propagate(self, fixed: torch.Tensor, moving: torch.Tensor, *, strength: float = 0.0) -> Propagation:
        """Register images (B, 1, D, H, W), and give the results of each scale.

        Features are sampled by ``strength`` standard deviations: 0 takes their means, 1 samples as in training.
        """
        positions = identity_positions(fixed.shape[2:], fixed.device, fixed.dtype)
        affine = None if self.affine is None else self.affine(fixed, moving)
        if affine is not None:
            moving = warp(moving, affine_map(affine, positions) - positions)
        pyramids = [self._latents(image, strength) for image in (fixed, moving)]
        scales: list[Scale] = []
        # From the coarsest scale on.
        for level in reversed(range(len(self.pyramid))):
            (fixed_latent, fixed_features), (moving_latent, moving_features) = (part[level] for part in pyramids)
            velocity = fixed.new_zeros((len(fixed), 3, *fixed_features.shape[2:]))
            if scales:
                velocity = upsample_field(scales[-1].velocity, velocity.shape[2:])
            velocity = velocity + self.matching[level](self._displacement(velocity), fixed_features, moving_features)
            velocity = velocity + self.context[level](velocity)
            scales.append(Scale((fixed_latent, moving_latent), velocity, self._displacement(velocity)))
        displacement = upsample_field(scales[-1].displacement, fixed.shape[2:])
        if affine is not None:
            displacement = affine_map(affine, positions + displacement) - positions
        return Propagation(displacement, moving, tuple(scales))

    def _displacement(self, velocity: torch.Tensor) -> torch.Tensor:
        return integrate_velocity(velocity) if self.settings.diffeomorphic else velocity

    def _latents(self, image: torch.Tensor, strength: float) -> list[tuple[Latent, torch.Tensor]]:
        """Distribution and sample of the features of each scale, fine to coarse."""
        found = []
        features = pad_to_multiple(image, 2 ** len(self.pyramid))
        for part in self.pyramid:
            latent: Latent = part(features)
            features = latent.sample(strength)
            found.append((latent, features))
        return found


class _Features(nn.Module):
    """Features at half the resolution: three convolutions, then mean and log variance."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = two_convs(inputs, outputs)
        self.mean = Conv(outputs, outputs, active=False)
        self.log_variance = Conv(outputs, outputs, active=False)
        # Little noise at first: features must be worth something before the noise is learned.
        init_small(self.log_variance.convolution, -7.0)

    def forward(self, volume: torch.Tensor) -> Latent:
        features = self.body(avg_pool2(volume))
        log_variance = to_float32(self.log_variance(features)).clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
        # Zero mean and unit variance over the image, as the prior has it; faint features would drown in their noise.
        return Latent(F.instance_norm(to_float32(self.mean(features))), log_variance)


class _Matching(nn.Module):
    """What is added to the velocity to match the features, Eqs. 4 and 5."""

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        chain = (2 * features + 4, *widths)
        self.body = nn.Sequential(*(Conv(a, b) for a, b in pairwise(chain)))
        self.flow = Conv(chain[-1], 3, active=False)
        init_small(self.flow.convolution)

    def forward(self, displacement: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        warped = warp(moving, displacement)
        inputs = torch.cat([displacement, fixed, warped, matching_error(fixed, warped)], dim=1)
        return to_float32(self.flow(self.body(inputs)))


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
        init_small(self.flow.convolution)

    def forward(self, velocity: torch.Tensor) -> torch.Tensor:
        volume = velocity
        for convolution in self.body:
            volume = leaky_relu(convolution(volume))
        return to_float32(self.flow(volume))


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
                volume = avg_pool(to_float32(volume), 2)
            volume = convolution(volume)
        change = to_float32(self.numbers(volume.mean(dim=(2, 3, 4)))).reshape(-1, 3, 4)
        return change + torch.eye(3, 4, dtype=change.dtype, device=change.device)


def matching_error(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """(B, 1, D, H, W): the L1 distance of two features (B, C, D, H, W), Eq. 5, as a mean over the channels."""
    error: torch.Tensor = (fixed - warped).abs().mean(dim=1, keepdim=True)
    return error


NETWORK = MultiProp
