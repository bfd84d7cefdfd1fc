"""Inverse consistency: forward and backward displacement pulled towards each other's inverse."""

from __future__ import annotations

import torch

from MMRegCore.ops import warp


def make_inverse_consistent(
    forward: torch.Tensor, backward: torch.Tensor, iterations: int = 15
) -> tuple[torch.Tensor, torch.Tensor]:
    """Meet half-way, again and again, between each field and the inverse that the other one claims.

    ``u ← ½(u − v∘(id + u))`` and ``v ← ½(v − u∘(id + v))`` (Siebert et al., 2021), of displacements (1, 3, D, H, W),
    components (d, h, w) in voxels of one grid: fixed → moving and moving → fixed.
    """
    for _ in range(iterations):
        forward, backward = (
            0.5 * (forward - warp(backward, forward)),
            0.5 * (backward - warp(forward, backward)),
        )
    return forward, backward


def inverse_consistency_error(
    forward: torch.Tensor, backward: torch.Tensor, spacing_dhw: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> torch.Tensor:
    """(1, 1, D, H, W): length of ``u + v∘(id + u)``, in the unit of ``spacing_dhw``; 0 where each undoes the other."""
    scale = forward.new_tensor(spacing_dhw).reshape(1, 3, 1, 1, 1)
    missed = (forward + warp(backward, forward)) * scale
    length: torch.Tensor = torch.linalg.vector_norm(missed, dim=1, keepdim=True)
    return length
