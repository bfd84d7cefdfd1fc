"""MASR-Net: structural descriptors from deep neighbourhood self-similarity (Mok et al. 2024, CVPR)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from MMRegCore.config.networks import MasrNetSettings
from MMRegCore.networks.blocks import Conv, blur_pool, two_convs, upsampled
from MMRegCore.networks.self_similarity import PAIRS, self_similarity

# Of volumes larger than this a training keeps little: what is within a stage is computed again on the way back.
LARGE_VOXELS = 128**3
# Slices that are compared at once there, and how far the two convolutions behind the comparison look.
_SLAB, _HEAD_REACH = 24, 2


class MasrNet(nn.Module):
    """Describe every voxel by the structure around it, whatever the contrast.

    An encoder and decoder of four resolutions makes features h; in each channel of h, the neighbours of a voxel are
    compared in pairs (`self_similarity`, Eq. 1); the comparisons are squeezed over the channels to 24 numbers, and two
    convolutions make the descriptor of them.  Nothing in it depends on the image as a whole, so that a part of an image
    gets the same descriptors as in the whole image, but for its border.

    Parameters
    ----------
    settings : MasrNetSettings
    """

    def __init__(self, settings: MasrNetSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or MasrNetSettings()
        full, half, quarter, eighth = self.settings.channels
        self.encode_full = two_convs(1, full)
        self.encode_half = two_convs(full, half)
        self.encode_quarter = two_convs(half, quarter)
        self.encode_eighth = two_convs(quarter, eighth)
        self.decode_quarter = two_convs(eighth + quarter, quarter)
        self.decode_half = two_convs(quarter + half, half)
        self.decode_full = nn.Sequential(Conv(half + full, full), Conv(full, full, active=False))
        self.squeeze = nn.Linear(full, 1)
        pairs = 2 * len(PAIRS)
        self.head = nn.Sequential(Conv(pairs, pairs), Conv(pairs, self.settings.descriptor, active=False))

    @property
    def reach(self) -> int:
        """Voxels around a voxel that `describe` looks at, beyond what `coarse` holds; even."""
        return 2 + 2 + self.settings.dilation + 2 + 2 + self.settings.dilation % 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Describe images.

        Parameters
        ----------
        image : Tensor, (B, 1, D, H, W)
            In [0, 1]; axes of any length.

        Returns
        -------
        Tensor, (B, 24, D, H, W)
            Descriptors; their direction tells, not their length.
        """
        encoded = _in_stages(self.encode_full, image)
        return self._described(encoded, self.coarse(_in_stages(blur_pool, encoded)))

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, ⌈D/2⌉, …): the first features of an image at half resolution."""
        return blur_pool(self.encode_full(image))

    def coarse(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, C', d, h, w): features at half resolution that know what is around them, from `pooled`."""
        half = self.encode_half(pooled)
        quarter = self.encode_quarter(blur_pool(half))
        eighth = self.encode_eighth(blur_pool(quarter))
        quarter = self.decode_quarter(_joined(eighth, quarter))
        decoded: torch.Tensor = self.decode_half(_joined(quarter, half))
        return decoded

    def features(self, encoded: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, C_h, D, H, W): the feature map h, whose neighbours are compared, from `encode_full` and `coarse`."""
        h: torch.Tensor = self.decode_full(_joined(coarse, encoded))
        return h

    def describe(self, image: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, 24, D, H, W): descriptors, from an image and its coarse features."""
        return self._described(self.encode_full(image), coarse)

    def _described(self, encoded: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Descriptors, from the first features of an image and its coarse ones."""
        h = _in_stages(self.features, encoded, coarse)
        if not _is_large(h):
            return self._compared(h)
        # Slab by slab, each with as much around it as it looks at: of a slab's numbers nothing is kept either.
        depth, around, slabs = h.shape[2], self.settings.dilation + _HEAD_REACH, []
        for start in range(0, depth, _SLAB):
            low, high = max(start - around, 0), min(start + _SLAB + around, depth)
            slab = checkpoint(self._compared, h[:, :, low:high], use_reentrant=False)
            slabs.append(slab[:, :, start - low : start - low + _SLAB])
        return torch.cat(slabs, dim=2)

    def _compared(self, h: torch.Tensor) -> torch.Tensor:
        """Descriptors of features h (B, C_h, D, H, W)."""
        similar = [
            self_similarity(h, dilation, self.squeeze.weight[0], self.squeeze.bias)
            for dilation in (1, self.settings.dilation)
        ]
        # In the precision and the memory that convolutions leave: autocast would pad, and move, twice the bytes.
        together = torch.cat([part.to(h.dtype) for part in similar], dim=1)
        if h.is_contiguous(memory_format=torch.channels_last_3d):
            together = together.contiguous(memory_format=torch.channels_last_3d)
        described: torch.Tensor = self.head(together)
        return described


def _is_large(volume: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and volume[:, 0].numel() > LARGE_VOXELS


def _in_stages(stage: Callable[..., torch.Tensor], volume: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    """One stage of the network; of large volumes nothing within it is kept for the way back."""
    if not _is_large(volume):
        return stage(volume, *rest)
    kept: torch.Tensor = checkpoint(stage, volume, *rest, use_reentrant=False)
    return kept


def _joined(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Coarse features brought up to fine ones, and both of them."""
    return torch.cat([upsampled(coarse, tuple(fine.shape[2:])), fine], dim=1)
