"""Functions with a gradient that is written out, where automatic differentiation takes more time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# The gradient by each input, None for one that has none, of the gradient by the value.
Backward = Callable[[torch.Tensor], tuple[torch.Tensor | None, ...]]
WithGradient = Callable[..., tuple[torch.Tensor, Backward]]


def with_gradient(function: WithGradient, *inputs: torch.Tensor) -> torch.Tensor:
    """The value of a function that returns its value and what makes its gradient; differentiable once.

    Parameters
    ----------
    function : callable
        Of the inputs; in it nothing is recorded for automatic differentiation.
    inputs : Tensor
    """
    value: torch.Tensor = _Written.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return value


class _Written(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: WithGradient, *inputs: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        value, ctx.gradient_of = function(*inputs)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        return (None, *ctx.gradient_of(gradient))
