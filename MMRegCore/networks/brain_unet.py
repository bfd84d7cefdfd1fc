"""A small U-Net that says how deep inside the brain, or how far outside of it, every voxel of an MR image lies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from MMRegCore.errors import InputError
from MMRegCore.networks.blocks import Conv, avg_pool2, crop_to, leaky_relu, pad_to_multiple, upsample2
from MMRegCore.networks.protocol import Network
from MMRegCore.settings import Settings, as_text, setting

# Of the images that it takes; its first features are made of blocks of 2³ of them.
SPACING_MM = 2.0
_LEVELS = 4


@dataclass(frozen=True)
class BrainUNetSettings(Settings):
    """A U-Net for brain extraction."""

    channels: tuple[int, ...] = setting(
        (16, 32, 64, 64), "Feature channels at 4, 8, 16 and 32 mm.", minimum=1, maximum=512
    )

    def check_together(self) -> None:
        """Raise `InputError` unless there are the four resolutions that the network has."""
        if len(self.channels) != _LEVELS:
            raise InputError(f"expected channels for four resolutions; got {as_text(self.channels)}")


class BrainUNet(Network):
    """Signed distance from the surface of the brain, negative inside, from an MR image of any contrast.

    A distance, not a class, so that the surface is found more finely than the voxels (Hoopes et al. 2022).  Blocks of
    2³ voxels are the channels of the first and the last convolution: at 4 mm they cost an eighth.
    """

    name = "brain-unet"
    settings_class = BrainUNetSettings
    settings: BrainUNetSettings

    def __init__(self, settings: BrainUNetSettings) -> None:
        super().__init__(settings)
        inputs = (8, *settings.channels)
        self.down = nn.ModuleList(_TwoConvs(*pair) for pair in pairwise(inputs))
        self.up = nn.ModuleList(_TwoConvs(here + below, here) for here, below in pairwise(settings.channels))
        self.distance = Conv(settings.channels[0], 8, active=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, D, H, W) in mm, of images of 2 mm in [0, 1] (`unit_range`)."""
        # The coarsest features are normalised over more than one voxel.
        multiple = 2**_LEVELS if min(images.shape[2:]) > 2**_LEVELS else 2 ** (_LEVELS + 1)
        features = _blocks(pad_to_multiple(images, multiple))
        skipped = []
        for level, convolutions in enumerate(self.down):
            features = convolutions(avg_pool2(features) if level else features)
            skipped.append(features)
        for skip, convolutions in zip(reversed(skipped[:-1]), reversed(self.up), strict=True):
            features = convolutions(torch.cat([skip, upsample2(features)], dim=1))
        return crop_to(_unblocked(self.distance(features)), images.shape[2:])


class _TwoConvs(nn.Sequential):
    """Two 3³ convolutions, each with its features normalised over the image: contrasts differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(_Normalised(inputs, outputs), _Normalised(outputs, outputs))


class _Normalised(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = Conv(inputs, outputs, active=False)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return leaky_relu(self.norm(self.convolution(volume)))


def _blocks(volume: torch.Tensor) -> torch.Tensor:
    """(B, 1, D, H, W) to (B, 8, D/2, H/2, W/2): blocks of 2³ voxels as channels."""
    split = volume.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    blocks: torch.Tensor = split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
    return blocks


def _unblocked(features: torch.Tensor) -> torch.Tensor:
    """The inverse of `_blocks`."""
    split = features.unflatten(1, (1, 2, 2, 2)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    volume: torch.Tensor = split.flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return volume


NETWORK = BrainUNet
