"""L-BFGS from one or several starts at once; torch.optim would import its compiler first, two seconds of every run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch

# Sufficient decrease (Armijo) and how far a refused step is cut back.
_SUFFICIENT = 1e-4
_CUT = 0.4
_MOST_CUTS = 5

# (K,) values of K parameter vectors (K, N).
Objective = Callable[[torch.Tensor], torch.Tensor]
# Asks for the value and the gradient (N,) at a point (N,).
_Descent = Generator[torch.Tensor, tuple[float, torch.Tensor], "Minimum"]
_Accepted = tuple[torch.Tensor, float, torch.Tensor]


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
    starts: Sequence[torch.Tensor],
    *,
    iterations: int,
    first_step: float,
    tolerance: float,
    history: int = 10,
    at_once: int | None = None,
    report: Callable[[float], None] | None = None,
) -> list[Minimum]:
    """Minimise a smooth function by limited-memory BFGS with backtracking (Nocedal and Wright 2006, ch. 7).

    The descents know nothing of each other; what all of them ask for next is evaluated in one call.

    Parameters
    ----------
    objective : callable
        (K, N) to (K,), differentiable.
    starts : sequence of Tensor, (N,)
        One minimum is found from each.
    iterations : int
        At most.
    first_step : float
        Length of the first step, in the unit of the parameters.
    tolerance : float
        Ends when an iteration lowers the value by less.
    history : int
        Pairs of steps and gradient changes that are kept.
    at_once : int, optional
        Points that are evaluated in one call at most; all when None.
    report : callable, optional
        Called with the share that is done, about; may raise to cancel.
    """
    # Their arithmetic is small, and asks for numbers all the time: it is done on the host.
    device = starts[0].device
    points = torch.stack(list(starts)).detach().cpu()
    descents = [_descent(point, iterations, first_step, tolerance, history) for point in points]
    wanted = {number: next(descent) for number, descent in enumerate(descents)}
    found: dict[int, Minimum] = {}
    calls = 0
    while wanted:
        if report is not None:
            report(min(calls / (iterations + 1), 1.0))
        calls += 1
        points = torch.stack(list(wanted.values()))
        answers = [
            answer
            for some in points.split(at_once or len(points))
            for answer in _values_and_gradients(objective, some.to(device))
        ]
        for number, answer in zip(list(wanted), answers, strict=True):
            try:
                wanted[number] = descents[number].send(answer)
            except StopIteration as ended:
                found[number] = Minimum(ended.value.parameters.to(device), ended.value.value)
                del wanted[number]
    return [found[number] for number in range(len(descents))]


def _descent(point: torch.Tensor, iterations: int, first_step: float, tolerance: float, history: int) -> _Descent:
    value, gradient = yield point
    pairs: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=history)
    for _ in range(iterations):
        found = yield from _line_search(point, value, gradient, _direction(gradient, pairs, first_step))
        if found is None and pairs:
            # What was learnt of the curvature misleads here: start afresh along the gradient.
            pairs.clear()
            found = yield from _line_search(point, value, gradient, _direction(gradient, pairs, first_step))
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
    point: torch.Tensor, value: float, gradient: torch.Tensor, direction: torch.Tensor
) -> Generator[torch.Tensor, tuple[float, torch.Tensor], _Accepted | None]:
    """A step that lowers the value enough, with the value and gradient there; None when there is none."""
    slope = float(direction @ gradient)
    if slope >= 0:
        return None
    for cut in range(_MOST_CUTS):
        length = _CUT**cut
        step = length * direction
        new_value, new_gradient = yield point + step
        if new_value <= value + _SUFFICIENT * length * slope:
            return step, new_value, new_gradient
    return None


def _values_and_gradients(objective: Objective, points: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
    variable = points.requires_grad_(True)
    values = objective(variable)
    (gradients,) = torch.autograd.grad(values.sum(), variable)
    # One copy: a GPU is waited for once.
    rows, last = torch.cat([gradients.flatten(), values.detach()]).cpu().split((gradients.numel(), len(values)))
    return list(zip(last.tolist(), rows.reshape(points.shape), strict=True))


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
