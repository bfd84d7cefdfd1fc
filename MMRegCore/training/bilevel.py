"""Bilevel training: the weights of a loss are learned on a validation split, while the network learns with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from MMRegCore.config.pair_training import BilevelSettings
from MMRegCore.training.distributed import Place

# The most that one update changes the logarithm of a weight by: now and then a hyper-gradient is a hundred times the
# others, when a step has thrown the network.
_MOST = 0.1


@dataclass(frozen=True, eq=False)
class Step:
    """A step of the lower level, parameter by parameter.

    Attributes
    ----------
    change : list of Tensor
        w' − w.
    rates : list of Tensor
        s: how far w goes for each unit of gradient, for each number of a parameter or for all of it.
    """

    change: list[torch.Tensor]
    rates: list[torch.Tensor]


# From parameters and their gradients to the step that they make.
Stepper: TypeAlias = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], Step]


def hyper_gradient(
    terms: Callable[[], torch.Tensor],
    upper: Callable[[], torch.Tensor],
    parameters: Sequence[torch.Tensor],
    weights: torch.Tensor,
    stepper: Stepper,
    longest: float = math.inf,
    moves: torch.Tensor | None = None,
) -> torch.Tensor:
    """How the upper objective changes with the weights of the loss, by one step of the lower level (Eqs. 17 to 22).

    With f(λ, w) = λ · terms(w) and w' = w − s ∂f/∂w it is −∂²f/∂λ∂w · v, where v = s ∂F(w')/∂w'. The paper takes the
    product with the second derivative for a difference along v (Eq. 22); since f is linear in λ it is, for each term,
    that of its gradient with v, and needs no step to be chosen. In the paper s is one number; here each parameter has
    its own, as in the step that Adam takes.

    Parameters
    ----------
    terms : callable
        The lower level's loss terms (n,) on one batch; must give the same for the same parameters.
    upper : callable
        The upper level's objective (), a function of the parameters only.
    parameters : sequence of Tensor
        Those of the network that require gradients; as they were on return.
    weights : Tensor, (n,)
        λ.
    stepper : callable
        The lower level's `Step` from parameters and their gradients ∂f/∂w.
    longest : float
        The lower level cuts gradients ∂f/∂w to this length before it steps.
    moves : Tensor, (n,), bool, optional
        The weights that are asked about; 0 is said of the others. All when None.

    Returns
    -------
    Tensor, (n,)
    """
    used = [p for p in parameters if p.requires_grad]
    found = terms()
    asked = range(len(found)) if moves is None else moves.nonzero()[:, 0].tolist()
    slopes = {index: _gradients(found[index], used, again=True) for index in asked}
    descent = _gradients((weights.to(found.dtype) * found).sum(), used)
    cut = min(1.0, longest / max(_length(descent), 1e-12))
    step = stepper(used, [cut * gradient for gradient in descent])
    before = [p.detach().clone() for p in used]
    try:
        _set(used, [w + change for w, change in zip(before, step.change, strict=True)])
        direction = [s * g for s, g in zip(step.rates, _gradients(upper(), used), strict=True)]
    finally:
        _set(used, before)
    told = torch.zeros_like(weights)
    for index, slope in slopes.items():
        told[index] = -cut * torch.stack([(g * v).sum() for g, v in zip(slope, direction, strict=True)]).sum()
    return told


def step_of_adam(optimiser: torch.optim.Adam) -> Stepper:
    """The step that Adam would take, and how far a gradient takes the parameters once its momentum is spent.

    That is the rate over the root of the second moment, this gradient taken up in it.  A parameter that has not moved
    yet does not.
    """

    def stepper(parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> Step:
        groups = {parameter: group for group in optimiser.param_groups for parameter in group["params"]}
        change, rates = [], []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            state, group = optimiser.state.get(parameter, {}), groups[parameter]
            if not state:
                change.append(torch.zeros_like(parameter))
                rates.append(torch.zeros_like(parameter))
                continue
            count = float(state["step"]) + 1
            first, second = (
                torch.lerp(new, state[name], decay) / (1 - decay**count)
                for new, name, decay in zip(
                    (gradient, gradient.square()), ("exp_avg", "exp_avg_sq"), group["betas"], strict=True
                )
            )
            rates.append(group["lr"] / (second.sqrt() + group["eps"]))
            change.append(-rates[-1] * first)
        return Step(change, rates)

    return stepper


class Bilevel:
    """The weights λ of a loss, learned by gradient descent on their logarithms, so that they stay positive.

    How large the hyper-gradient is says how much there is to gain: an optimiser that divides that out, as Adam does,
    moves a weight that is well set as fast as one that is far off.

    Parameters
    ----------
    start : mapping of str to float
        By the names of the loss's terms; a weight of zero is not asked for, and stays so.
    regularising : collection of str
        The terms that ask what the displacement is like, not what it matches.
    settings : BilevelSettings
    place : Place
    """

    def __init__(
        self, start: Mapping[str, float], regularising: Collection[str], settings: BilevelSettings, place: Place
    ) -> None:
        self._settings, self._place = settings, place
        weights = torch.tensor(list(start.values()), dtype=torch.float32, device=place.device)
        moves = [settings.learned == "all" or name in regularising for name in start]
        self._moves = torch.tensor(moves, device=place.device) & (weights > 0)
        self._asked = weights > 0
        self._log = torch.where(self._asked, weights, 1.0).log()

    @property
    def weights(self) -> torch.Tensor:
        """(n,): λ."""
        return self._log.exp() * self._asked

    def due(self, step: int) -> bool:
        """Whether λ moves at this step; not at the first, when nothing is known of the lower level's steps."""
        every, begin = self._settings.every, self._settings.begin
        return every > 0 and step >= begin and step % every == 0

    def update(
        self,
        terms: Callable[[], torch.Tensor],
        upper: Callable[[], torch.Tensor],
        parameters: Sequence[torch.Tensor],
        stepper: Stepper,
        longest: float = math.inf,
    ) -> None:
        """Move λ against its hyper-gradient (Algorithm 1, lines 2 and 3).

        Where the steps of the lower level become smaller so do the hyper-gradients, and λ comes to rest with it.
        """
        weights = self.weights
        gradient = hyper_gradient(terms, upper, parameters, weights, stepper, longest, self._moves) * weights
        self._place.average([gradient])
        self._log -= (self._settings.learning_rate * gradient).clamp(-_MOST, _MOST)

    def state_dict(self) -> dict[str, Any]:
        """What `update` changes."""
        return {"log": self._log.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._log.copy_(state["log"])


def _gradients(loss: torch.Tensor, parameters: Sequence[torch.Tensor], *, again: bool = False) -> list[torch.Tensor]:
    """Zeros where the loss does not depend on a parameter; ``again`` keeps what the next of its gradients needs."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=again)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _length(directions: Sequence[torch.Tensor]) -> float:
    return float(torch.stack([direction.norm() for direction in directions]).norm())


@torch.no_grad()
def _set(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
