"""LapIRN: registration on a Laplacian pyramid, coarse to fine (Mok and Chung 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.networks.blocks import (
    Conv,
    avg_pool2,
    crop_to,
    init_small,
    leaky_relu,
    pad_to_multiple,
    to_float32,
    two_convs,
)
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.protocol import RegistrationNetwork, RegistrationNetworkSettings
from MMRegCore.ops import integrate_velocity, upsample_field, warp
from MMRegCore.settings import setting

LEVELS = 3


@dataclass(frozen=True)
class LapIrnSettings(RegistrationNetworkSettings):
    """LapIRN, registration on a Laplacian pyramid of three levels (Mok and Chung 2020, arXiv:2006.16148)."""

    start_channels: int = setting(7, "Channels; most convolutions have four times as many.", minimum=1, maximum=64)
    residual_blocks: int = setting(5, "Residual blocks of each level.", minimum=1, maximum=20)
    range_flow: float = setting(
        0.4, "Largest component of a level's field, in halves of the image's size.", minimum=0.01, maximum=2
    )
    diffeomorphic: bool = setting(False, "Whether the fields are velocities, which are integrated.")
    inputs: Literal["images", "descriptors"] = setting(
        "images",
        "Input of the levels; 'descriptors' are those of MASR-Net at the resolution of the images, and the field "
        "is found at half of it.",
    )
    descriptor_network: MasrNetSettings = MasrNetSettings()


class LevelField(NamedTuple):
    """Output of one level; vectors (B, 3, d, h, w) in voxels of that level."""

    flow: torch.Tensor  # displacement, or the velocity where the network is diffeomorphic: what is regularised
    displacement: torch.Tensor
    features: torch.Tensor  # (B, C, d, h, w): for the next level


class LapIrn(RegistrationNetwork):
    """Three levels at a quarter, half and full resolution; each corrects the field of the one below.

    Their input is the images, or descriptors of them at half the resolution by a MASR-Net that is part of the network
    and is not trained with it.
    """

    name = "lapirn"
    settings_class = LapIrnSettings
    settings: LapIrnSettings

    def __init__(self, settings: LapIrnSettings) -> None:
        super().__init__(settings)
        self.descriptor_network: MasrNet | None = None
        inputs = 2
        if settings.inputs == "descriptors":
            self.descriptor_network = MasrNet(settings.descriptor_network).requires_grad_(False)
            inputs = 2 * settings.descriptor_network.descriptor
        # All but the coarsest also take the field from below.
        self.levels = nn.ModuleList(_Level(n, settings) for n in (inputs, *([inputs + 3] * (LEVELS - 1))))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images as they are, or descriptors (B, C, ⌈D/2⌉, …) of them: means over 2³ voxels of unit vectors."""
        if self.descriptor_network is None:
            return images
        with torch.no_grad():
            found = (self.descriptor_network(unit_range(image)) for image in images.split(1))
            return torch.cat([avg_pool2(pad_to_multiple(F.normalize(to_float32(one), dim=1), 2)) for one in found])

    def predict(self, fixed: torch.Tensor, moving: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """(B, 3, D, H, W): the displacement in voxels between two encoded images, at the images' ``shape``."""
        displacement = self.at_full_resolution(self.fields(fixed, moving), fixed.shape[2:])
        return displacement if self.descriptor_network is None else upsample_field(displacement, shape)

    def fields(self, fixed: torch.Tensor, moving: torch.Tensor, levels: int = LEVELS) -> list[LevelField]:
        """The fields of the first ``levels`` levels, coarse to fine, for inputs padded to multiples of 8."""
        pyramid = [(pad_to_multiple(fixed, 2**LEVELS), pad_to_multiple(moving, 2**LEVELS))]
        for _ in range(LEVELS - 1):
            pyramid.insert(0, (avg_pool2(pyramid[0][0]), avg_pool2(pyramid[0][1])))
        fields: list[LevelField] = []
        for level, pair in zip(list(self.levels)[:levels], pyramid[:levels], strict=True):
            fields.append(self._corrected(level, *pair, fields[-1] if fields else None))
        return fields

    def at_full_resolution(self, fields: list[LevelField], shape: Sequence[int]) -> torch.Tensor:
        """The displacement of the finest of some levels, at the ``shape`` of the encoded images."""
        displacement = fields[-1].displacement
        for _ in range(LEVELS - len(fields)):
            displacement = upsample_field(displacement, [2 * n for n in displacement.shape[2:]])
        return crop_to(displacement, shape)

    def _corrected(
        self, level: nn.Module, fixed: torch.Tensor, moving: torch.Tensor, below: LevelField | None
    ) -> LevelField:
        """The field of a level: that of the level below, corrected by what remains between the images."""
        if below is None:
            flow, features = level(torch.cat([fixed, moving], dim=1), None)
        else:
            coarse = upsample_field(below.flow, fixed.shape[2:])
            warped = warp(moving, self._displacement(coarse))
            change, features = level(torch.cat([fixed, warped, coarse], dim=1), below.features)
            flow = coarse + change
        return LevelField(flow, self._displacement(flow), features)

    def _displacement(self, flow: torch.Tensor) -> torch.Tensor:
        return integrate_velocity(flow) if self.settings.diffeomorphic else flow


class _Level(nn.Module):
    """A U-Net of one step down: two convolutions, residual blocks at half the resolution, two convolutions, a field."""

    def __init__(self, inputs: int, settings: LapIrnSettings) -> None:
        super().__init__()
        channels = 4 * settings.start_channels
        self.encoder = two_convs(inputs, channels)
        self.down = Conv(channels, channels)
        self.blocks = nn.ModuleList(_Residual(channels) for _ in range(settings.residual_blocks))
        self.up = nn.ConvTranspose3d(channels, channels, 2, stride=2)
        self.decoder = nn.Sequential(Conv(2 * channels, channels), Conv(channels, channels // 2))
        self.flow = Conv(channels // 2, 3, active=False)
        init_small(self.flow.convolution)
        self._range = settings.range_flow

    def forward(self, inputs: torch.Tensor, below: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Field (B, 3, …) in voxels and features (B, C, …), from images and the features of the level below."""
        skipped = self.encoder(inputs)
        volume = self.down(avg_pool2(skipped))
        if below is not None:
            volume = volume + below
        for block in self.blocks:
            volume = block(volume)
        features = leaky_relu(self.up(volume))
        field = F.softsign(to_float32(self.flow(self.decoder(torch.cat([features, skipped], dim=1)))))
        largest = [self._range * (n - 1) / 2 for n in field.shape[2:]]
        scale = torch.tensor(largest, dtype=field.dtype, device=field.device).reshape(1, 3, 1, 1, 1)
        return field * scale, features


class _Residual(nn.Module):
    """A residual block of two convolutions, with activation before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels, channels, active=False)
        self.second = Conv(channels, channels, active=False)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.second(leaky_relu(self.first(leaky_relu(volume))))
        return volume + change


NETWORK = LapIrn
