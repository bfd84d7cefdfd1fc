"""Functions of matrices."""

from __future__ import annotations

import torch

# Halved so often, and summed up to this power: exact to single precision for matrices of a norm up to 4.
_HALVINGS, _DEGREE = 3, 8


def matrix_exp(matrices: torch.Tensor) -> torch.Tensor:
    """The exponential of matrices (..., n, n) of a norm up to 4: rotations of up to a half turn, and moderate scales.

    PyTorch's own looks at the norms first, for which the host would wait for a GPU.
    """
    if matrices.device.type == "cpu":
        return torch.matrix_exp(matrices)
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    part = matrices / 2**_HALVINGS
    result: torch.Tensor = identity + part / _DEGREE
    for power in range(_DEGREE - 1, 0, -1):
        result = identity + part @ result / power
    for _ in range(_HALVINGS):
        result = result @ result
    return result
