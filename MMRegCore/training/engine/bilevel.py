"""Bilevel training: the weights of a loss are learned on a validation split, while the network learns with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from MMRegCore.settings import Settings, setting
from MMRegCore.training.engine.distributed import ProcessContext

# The most that one update changes the logarithm of a weight by: now and then, after a bad step of the network, a
# hyper-gradient is a hundred times the others.
_MAX_CHANGE = 0.1


@dataclass(frozen=True)
class BilevelSettings(Settings):
    """The upper level: the weights of the loss, learned on the validation split (MultiPropReg, Algorithm 1)."""

    every: int = setting(0, "Steps between its updates; 0 keeps the weights as they are set.", minimum=0)
    start_step: int = setting(
        1,
        "Step of the first of them: until a network has learned something, more smoothness is always better.",
        minimum=1,
    )
    learning_rate: float = setting(
        8.0,
        "Of gradient descent on the logarithms of the weights, by how much one step of the network changes the "
        "objective.",
        minimum=0,
    )
    objective: Literal["similarity", "dice"] = setting(
        "similarity", "Of the upper level, on the validation split; 'dice' needs labels."
    )
    learned: Literal["all", "regularisation"] = setting(
        "all",
        "Which weights; 'regularisation' leaves those of similarity, labels and known displacements as they are "
        "set: of all weights together only the ratios matter.",
    )


@dataclass(frozen=True, eq=False)
class Step:
    """A step of the lower level, parameter by parameter."""

    change: list[torch.Tensor]  # w' − w
    # s: how far w goes for each unit of gradient, for each number of a parameter or for all of it.
    rates: list[torch.Tensor]


# From parameters and their gradients to the step that they make.
Stepper: TypeAlias = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], Step]


def hyper_gradient(
    terms: Callable[[], torch.Tensor],
    upper: Callable[[], torch.Tensor],
    parameters: Sequence[torch.Tensor],
    weights: torch.Tensor,
    stepper: Stepper,
    max_grad_norm: float = math.inf,
    learned: torch.Tensor | None = None,
) -> torch.Tensor:
    """How the upper objective changes with the weights λ of the loss, by one step of the lower level (Eqs. 17 to 22).

    With f(λ, w) = λ · terms(w) and w' = w − s ∂f/∂w it is −∂²f/∂λ∂w · v, where v = s ∂F(w')/∂w'.  The paper takes the
    product with the second derivative for a difference along v (Eq. 22); since f is linear in λ it is, for each term,
    that of its gradient with v, and needs no step to be chosen.  In the paper s is one number; here each parameter has
    its own, as in the step that Adam takes.

    ``terms`` gives the lower level's loss terms (n,) on one batch, the same for the same parameters, and ``upper`` the
    upper level's objective (), a function of the parameters only, which are as they were on return.  ``stepper`` gives
    the lower level's `Step` from parameters and their gradients ∂f/∂w, which are cut to ``max_grad_norm`` before.
    Weights that are not ``learned`` (n,), bool, get 0; all of them are when None.
    """
    used = [p for p in parameters if p.requires_grad]
    values = terms()
    indices = range(len(values)) if learned is None else learned.nonzero()[:, 0].tolist()
    of_terms = {index: _gradients(values[index], used, retain_graph=True) for index in indices}
    descent = _gradients((weights.to(values.dtype) * values).sum(), used)
    norm = float(torch.stack([gradient.norm() for gradient in descent]).norm())
    clipped = min(1.0, max_grad_norm / max(norm, 1e-12))
    step = stepper(used, [clipped * gradient for gradient in descent])
    before = [p.detach().clone() for p in used]
    try:
        _set(used, [w + change for w, change in zip(before, step.change, strict=True)])
        direction = [s * g for s, g in zip(step.rates, _gradients(upper(), used), strict=True)]
    finally:
        _set(used, before)
    result = torch.zeros_like(weights)
    for index, of_term in of_terms.items():
        result[index] = -clipped * torch.stack([(g * v).sum() for g, v in zip(of_term, direction, strict=True)]).sum()
    return result


def step_of_adam(optimiser: torch.optim.Adam) -> Stepper:
    """The step that Adam would take, and how far a gradient takes the parameters once its momentum is spent.

    That is the rate over the root of the second moment, this gradient included.  A parameter that has not moved yet
    does not.
    """

    def stepper(parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> Step:
        groups = {parameter: group for group in optimiser.param_groups for parameter in group["params"]}
        change, rates = [], []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            state, group = optimiser.state.get(parameter, {}), groups[parameter]
            if not state:
                change.append(torch.zeros_like(parameter))
                rates.append(change[-1])
                continue
            count = float(state["step"]) + 1
            (decay, decay_sq), square = group["betas"], gradient.square()
            first = torch.lerp(gradient, state["exp_avg"], decay) / (1 - decay**count)
            second = torch.lerp(square, state["exp_avg_sq"], decay_sq) / (1 - decay_sq**count)
            rates.append(group["lr"] / (second.sqrt() + group["eps"]))
            change.append(-rates[-1] * first)
        return Step(change, rates)

    return stepper


class Bilevel:
    """The weights λ of a loss, learned by gradient descent on their logarithms, so that they stay positive.

    The size of the hyper-gradient says how much there is to gain: an optimiser that divides by it, as Adam does, would
    move a weight that is well set as fast as one that is far off.

    Parameters
    ----------
    weights : mapping of str to float
        Initial λ by the names of the loss's terms; a weight of zero stays so.
    regularising : collection of str
        The terms that depend on the displacement alone.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        regularising: Collection[str],
        settings: BilevelSettings,
        context: ProcessContext,
    ) -> None:
        self._settings, self._context = settings, context
        initial = torch.tensor(list(weights.values()), dtype=torch.float32, device=context.device)
        learned = [settings.learned == "all" or name in regularising for name in weights]
        self._positive = initial > 0
        self._learned = torch.tensor(learned, device=context.device) & self._positive
        self._log = torch.where(self._positive, initial, 1.0).log()

    @property
    def weights(self) -> torch.Tensor:
        """(n,): λ."""
        return self._log.exp() * self._positive

    def due(self, step: int) -> bool:
        """Whether λ changes at this step; not at the first, when nothing is known of the lower level's steps."""
        every = self._settings.every
        return every > 0 and step >= self._settings.start_step and step % every == 0

    def update(
        self,
        terms: Callable[[], torch.Tensor],
        upper: Callable[[], torch.Tensor],
        parameters: Sequence[torch.Tensor],
        stepper: Stepper,
        max_grad_norm: float = math.inf,
    ) -> None:
        """Move λ against its hyper-gradient (Algorithm 1, lines 2 and 3).

        Where the steps of the lower level become smaller so do the hyper-gradients, and λ converges with it.
        """
        weights = self.weights
        gradient = hyper_gradient(terms, upper, parameters, weights, stepper, max_grad_norm, self._learned) * weights
        self._context.average([gradient])
        self._log -= (self._settings.learning_rate * gradient).clamp(-_MAX_CHANGE, _MAX_CHANGE)

    def state_dict(self) -> dict[str, Any]:
        """What `update` changes."""
        return {"log": self._log.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`."""
        self._log.copy_(state["log"])


def _gradients(
    loss: torch.Tensor, parameters: Sequence[torch.Tensor], *, retain_graph: bool = False
) -> list[torch.Tensor]:
    """Zeros where the loss does not depend on a parameter."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=retain_graph)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@torch.no_grad()
def _set(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
