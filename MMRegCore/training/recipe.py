"""What the training loop asks of whoever trains a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from MMRegCore.config.training import RecipeSettings

# A batch is whatever its recipe understands. It depends on nothing but the random stream it is drawn from.
Batches: TypeAlias = Callable[[torch.Generator], Any]


class Recipe(Protocol):
    """One way of training one network.

    Attributes
    ----------
    network : nn.Module
        What is saved as weights.
    architecture : str
        Name under which `MMRegCore.networks.weights` makes the network again.
    network_settings : dict
        What it is made with, as JSON holds it.
    score : str
        That value of `validate` by which the best weights are chosen; higher is better.
    """

    network: nn.Module
    architecture: str
    network_settings: dict[str, Any]
    score: str

    def step(self, batch: Any, generator: torch.Generator) -> dict[str, float]:  # noqa: ANN401 - its own kind of batch
        """Do one whole training step: forward, backward, optimisers, the upper level where there is one.

        What is random is drawn from ``generator`` or from torch's global stream; both are set anew for every step.

        Returns
        -------
        dict
            Named losses, for the curves.
        """
        ...

    def validate(self) -> dict[str, float]:
        """Scores on the validation split; must leave the network as it was."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes: weights, optimisers, learned λ; tensors, numbers, texts, lists, dicts."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up `state_dict`, so that the next step is the one that would have followed."""
        ...


def rate_at(settings: RecipeSettings, step: int) -> float:
    """The step size of Adam at a step, counted from 0: constant, or falling to nothing along half a cosine."""
    share = step / settings.training.steps if settings.falling else 0.0
    return settings.learning_rate * (1 + math.cos(math.pi * min(share, 1.0))) / 2
