"""MASR-Net: structural descriptors from deep neighbourhood self-similarity (Mok et al. 2024, CVPR)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from MMRegCore.errors import InputError
from MMRegCore.networks.blocks import Conv, blur_pool, crop_to, two_convs, upsample2
from MMRegCore.networks.protocol import Network
from MMRegCore.networks.self_similarity import PAIRS, self_similarity
from MMRegCore.settings import Settings, as_text, setting

# Of volumes larger than this, what is within a stage is computed again in the backward pass instead of stored.
LARGE_VOXELS = 128**3
# Slices that are compared at once there, and how far the two convolutions behind the comparison look.
_SLAB, _HEAD_REACH = 24, 2


@dataclass(frozen=True)
class MasrNetSettings(Settings):
    """MASR-Net, the network that describes an image by its deep neighbourhood self-similarity (Mok et al. 2024)."""

    channels: tuple[int, ...] = setting(
        (8, 16, 32, 32), "Feature channels at full, half, quarter and eighth resolution.", minimum=1, maximum=512
    )
    descriptor: int = setting(24, "Channels of the descriptor.", minimum=1, maximum=256)
    dilation: int = setting(
        2, "Distance of the dilated neighbours; the direct ones are 1 away.", unit="voxel", minimum=2, maximum=8
    )

    def check_together(self) -> None:
        """Raise `InputError` unless there are the four resolutions that the network has."""
        if len(self.channels) != 4:
            raise InputError(f"expected channels for four resolutions; got {as_text(self.channels)}")


class MasrNet(Network):
    """Describe every voxel by the structure around it, whatever the contrast.

    An encoder and decoder of four resolutions makes features h; in each channel of h, the neighbours of a voxel are
    compared in pairs (`self_similarity`, Eq. 1); the comparisons are squeezed over the channels to 24 numbers, and two
    convolutions make the descriptor of them.  Nothing in it depends on the image as a whole, so that a part of an image
    gets the same descriptors as in the whole image, but for its border.
    """

    name = "masr-net"
    settings_class = MasrNetSettings
    settings: MasrNetSettings

    def __init__(self, settings: MasrNetSettings) -> None:
        super().__init__(settings)
        full, half, quarter, eighth = settings.channels
        self.encode_full = two_convs(1, full)
        self.encode_half = two_convs(full, half)
        self.encode_quarter = two_convs(half, quarter)
        self.encode_eighth = two_convs(quarter, eighth)
        self.decode_quarter = two_convs(eighth + quarter, quarter)
        self.decode_half = two_convs(quarter + half, half)
        self.decode_full = nn.Sequential(Conv(half + full, full), Conv(full, full, active=False))
        self.squeeze = nn.Linear(full, 1)
        pairs = 2 * len(PAIRS)
        self.head = nn.Sequential(Conv(pairs, pairs), Conv(pairs, settings.descriptor, active=False))

    @property
    def reach(self) -> int:
        """Voxels around a voxel that `describe` looks at, beyond what `coarse` holds; even."""
        return 2 + 2 + self.settings.dilation + 2 + 2 + self.settings.dilation % 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 24, D, H, W): descriptors, of which only the direction counts, of images (B, 1, D, H, W) in [0, 1]."""
        encoded = _checkpointed(self.encode_full, image)
        return self._from_features(encoded, self.coarse(_checkpointed(blur_pool, encoded)))

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, ⌈D/2⌉, …): the first features of an image at half resolution."""
        return blur_pool(self.encode_full(image))

    def coarse(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, C', d, h, w): decoded features at half resolution, from `pooled`; the rest looks at few voxels only."""
        half = self.encode_half(pooled)
        quarter = self.encode_quarter(blur_pool(half))
        eighth = self.encode_eighth(blur_pool(quarter))
        quarter = self.decode_quarter(_with_skip(eighth, quarter))
        decoded: torch.Tensor = self.decode_half(_with_skip(quarter, half))
        return decoded

    def features(self, encoded: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, C_h, D, H, W): the feature map h, whose neighbours are compared, from `encode_full` and `coarse`."""
        h: torch.Tensor = self.decode_full(_with_skip(coarse, encoded))
        return h

    def describe(self, image: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, 24, D, H, W): descriptors, from an image and its coarse features."""
        return self._from_features(self.encode_full(image), coarse)

    def _from_features(self, encoded: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Descriptors, from the first features of an image and its coarse ones."""
        h = _checkpointed(self.features, encoded, coarse)
        if not _is_large(h):
            return self._compare_neighbours(h)
        # Slab by slab, each with as much around it as it looks at: nothing within a slab is stored either.
        depth, margin, slabs = h.shape[2], self.settings.dilation + _HEAD_REACH, []
        for start in range(0, depth, _SLAB):
            low, high = max(start - margin, 0), min(start + _SLAB + margin, depth)
            slab = checkpoint(self._compare_neighbours, h[:, :, low:high], use_reentrant=False)
            slabs.append(slab[:, :, start - low : start - low + _SLAB])
        return torch.cat(slabs, dim=2)

    def _compare_neighbours(self, h: torch.Tensor) -> torch.Tensor:
        """Descriptors of features h (B, C_h, D, H, W)."""
        similarities = torch.cat(
            [
                # In the precision of the convolutions: autocast would pad, and move, twice the bytes.
                self_similarity(h, dilation, self.squeeze.weight[0], self.squeeze.bias).to(h.dtype)
                for dilation in (1, self.settings.dilation)
            ],
            dim=1,
        )
        if h.is_contiguous(memory_format=torch.channels_last_3d):
            similarities = similarities.contiguous(memory_format=torch.channels_last_3d)
        descriptors: torch.Tensor = self.head(similarities)
        return descriptors


def _is_large(volume: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and volume[:, 0].numel() > LARGE_VOXELS


def _checkpointed(stage: Callable[..., torch.Tensor], volume: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    """One stage of the network; of large volumes it stores nothing for the backward pass, and is computed again."""
    if not _is_large(volume):
        return stage(volume, *rest)
    result: torch.Tensor = checkpoint(stage, volume, *rest, use_reentrant=False)
    return result


def _with_skip(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Upsampled features beside those of the finer level (skip connection)."""
    return torch.cat([crop_to(upsample2(coarse), fine.shape[2:]), fine], dim=1)


NETWORK = MasrNet
