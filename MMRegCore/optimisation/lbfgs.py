"""L-BFGS on one parameter vector; torch.optim would import its compiler first, two seconds of every run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Sufficient decrease (Armijo) and how far a refused step is cut back.
_SUFFICIENT = 1e-4
_CUT = 0.4
_MOST_CUTS = 5

Objective = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a minimisation ended.

    Attributes
    ----------
    parameters : Tensor, (N,)
    value : float
    """

    parameters: torch.Tensor
    value: float


def minimise(
    objective: Objective,
    start: torch.Tensor,
    *,
    iterations: int,
    first_step: float,
    tolerance: float,
    history: int = 10,
    report: Callable[[float], None] | None = None,
) -> Minimum:
    """Minimise a smooth function by limited-memory BFGS with backtracking (Nocedal and Wright 2006, ch. 7).

    Parameters
    ----------
    objective : callable
        (N,) to a scalar, differentiable.
    start : Tensor, (N,)
    iterations : int
        At most.
    first_step : float
        Length of the first step, in the unit of the parameters.
    tolerance : float
        Ends when an iteration lowers the value by less.
    history : int
        Pairs of steps and gradient changes that are kept.
    report : callable, optional
        Called with the share of the iterations that are done; may raise to cancel.
    """
    point = start.detach()
    value, gradient = _value_and_gradient(objective, point)
    pairs: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=history)
    for iteration in range(iterations):
        if report is not None:
            report(iteration / iterations)
        direction = _direction(gradient, pairs, first_step)
        found = _line_search(objective, point, value, gradient, direction)
        if found is None and pairs:
            # What was learnt of the curvature misleads here: start afresh along the gradient.
            pairs.clear()
            found = _line_search(objective, point, value, gradient, _direction(gradient, pairs, first_step))
        if found is None:
            break
        step, new_value, new_gradient = found
        change = new_gradient - gradient
        if float(step @ change) > 1e-12:
            pairs.append((step, change))
        gained, point, value, gradient = value - new_value, point + step, new_value, new_gradient
        if gained < tolerance:
            break
    return Minimum(point, value)


def _line_search(
    objective: Objective, point: torch.Tensor, value: float, gradient: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, float, torch.Tensor] | None:
    """A step that lowers the value enough, with the value and gradient there; None when there is none."""
    slope = float(direction @ gradient)
    if slope >= 0:
        return None
    for cut in range(_MOST_CUTS):
        length = _CUT**cut
        step = length * direction
        new_value, new_gradient = _value_and_gradient(objective, point + step)
        if new_value <= value + _SUFFICIENT * length * slope:
            return step, new_value, new_gradient
    return None


def _value_and_gradient(objective: Objective, point: torch.Tensor) -> tuple[float, torch.Tensor]:
    variable = point.detach().requires_grad_(True)
    value = objective(variable)
    (gradient,) = torch.autograd.grad(value, variable)
    return float(value.detach()), gradient


def _direction(
    gradient: torch.Tensor, pairs: deque[tuple[torch.Tensor, torch.Tensor]], first_step: float
) -> torch.Tensor:
    """The two-loop recursion: minus the approximate inverse Hessian times the gradient."""
    if not pairs:
        return gradient * (-first_step / float(gradient.norm().clamp(min=1e-20)))
    direction = -gradient
    shares = []
    for step, change in reversed(pairs):
        share = float(step @ direction) / float(step @ change)
        shares.append(share)
        direction = direction - share * change
    step, change = pairs[-1]
    direction = direction * (float(step @ change) / float(change @ change))
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - float(change @ direction) / float(step @ change)) * step
    return direction
