"""Contrastive learning of descriptors: the same point in two images, and no other (Mok et al. 2024, Eq. 4)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from MMRegCore.errors import InputError


def contrastive_loss(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """Mean over all points of Eq. 4: the negative logarithm of the fraction of the similarity that the right point has.

    Of descriptors (N, C) of two images at the same N points; any length, only their directions count.  Differentiable
    in both; log N where all are the same.  Takes about 3 N² numbers of memory.  Raises `InputError` when the two are
    not of one shape.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise InputError(f"expected descriptors (N, C) of the same points; got {first.shape} and {second.shape}")
    similarity = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    return F.cross_entropy(similarity / temperature, torch.arange(len(first), device=first.device))


def foreground_points(foreground: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw ``count`` sample points in the foreground (D, H, W), bool, none twice; fewer where it is smaller.

    Gives indices (N,), int64, into the flattened volume; all is on the CPU.  Raises `InputError` when the foreground is
    empty.
    """
    points = foreground.flatten().nonzero()[:, 0]
    if len(points) == 0:
        raise InputError("expected foreground to sample descriptors from; got none")
    return points[torch.randperm(len(points), generator=generator)[:count]]


def at_points(descriptors: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(N, C): descriptors (1, C, D, H, W) at flat indices (N,)."""
    return descriptors[0].flatten(1)[:, points.to(descriptors.device)].T


def retrieval(
    first: torch.Tensor, second: torch.Tensor, *, compare: Literal["angle", "distance"] = "angle", block: int = 1024
) -> float:
    """How often the most similar of all points is the right one.

    Of descriptors (N, C) of two images at the same N points: the fraction of those in ``first`` whose nearest in
    ``second`` is itself, 1 / N by chance; by the cosine of their angle (MASR-Net) or by their Euclidean distance
    (MIND).  ``block`` points are compared at once.
    """
    one, two = first.float(), second.float()
    if compare == "angle":
        one, two = F.normalize(one, dim=1), F.normalize(two, dim=1)
    # |a - b|² is smallest where a·b - |b|²/2 is largest; of unit vectors that is the cosine.
    half = two.square().sum(dim=1) / 2
    found = torch.cat([(part @ two.T - half).argmax(dim=1) for part in one.split(block)])
    return float((found == torch.arange(len(one), device=found.device)).float().mean())
