"""MASR-Net: structural descriptors from deep neighbourhood self-similarity (Mok et al. 2024, CVPR)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from MMRegCore.config.networks import MasrNetSettings
from MMRegCore.networks.blocks import Conv, blur_pool, two_convs, upsampled

# The six neighbours of a voxel, (d, h, w), and those pairs of them that are √2 apart: 12 of 15.
NEIGHBOURS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
PAIRS = tuple(
    (a, b)
    for a, b in combinations(range(len(NEIGHBOURS)), 2)
    if sum((p - q) ** 2 for p, q in zip(NEIGHBOURS[a], NEIGHBOURS[b], strict=True)) == 2
)
# Noise below which features count as constant: images go from 0 to 1, and features are about as large.
_LEAST_NOISE = 1e-5
# Of volumes larger than this a training keeps little: what is within a stage is computed again on the way back.
LARGE_VOXELS = 128**3
# Values of h^s that are held at once: few enough for a small machine, enough to make the operations worth their start.
_CHUNK_VALUES = 2**23


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
        return self.describe(image, self.coarse(self.pooled(image)))

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
        h: torch.Tensor = self.decode_full(_joined(coarse, self.encode_full(image)))
        return h

    def describe(self, image: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, 24, D, H, W): descriptors, from an image and its coarse features."""
        h = _in_stages(self.features, image, coarse)
        similar = [
            self_similarity(h, dilation, self.squeeze.weight[0], self.squeeze.bias)
            for dilation in (1, self.settings.dilation)
        ]
        return _in_stages(self.head, torch.cat(similar, dim=1))


def self_similarity(
    h: torch.Tensor,
    dilation: int,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    chunk_values: int = _CHUNK_VALUES,
) -> torch.Tensor:
    """Deep neighbourhood self-similarity of one layout, squeezed over the channels.

    In each channel c, ``S_c(x, y, y') = exp(-(h_c(y) - h_c(y'))² / σ_c²(x))`` for the 12 pairs of neighbours y, y' of x
    that are √2 · ``dilation`` apart, where σ² is the mean of the 12 squared differences (Eq. 1); then
    ``bias + Σ_c weight_c · S_c``.  S has 12 · C values for each voxel: it is made in slabs, and made again on the way
    back, so that it never exists as a whole.

    Parameters
    ----------
    h : Tensor, (B, C, D, H, W)
        The edge is carried on outside.
    dilation : int
        Distance of the neighbours in voxels.
    weight : Tensor, (C,)
    bias : Tensor, (1,)
    chunk_values : int
        Values of S that may exist at once, but for the least there is: one slice.

    Returns
    -------
    Tensor, (B, 12, D, H, W), float32
    """
    depth = h.shape[2]
    padded = F.pad(h.float(), (dilation,) * 6, mode="replicate")
    a_slice = len(PAIRS) * h[:, :, 0].numel()
    thick = max(chunk_values // a_slice, 1)
    slabs = []
    for start in range(0, depth, thick):
        slab = padded[:, :, start : min(start + thick, depth) + 2 * dilation]
        slabs.append(checkpoint(_slab, slab, dilation, weight, bias, use_reentrant=False))
    return torch.cat(slabs, dim=2)


def _in_stages(stage: Callable[..., torch.Tensor], volume: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    """One stage of the network; of large volumes nothing within it is kept for the way back."""
    if volume[:, 0].numel() <= LARGE_VOXELS or not torch.is_grad_enabled():
        return stage(volume, *rest)
    kept: torch.Tensor = checkpoint(stage, volume, *rest, use_reentrant=False)
    return kept


def _slab(padded: torch.Tensor, dilation: int, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Squeezed self-similarity of a slab with ``dilation`` around it."""
    d, h, w = (n - 2 * dilation for n in padded.shape[2:])
    steps = [[dilation * (1 + offset) for offset in neighbour] for neighbour in NEIGHBOURS]
    around = [padded[..., i : i + d, j : j + h, k : k + w] for i, j, k in steps]
    distances = [(around[a] - around[b]).square() for a, b in PAIRS]
    noise = sum(distances[1:], start=distances[0]) / len(PAIRS)
    inverse = -1 / (noise + _LEAST_NOISE)
    weight = weight.float().reshape(-1, 1, 1, 1)
    return torch.stack([((distance * inverse).exp() * weight).sum(dim=1) for distance in distances], dim=1) + bias


def _joined(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Coarse features brought up to fine ones, and both of them."""
    return torch.cat([upsampled(coarse, tuple(fine.shape[2:])), fine], dim=1)
