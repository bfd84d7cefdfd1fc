"""One field from the fields of several moving images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Fusion = Literal["signed-max", "mean", "magnitude"]


def fuse(fields: Sequence[torch.Tensor], how: Fusion) -> torch.Tensor:
    """Fuse displacements of the same fixed image.

    Parameters
    ----------
    fields : sequence of Tensor, (1, 3, D, H, W)
        One per moving image, in one unit.
    how : {'signed-max', 'mean', 'magnitude'}
        'signed-max' takes the larger signed value of each component, as MCBO publishes; it is biased towards positive
        values and changes when an axis is flipped.  'mean' is free of both.  'magnitude' takes, at each voxel, the
        whole vector of the field that moves most.

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
    longest = stack.norm(dim=2, keepdim=True).argmax(dim=0, keepdim=True)
    return stack.gather(0, longest.expand(1, *stack.shape[1:]))[0]
