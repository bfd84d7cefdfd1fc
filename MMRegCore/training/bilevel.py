"""Bilevel training: the weights of a loss are learned on a validation split, while the network learns with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from MMRegCore.config.pair_training import BilevelSettings
from MMRegCore.training.distributed import Place

# The finite difference of Eq. 22 steps this far in the space of the network's weights.
_STEP_LENGTH = 1e-2


def hyper_gradient(
    terms: Callable[[], torch.Tensor],
    upper: Callable[[], torch.Tensor],
    parameters: Sequence[torch.Tensor],
    weights: torch.Tensor,
    rate: float,
) -> torch.Tensor:
    """How the upper objective changes with the weights of the loss, by one step of the lower level (Eqs. 17 to 22).

    With f(λ, w) = λ · terms(w) and w' = w − rate · ∂f/∂w it is −rate · ∂²f/∂λ∂w · ∂F(w')/∂w'; the product with the
    second derivative is a central difference of ∂f/∂λ, which here is ``terms`` itself, along v = ∂F/∂w' with
    ε = 0.01 / |v|.

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
    rate : float
        Of the lower level's step.

    Returns
    -------
    Tensor, (n,)
    """
    used = [p for p in parameters if p.requires_grad]
    before = [p.detach().clone() for p in used]
    try:
        _move(used, before, _gradients((weights * terms()).sum(), used), -rate)
        direction = _gradients(upper(), used)
        length = torch.stack([d.norm() for d in direction]).norm()
        if float(length) == 0:
            return torch.zeros_like(weights)
        epsilon = _STEP_LENGTH / float(length)
        with torch.no_grad():
            _move(used, before, direction, epsilon)
            ahead = terms()
            _move(used, before, direction, -epsilon)
            behind = terms()
    finally:
        _move(used, before, before, 0.0)
    return -rate * (ahead - behind) / (2 * epsilon)


class Bilevel:
    """The weights λ of a loss, and the Adam that moves them; they stay positive, since it moves their logarithms.

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
        self._log = torch.where(self._asked, weights, 1.0).log().requires_grad_(True)
        self._adam = torch.optim.Adam([self._log], lr=settings.learning_rate, betas=(0.5, 0.999))

    @property
    def weights(self) -> torch.Tensor:
        """(n,): λ."""
        return self._log.detach().exp() * self._asked

    def due(self, step: int) -> bool:
        """Whether λ moves at this step."""
        return self._settings.every > 0 and step % self._settings.every == 0

    def update(
        self,
        terms: Callable[[], torch.Tensor],
        upper: Callable[[], torch.Tensor],
        parameters: Sequence[torch.Tensor],
        rate: float,
    ) -> None:
        """Move λ against its hyper-gradient (Algorithm 1, lines 2 and 3)."""
        weights = self.weights
        self._log.grad = hyper_gradient(terms, upper, parameters, weights, rate) * weights * self._moves
        self._place.average_gradients([self._log])  # type: ignore[list-item] # a leaf tensor is all it needs
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What `update` changes."""
        return {"log": self._log.detach().clone(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        with torch.no_grad():
            self._log.copy_(state["log"])
        self._adam.load_state_dict(state["adam"])


def _gradients(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@torch.no_grad()
def _move(
    parameters: Sequence[torch.Tensor], start: Sequence[torch.Tensor], direction: Sequence[torch.Tensor], step: float
) -> None:
    for parameter, origin, change in zip(parameters, start, direction, strict=True):
        parameter.copy_(origin + step * change)
