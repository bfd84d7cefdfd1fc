"""One field from the fields of several moving images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Fusion = Literal["signed-max", "mean", "magnitude", "confidence"]

# Disagreement of forward and backward below this many mm says nothing about which field is better.
_SMALLEST_ERROR_MM = 0.5


def fuse(fields: Sequence[torch.Tensor], how: Fusion, errors_mm: Sequence[torch.Tensor]) -> torch.Tensor:
    """Fuse displacements of the same fixed image.

    Parameters
    ----------
    fields : sequence of Tensor, (1, 3, D, H, W)
        One per moving image, in one unit.
    how : {'signed-max', 'mean', 'magnitude', 'confidence'}
        'signed-max' takes the larger signed value of each component, as MCBO publishes; it is biased towards positive
        values and changes when an axis is flipped.  'mean' is free of both.  'magnitude' takes, at each voxel, the
        whole vector of the field that moves most.  'confidence' is the mean weighted by the inverse square of each
        field's error, so that a field whose forward and backward matches disagree counts less.
    errors_mm : sequence of Tensor, (1, 1, D, H, W)
        Inverse consistency error of each field; only 'confidence' looks at it.

    Returns
    -------
    Tensor, (1, 3, D, H, W)
    """
    if len(fields) == 1:
        return fields[0]
    stack = torch.stack(list(fields))
    if how == "signed-max":
        return stack.amax(dim=0)
    if how == "mean":
        return stack.mean(dim=0)
    if how == "confidence":
        weight = torch.stack([1 / (error.square() + _SMALLEST_ERROR_MM**2) for error in errors_mm])
        return (stack * weight).sum(dim=0) / weight.sum(dim=0)
    longest = stack.norm(dim=2, keepdim=True).argmax(dim=0, keepdim=True)
    return stack.gather(0, longest.expand(1, *stack.shape[1:]))[0]
