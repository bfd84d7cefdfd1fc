"""LapIRN: registration on a Laplacian pyramid, coarse to fine (Mok and Chung 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.config.networks import LapIrnSettings
from MMRegCore.networks.blocks import Conv, leaky
from MMRegCore.networks.flow import cropped_to, finer, halved, integrated, nearly_constant, padded_to, precise, warp
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet

LEVELS = 3


@dataclass(frozen=True, eq=False)
class LevelField:
    """What one level comes to; vectors (B, 3, d, h, w) in voxels of that level.

    Attributes
    ----------
    flow : Tensor
        Displacement, or the velocity where the form is diffeomorphic; what the level is regularised by.
    displacement : Tensor
    """

    flow: torch.Tensor
    displacement: torch.Tensor


class LapIrn(nn.Module):
    """Three levels at a quarter, half and full resolution; each corrects the field of the one below.

    They see the images, or descriptors of them at half the resolution, made by a MASR-Net that is part of the network
    and does not learn with it.
    """

    def __init__(self, settings: LapIrnSettings) -> None:
        super().__init__()
        self.settings = settings
        self.describer: MasrNet | None = None
        inputs = 2
        if settings.inputs == "descriptors":
            self.describer = MasrNet(settings.describer).requires_grad_(False)
            inputs = 2 * settings.describer.descriptor
        channels = 4 * settings.start_channels
        # The coarsest sees both sides; the others see the field from below too.
        self.levels = nn.ModuleList(_Level(n, channels, settings) for n in (inputs, *([inputs + 3] * (LEVELS - 1))))

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
        return self.between(self.seen(fixed), self.seen(moving), fixed.shape[2:])

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """What the levels see of images (B, 1, D, H, W): themselves, or what is described of them."""
        return images if self.describer is None else self.described(images)

    def between(self, fixed: torch.Tensor, moving: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The displacement between what is seen of two images, at the images' ``shape`` (D, H, W)."""
        displacement = self.at_full_resolution(self.fields(fixed, moving), fixed)
        return displacement if self.describer is None else finer(displacement, shape)

    @torch.no_grad()
    def described(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, ⌈D/2⌉, …): descriptors of images (B, 1, D, H, W) at half their resolution; means of unit vectors."""
        if self.describer is None:
            raise TypeError("expected a network whose inputs are descriptors; got one that sees images")
        found = []
        for image in images.split(1):
            unit = F.normalize(precise(self.describer(unit_range(image))), dim=1)
            found.append(halved(padded_to(unit, 2)))
        return torch.cat(found)

    def fields(self, fixed: torch.Tensor, moving: torch.Tensor, levels: int = LEVELS) -> list[LevelField]:
        """The fields of the first ``levels`` levels, coarse to fine, on what they see padded to multiples of 8."""
        pyramid = [(padded_to(fixed, 2**LEVELS), padded_to(moving, 2**LEVELS))]
        for _ in range(LEVELS - 1):
            pyramid.insert(0, (halved(pyramid[0][0]), halved(pyramid[0][1])))
        found: list[LevelField] = []
        below: torch.Tensor | None = None
        for level, (here, there) in zip(list(self.levels)[:levels], pyramid[:levels], strict=True):
            flow, below = self._corrected(level, here, there, found[-1] if found else None, below)
            found.append(LevelField(flow, self._displacement(flow)))
        return found

    def at_full_resolution(self, fields: list[LevelField], image: torch.Tensor) -> torch.Tensor:
        """The displacement of the finest of some levels, brought to the size of an image (B, 1, D, H, W)."""
        displacement = fields[-1].displacement
        for _ in range(LEVELS - len(fields)):
            displacement = finer(displacement, [2 * n for n in displacement.shape[2:]])
        return cropped_to(displacement, image.shape[2:])

    def _corrected(
        self,
        level: nn.Module,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        lower: LevelField | None,
        below: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if lower is None:
            change, features = level(torch.cat([fixed, moving], dim=1), None)
            return change, features
        flow = finer(lower.flow, fixed.shape[2:])
        warped = warp(moving, self._displacement(flow))
        change, features = level(torch.cat([fixed, warped, flow], dim=1), below)
        return flow + change, features

    def _displacement(self, flow: torch.Tensor) -> torch.Tensor:
        return integrated(flow) if self.settings.diffeomorphic else flow


class _Level(nn.Module):
    """Two convolutions, residual blocks at half the resolution, back up beside what was there, and a field."""

    def __init__(self, inputs: int, channels: int, settings: LapIrnSettings) -> None:
        super().__init__()
        self.encoder = nn.Sequential(Conv(inputs, channels), Conv(channels, channels))
        self.down = Conv(channels, channels)
        self.blocks = nn.ModuleList(_Residual(channels) for _ in range(settings.residual_blocks))
        self.up = nn.ConvTranspose3d(channels, channels, 2, stride=2)
        self.decoder = nn.Sequential(Conv(2 * channels, channels), Conv(channels, channels // 2))
        self.flow = Conv(channels // 2, 3, active=False)
        nearly_constant(self.flow.convolution)
        self._range = settings.range_flow

    def forward(self, inputs: torch.Tensor, below: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Field (B, 3, …) in voxels and features (B, C, …), from images and the features of the level below."""
        beside = self.encoder(inputs)
        volume = self.down(halved(beside))
        if below is not None:
            volume = volume + below
        for block in self.blocks:
            volume = block(volume)
        features = leaky(self.up(volume))
        field = F.softsign(precise(self.flow(self.decoder(torch.cat([features, beside], dim=1)))))
        reach = [self._range * (n - 1) / 2 for n in field.shape[2:]]
        scale = torch.tensor(reach, dtype=field.dtype, device=field.device).reshape(1, 3, 1, 1, 1)
        return field * scale, features


class _Residual(nn.Module):
    """Two convolutions that change what passes by them; activation before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels, channels, active=False)
        self.second = Conv(channels, channels, active=False)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.second(leaky(self.first(leaky(volume))))
        return volume + change
