"""The running average of a network's weights: what a training validates and saves in place of its last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Early weights must not weigh on the average for long: at step t it looks back over a tenth of the way, not further.
_FRACTION_OF_THE_WAY = 10


class AveragedWeights:
    """Exponential moving average of the weights of a network (Polyak and Juditsky 1992).

    ``decay`` is the fraction of the average that a step keeps, in [0, 1); 0 is the network as it is.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._average, self._steps = _copy(network.state_dict()), 0

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + _FRACTION_OF_THE_WAY))
        for name, value in self._network.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network with the averaged weights; with its own again afterwards."""
        own = _copy(self._network.state_dict())
        self._network.load_state_dict(self._average)
        try:
            yield
        finally:
            self._network.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """What `update` changes."""
        return {"average": _copy(self._average), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`."""
        self._average, self._steps = _copy(state["average"]), int(state["steps"])


def _copy(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
