"""Registration by images and by their gradient maps, adaptively fused (Xu et al. 2021, auxiliary gradient guidance)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.errors import InputError
from MMRegCore.networks.blocks import Conv, avg_pool2, crop_to, init_small, pad_to_multiple, to_float32, upsample2
from MMRegCore.networks.protocol import RegistrationNetwork, RegistrationNetworkSettings
from MMRegCore.settings import as_text, setting


@dataclass(frozen=True)
class GradientGuidedSettings(RegistrationNetworkSettings):
    """Two VoxelMorph branches, on images and on their gradient maps, and how their displacements are fused."""

    fusion: Literal["gated", "average", "image"] = setting(
        "gated", "'image' has no gradient branch; it is there for comparison."
    )
    encoder: tuple[int, ...] = setting(
        (16, 32, 32, 32), "Channels of the convolutions of a branch on the way down.", minimum=1, maximum=256
    )
    decoder: tuple[int, ...] = setting(
        (32, 32, 32, 32), "Channels of its convolutions on the way up.", minimum=1, maximum=256
    )
    refinement: tuple[int, ...] = setting(
        (8, 8, 8), "Channels of those at full resolution, before the displacement.", minimum=1, maximum=256
    )

    def check_together(self) -> None:
        """Raise `InputError` unless there are as many steps up as down."""
        if len(self.encoder) != len(self.decoder):
            raise InputError(
                f"expected as many decoder as encoder convolutions; got {as_text(self.decoder)} for "
                f"{as_text(self.encoder)}"
            )


class GradientGuided(RegistrationNetwork):
    """An image branch, a branch on gradient maps, and the fusion of their displacements."""

    name = "gradient-guided"
    settings_class = GradientGuidedSettings

    def __init__(self, settings: GradientGuidedSettings) -> None:
        super().__init__(settings)
        self.image_branch = VoxelMorph(settings)
        self.gradient_branch = VoxelMorph(settings) if settings.fusion != "image" else None
        self.gate = GatedFusion() if settings.fusion == "gated" else None

    def predict(self, fixed: torch.Tensor, moving: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """(B, 3, D, H, W): the fused displacement in voxels."""
        return self.fields(fixed, moving)[0]

    def fields(self, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The fused displacement, and that of the gradient branch where there is one."""
        by_image = self.image_branch(fixed, moving)
        if self.gradient_branch is None:
            return by_image, None
        by_gradient = self.gradient_branch(gradient_map(fixed), gradient_map(moving))
        if self.gate is None:
            return 0.5 * (by_image + by_gradient), by_gradient
        return self.gate(by_image, by_gradient), by_gradient


class GatedFusion(nn.Module):
    """Weights for every component of both fields from a convolution of both, then a 1³ convolution (paper, Fig. 2b)."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = Conv(6, 6, active=False)
        self.bottleneck = nn.Conv3d(6, 3, 1)
        # At first the mean of both: gates half open, fields added.
        init_small(self.gates.convolution)
        with torch.no_grad():
            self.bottleneck.weight.copy_(torch.eye(3).repeat(1, 2).reshape(3, 6, 1, 1, 1))
        if self.bottleneck.bias is not None:
            nn.init.zeros_(self.bottleneck.bias)

    def forward(self, by_image: torch.Tensor, by_gradient: torch.Tensor) -> torch.Tensor:
        """Two displacements (B, 3, D, H, W) to one."""
        both = torch.cat([by_image, by_gradient], dim=1)
        return to_float32(self.bottleneck(torch.sigmoid(self.gates(both)) * both))


class VoxelMorph(nn.Module):
    """A U-Net from two images to a displacement (Balakrishnan et al. 2019)."""

    def __init__(self, settings: GradientGuidedSettings) -> None:
        super().__init__()
        encoder, decoder, refinement = settings.encoder, settings.decoder, settings.refinement
        self.down = nn.ModuleList(Conv(a, b) for a, b in pairwise((2, *encoder)))
        # On the way up each convolution takes the level below and the skip connection of its own level.
        below, skipped = (encoder[-1], *decoder), (0, *encoder[-2::-1])
        self.up = nn.ModuleList(Conv(a + b, c) for a, b, c in zip(below, skipped, decoder, strict=False))
        self.refine = nn.Sequential(*(Conv(a, b) for a, b in pairwise((decoder[-1] + 2, *refinement))))
        self.flow = Conv(refinement[-1], 3, active=False)
        init_small(self.flow.convolution)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Two images (B, 1, D, H, W) to a displacement (B, 3, D, H, W) in voxels."""
        levels = [pad_to_multiple(torch.cat([fixed, moving], dim=1), 2 ** len(self.down))]
        for convolution in self.down:
            levels.append(convolution(avg_pool2(levels[-1])))
        volume = self.up[0](levels[-1])
        for convolution, skipped in zip(self.up[1:], levels[-2:0:-1], strict=True):
            volume = convolution(torch.cat([upsample2(volume), skipped], dim=1))
        # In the precision of the features, or all of them would take on that of the images.
        volume = upsample2(volume)
        refined = self.refine(torch.cat([volume, levels[0].to(volume.dtype)], dim=1))
        return crop_to(to_float32(self.flow(refined)), fixed.shape[2:])


def gradient_map(image: torch.Tensor) -> torch.Tensor:
    """Length of the central differences over two voxels, Eq. 1, of (B, 1, D, H, W); replicate padding outside."""
    padded = F.pad(image, (1,) * 6, mode="replicate")
    squares = torch.zeros_like(padded)
    for axis in (2, 3, 4):
        squares = squares + (padded.roll(-1, axis) - padded.roll(1, axis)).square()
    # The root of nothing has no slope.
    return (squares[..., 1:-1, 1:-1, 1:-1] + 1e-12).sqrt()


NETWORK = GradientGuided
