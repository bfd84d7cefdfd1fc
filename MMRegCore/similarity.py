"""How alike two images are inside a mask; every term has the signature ``(fixed, moving, mask)``."""

from __future__ import annotations

import torch

from MMRegCore.errors import InputError

# Values beyond these quantiles share the outermost bins: a few hot voxels must not empty all the others.
_TAIL = 0.005


def mind_distance(fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of MIND-SSC descriptors over a mask (Heinrich et al. 2013); 0 is perfect agreement.

    Parameters
    ----------
    fixed, moving : Tensor, (B, C, D, H, W)
        Descriptors in [0, 1] on one grid.
    mask : Tensor, (B, 1, D, H, W), bool
        Where to compare.

    Returns
    -------
    Tensor, (), differentiable in both descriptors.

    Raises
    ------
    InputError
        When sizes differ or the mask is empty.
    """
    _check(fixed, moving, mask)
    squared = (fixed - moving).square().mean(dim=1, keepdim=True)
    return squared[mask].mean()


def normalised_mutual_information(
    fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor, *, bins: int = 32
) -> torch.Tensor:
    """``(H(A) + H(B)) / H(A, B)`` over a mask (Studholme et al. 1999): 1 is independent, 2 is one-to-one.

    Counted in a hard joint histogram with equal bins between the 0.5 % and 99.5 % quantiles; not differentiable.
    A constant image tells nothing about the other one: 1.

    Parameters
    ----------
    fixed, moving : Tensor, (B, 1, D, H, W)
        Intensities on one grid.
    mask : Tensor, (B, 1, D, H, W), bool
        Where to compare.
    bins : int
        Per image.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    InputError
        When sizes differ or the mask is empty.
    """
    _check(fixed, moving, mask)
    pair = _binned(fixed[mask], bins) * bins + _binned(moving[mask], bins)
    joint = torch.bincount(pair, minlength=bins * bins).double().reshape(bins, bins)
    joint = joint / joint.sum()
    together = _entropy(joint)
    if float(together) <= 0:
        return torch.ones_like(together)
    return (_entropy(joint.sum(dim=1)) + _entropy(joint.sum(dim=0))) / together


def _binned(values: torch.Tensor, bins: int) -> torch.Tensor:
    """(N,) intensities to bin numbers 0 … bins - 1."""
    low, high = _quantiles(values)
    width = (high - low) / bins
    if width <= 0:
        return torch.zeros_like(values, dtype=torch.int64)
    return ((values - low) / width).clamp(0, bins - 1).long()


def _quantiles(values: torch.Tensor) -> tuple[float, float]:
    """The `_TAIL` and 1 - `_TAIL` quantiles; the extremes where those coincide (an image that is nearly flat)."""
    rank = max(1, round(_TAIL * values.numel()))
    low = float(values.kthvalue(rank).values)
    high = float(values.kthvalue(values.numel() - rank + 1).values)
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    present = shares[shares > 0]
    return -(present * present.log()).sum()


def _check(fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor) -> None:
    if fixed.shape != moving.shape or mask.shape != (fixed.shape[0], 1, *fixed.shape[2:]):
        raise InputError(
            "expected two images (B, C, D, H, W) of one shape and a mask (B, 1, D, H, W); "
            f"got {tuple(fixed.shape)}, {tuple(moving.shape)} and {tuple(mask.shape)}"
        )
    if not bool(mask.any()):
        raise InputError("expected a mask with at least one voxel inside; got an empty one")
