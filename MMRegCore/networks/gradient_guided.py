"""Registration by images and by their gradient maps, adaptively fused (Xu et al. 2021, auxiliary gradient guidance)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.config.networks import GradientGuidedSettings
from MMRegCore.networks.blocks import Conv, doubled
from MMRegCore.networks.flow import cropped_to, halved, nearly_constant, padded_to, precise


class GradientGuided(nn.Module):
    """An image branch, a branch on gradient maps, and the fusion of their fields."""

    def __init__(self, settings: GradientGuidedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.image_branch = VoxelMorph(settings.encoder, settings.decoder, settings.refinement)
        self.gradient_branch: VoxelMorph | None = None
        if settings.fusion != "image":
            self.gradient_branch = VoxelMorph(settings.encoder, settings.decoder, settings.refinement)
        self.gate = GatedFusion() if settings.fusion == "gated" else None

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
        nearly_constant(self.gates.convolution)
        with torch.no_grad():
            self.bottleneck.weight.copy_(torch.eye(3).repeat(1, 2).reshape(3, 6, 1, 1, 1))
        if self.bottleneck.bias is not None:
            nn.init.zeros_(self.bottleneck.bias)

    def forward(self, by_image: torch.Tensor, by_gradient: torch.Tensor) -> torch.Tensor:
        """Two displacements (B, 3, D, H, W) to one."""
        both = torch.cat([by_image, by_gradient], dim=1)
        return precise(self.bottleneck(torch.sigmoid(self.gates(both)) * both))


class VoxelMorph(nn.Module):
    """A U-Net from two images to a displacement (Balakrishnan et al. 2019)."""

    def __init__(self, encoder: tuple[int, ...], decoder: tuple[int, ...], refinement: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList(Conv(a, b) for a, b in pairwise((2, *encoder)))
        # On the way up each convolution takes what came from below and what was there on the way down.
        below, beside = (encoder[-1], *decoder), (0, *encoder[-2::-1])
        self.up = nn.ModuleList(Conv(a + b, c) for a, b, c in zip(below, beside, decoder, strict=False))
        self.refine = nn.Sequential(*(Conv(a, b) for a, b in pairwise((decoder[-1] + 2, *refinement))))
        self.flow = Conv(refinement[-1], 3, active=False)
        nearly_constant(self.flow.convolution)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Two images (B, 1, D, H, W) to a displacement (B, 3, D, H, W) in voxels."""
        pair = torch.cat([fixed, moving], dim=1)
        volume = padded_to(pair, 2 ** len(self.down))
        beside = [volume]
        for convolution in self.down:
            beside.append(convolution(halved(beside[-1])))
        volume = self.up[0](beside[-1])
        for convolution, skipped in zip(self.up[1:], beside[-2:0:-1], strict=True):
            volume = convolution(torch.cat([doubled(volume), skipped], dim=1))
        # In the precision of the features, or all of them would take on that of the images.
        volume = doubled(volume)
        refined = self.refine(torch.cat([volume, beside[0].to(volume.dtype)], dim=1))
        return cropped_to(precise(self.flow(refined)), fixed.shape[2:])


def gradient_map(image: torch.Tensor) -> torch.Tensor:
    """Length of the central differences, Eq. 1: (B, 1, D, H, W) to the same; the edge is carried on outside."""
    squares = torch.zeros_like(image)
    for axis in (2, 3, 4):
        size = image.shape[axis]
        padding = [0] * 6
        padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = 1
        padded = F.pad(image, padding, mode="replicate")
        squares = squares + (padded.narrow(axis, 2, size) - padded.narrow(axis, 0, size)).square()
    # The root of nothing has no slope.
    return (squares + 1e-12).sqrt()
