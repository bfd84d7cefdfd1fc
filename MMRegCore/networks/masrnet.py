"""MASR-Net: structural descriptors from deep neighbourhood self-similarity (Mok et al. 2024, CVPR)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from MMRegCore.config.networks import MasrNetSettings
from MMRegCore.networks.blocks import Conv, blur_pool, two_convs, upsampled
from MMRegCore.networks.flow import precise
from MMRegCore.networks.self_similarity import PAIRS, self_similarity

# Of volumes larger than this a training keeps little: what is within a stage is computed again on the way back.
LARGE_VOXELS = 128**3
# Slices that are compared at once there, and how far the two convolutions behind the comparison look.
_SLAB, _HEAD_REACH = 24, 2
# Mean and standard deviation of exp(-x), x being squared differences of normal numbers over their mean.
_MEAN_OF_S, _SPREAD_OF_S = 0.535, 0.335


class MasrNet(nn.Module):
    """Describe every voxel by the structure around it, whatever the contrast.

    An encoder and decoder of four resolutions makes features h; in each channel of h, the neighbours of a voxel are
    compared in pairs (`self_similarity`, Eq. 1); the comparisons are squeezed over the channels to 24 numbers, and two
    convolutions make the descriptor of them.  Beside it, where ``context`` asks for it, stands what the decoder itself
    says of the place.  Nothing in it depends on the image as a whole, so that a part of an image gets the same
    descriptors as in the whole image, but for its border.

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
        # Wide and about zero, as what a convolution takes best: similarities are neither.
        nn.init.normal_(self.squeeze.weight, std=1 / (_SPREAD_OF_S * full**0.5))
        nn.init.constant_(self.squeeze.bias, -_MEAN_OF_S * float(self.squeeze.weight.detach().sum()))
        pairs = 2 * len(PAIRS)
        self.head = nn.Sequential(Conv(pairs, pairs), Conv(pairs, self.settings.descriptor, active=False))
        self.context: nn.Module | None = None
        if self.settings.context:
            self.context = nn.Sequential(Conv(half + full, full), Conv(full, self.settings.context, active=False))

    @property
    def channels(self) -> int:
        """Of what `forward` gives: those of the descriptor and of the context."""
        return self.settings.descriptor + self.settings.context

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
        Tensor, (B, `channels`, D, H, W)
            Descriptors; their direction tells, not their length.  With ``context`` a unit vector, and beside it the
            context, of length ``context_weight``.
        """
        return self.describe(image, self.coarse(_in_stages(self.pooled, image)))

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

    def features(self, image: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, C_h, D, H, W): the feature map h of an image, whose neighbours are compared."""
        return self._decoded(image, coarse)[0]

    def describe(self, image: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, `channels`, D, H, W): descriptors, from an image and its coarse features."""
        decoded = _in_stages(self._decoded, image, coarse)
        if not _is_large(image):
            return self._compared(*decoded)
        # Slab by slab, each with as much around it as it looks at: of a slab's numbers nothing is kept either.
        depth, around, slabs = image.shape[2], self.settings.dilation + _HEAD_REACH, []
        for start in range(0, depth, _SLAB):
            low, high = max(start - around, 0), min(start + _SLAB + around, depth)
            slab = checkpoint(self._compared, *(part[:, :, low:high] for part in decoded), use_reentrant=False)
            slabs.append(slab[:, :, start - low : start - low + _SLAB])
        return torch.cat(slabs, dim=2)

    def _compared(self, h: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        """Descriptors of features h, with the context beside them where there is one."""
        similar = [
            self_similarity(h, dilation, self.squeeze.weight[0], self.squeeze.bias)
            for dilation in (1, self.settings.dilation)
        ]
        described: torch.Tensor = self.head(torch.cat(similar, dim=1))
        if not context:
            return described
        beside = self.settings.context_weight * F.normalize(precise(context[0]), dim=1)
        return torch.cat([F.normalize(precise(described), dim=1), beside], dim=1)

    def _decoded(self, image: torch.Tensor, coarse: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The feature map h, and the context where there is one."""
        joined = _joined(coarse, self.encode_full(image))
        h = self.decode_full(joined)
        return (h,) if self.context is None else (h, self.context(joined))


def _is_large(volume: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and volume[:, 0].numel() > LARGE_VOXELS


def _in_stages(stage: Callable[..., Any], volume: torch.Tensor, *rest: torch.Tensor) -> Any:  # noqa: ANN401 - as given
    """One stage of the network; of large volumes nothing within it is kept for the way back."""
    if not _is_large(volume):
        return stage(volume, *rest)
    return checkpoint(stage, volume, *rest, use_reentrant=False)


def _joined(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Coarse features brought up to fine ones, and both of them."""
    return torch.cat([upsampled(coarse, tuple(fine.shape[2:])), fine], dim=1)
