"""One way of training one network: what the training loop runs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from MMRegCore.networks.protocol import Network
from MMRegCore.training.data.subjects import TrainingData
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.settings import RecipeSettings


class Recipe(ABC):
    """Base of the recipes: a network, its loss and its validation; Adam and its course are the same for all.

    A module of `MMRegCore.training.recipes` that defines ``RECIPE``, a class derived from this one, adds a training
    under the name of its network.  Its settings are of ``settings_class``.
    """

    network_class: ClassVar[type[Network]]
    settings_class: ClassVar[type[RecipeSettings]]
    score: str  # the value of `validate` by which the best weights are chosen; higher is better
    max_grad_norm: float = math.inf  # longer gradients are cut to this length

    def __init__(self, settings: RecipeSettings, data: TrainingData, context: ProcessContext) -> None:
        self.settings, self._context = settings, context
        self.network = self.make_network().to(context.device)  # what is saved as weights
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self._steps = 0

    def make_network(self) -> Network:
        """The network as it is before the first step."""
        return self.network_class(self.settings.network)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Any:  # noqa: ANN401 - each recipe has its own kind of batch
        """The batch of one step; depends on nothing but the random stream."""

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:  # noqa: ANN401
        """What is minimised, as 'loss', and whatever else the curves show.

        What is random is drawn from ``generator`` or from torch's global stream; both are set anew for every step.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Scores on the validation split; must leave the network as it was."""

    def step(self, batch: Any, generator: torch.Generator) -> dict[str, float]:  # noqa: ANN401
        """Do one step of Adam; gives the named losses and the norm of the gradient, for the curves."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate_at(self.settings, self._steps)
        losses = self.loss(batch, generator)
        self._optimiser.zero_grad()
        losses["loss"].backward()
        self._context.average_gradients(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        self._optimiser.step()
        self._steps += 1
        return {name: float(value.detach()) for name, value in {**losses, "gradient": norm}.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes: tensors, numbers, texts, lists, dictionaries."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`, so that the next step is the one that would have followed."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._steps = int(state["steps"])


def learning_rate_at(settings: RecipeSettings, step: int) -> float:
    """The step size of Adam at a step, counted from 0: constant, or decaying to zero along half a cosine."""
    fraction = step / settings.training.steps if settings.cosine_decay else 0.0
    return settings.learning_rate * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2
