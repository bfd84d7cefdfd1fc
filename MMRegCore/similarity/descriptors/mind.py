"""MIND-SSC: the modality independent neighbourhood descriptor with self-similarity context."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from MMRegCore.networks.self_similarity import NEIGHBOURS, PAIRS
from MMRegCore.ops import box_mean
from MMRegCore.similarity.protocol import Descriptor

# Put in one order, the twelve pairs of neighbours share six difference vectors.
_PAIRS = tuple(tuple(sorted((NEIGHBOURS[a], NEIGHBOURS[b]))) for a, b in PAIRS)
CHANNELS = len(_PAIRS)


class Mind(Descriptor):
    """MIND-SSC (Heinrich et al., MICCAI 2013).

    Parameters
    ----------
    radius, dilation : int
        See `mind_ssc`.
    norm : {'l2', 'l1'}
        Mean squared or mean absolute difference of the channels.
    """

    def __init__(self, radius: int = 1, dilation: int = 2, norm: Literal["l2", "l1"] = "l2") -> None:
        self.radius, self.dilation, self.norm = radius, dilation, norm

    def encode_moving(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, 12, D, H, W): descriptors of each image as it comes; the weight plays no part."""
        return torch.cat([mind_ssc(one, radius=self.radius, dilation=self.dilation) for one in image.split(1)])

    def value(self, fixed: torch.Tensor, moving: torch.Tensor, dim: int) -> torch.Tensor:
        """Minus the mean difference of the channels, squared or absolute."""
        if self.norm == "l2":
            return super().value(fixed, moving, dim)
        return -(moving - fixed).abs().mean(dim=dim, keepdim=True)


def mind_ssc(image: torch.Tensor, *, radius: int = 1, dilation: int = 2) -> torch.Tensor:
    """Describe every voxel by how alike the patches around it are, not by its intensity.

    For each of the 12 pairs of 6-neighbours at distance √2, the mean squared difference of their patches, less the
    smallest of the 12, over the local noise (their mean), through ``exp(-x)`` (Heinrich et al., MICCAI 2013,
    Eqs. 2 and 3 with the self-similarity context layout).

    Parameters
    ----------
    image : Tensor, (1, 1, D, H, W)
        Intensities; any linear change of them leaves the descriptor as it is.
    radius : int
        Half-width of the patch in voxels.
    dilation : int
        Distance of the neighbours from the voxel in voxels.

    Returns
    -------
    Tensor, (1, 12, D, H, W), in (0, 1]
        Differentiable in the image, but for the image's mean noise.  Replicate padding outside the image.
    """
    margin = radius + dilation
    image = image if image.dtype == torch.float64 else image.float()
    padded = F.pad(image, (margin + dilation,) * 6, mode="replicate")[0, 0]
    shape = tuple(image.shape[2:])
    channels = image.new_empty((1, CHANNELS, *shape))
    # A pair's patch distance is that of its difference vector, moved to the pair's place: six serve twelve pairs.
    distances: dict[tuple[int, ...], torch.Tensor] = {}
    for index, (a, b) in enumerate(_PAIRS):
        vector = tuple(q - p for p, q in zip(a, b, strict=True))
        if vector not in distances:
            distances[vector] = _patch_distance(padded, vector, radius, dilation)
        place = tuple(slice(dilation * (1 + p), dilation * (1 + p) + n) for p, n in zip(a, shape, strict=True))
        channels[0, index] = distances[vector][place]
    smallest = channels.amin(dim=1, keepdim=True)
    # In place but where its gradient is asked for, which needs the channels as they were.
    channels = channels - smallest if channels.requires_grad else channels.sub_(smallest)
    noise = channels.mean(dim=1, keepdim=True)
    level = float(noise.detach().mean())
    # Flat regions would divide by nothing: keep the noise within three decades of the image's mean.
    noise = noise.clamp(min=level * 1e-3, max=level * 1e3).clamp_(min=1e-20)
    # Below e⁻²⁰ nothing is distinguished, and products of still smaller numbers would be denormal: slow on a CPU.
    return channels.div_(noise).clamp_(max=20).neg_().exp_()


def _patch_distance(padded: torch.Tensor, vector: tuple[int, ...], radius: int, dilation: int) -> torch.Tensor:
    """Mean squared difference of the patches at x and x + dilation·vector, for x up to ``dilation`` off the image."""
    inner = [n - 2 * dilation for n in padded.shape]  # the image and a margin of radius + dilation around it
    here = padded[tuple(slice(dilation, dilation + n) for n in inner)]
    there = padded[tuple(slice(dilation * (1 + v), dilation * (1 + v) + n) for v, n in zip(vector, inner, strict=True))]
    return box_mean((here - there).square_(), radius, outside="none")


MEASURE = Mind
