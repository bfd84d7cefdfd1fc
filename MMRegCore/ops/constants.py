"""Small tensors of numbers that the code knows, on any device."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import torch

Numbers: TypeAlias = tuple[float, ...] | tuple[tuple[float, ...], ...]


@lru_cache(maxsize=1024)
def constant(values: Numbers, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of these numbers, not to be written to.

    Made once for each device: a GPU would be waited for at every copy from the host.
    """
    return torch.tensor(values, dtype=dtype, device=device)


def per_axis(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    """(1, 3, 1, 1, 1): a number for each axis, of the type and on the device of ``like``."""
    return constant(tuple(values), like.device, like.dtype).reshape(1, 3, 1, 1, 1)
