"""How MASR-Net is trained: two views of the same anatomy, the same descriptors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from MMRegCore.config.training import MasrNetTraining
from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.masrnet import LARGE_VOXELS, MasrNet
from MMRegCore.training.contrastive import at_places, contrastive_loss, foreground_places, retrieval
from MMRegCore.training.data import Subjects, TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.neighbourhood import neighbourhood_loss, resolutions
from MMRegCore.training.recipe import Batches, rate_at
from MMRegCore.training.views import Views, draw_views

Seen = TypeVar("Seen")
# Places among which the right one is to be found in validation.
_VALIDATION_PLACES = 2048


class MasrNetRecipe:
    """Contrastive training of MASR-Net; see `MMRegCore.training.recipe.Recipe`.

    Parameters
    ----------
    settings : MasrNetTraining
    validation : Subjects
        The pairs that are scored are drawn from these once, whatever the training's seed.
    place : Place
    """

    architecture = "masr-net"
    score = "retrieval"

    def __init__(self, settings: MasrNetTraining, validation: Subjects, place: Place) -> None:
        self._settings, self._place = settings, place
        self.network = MasrNet(settings.network).to(place.device)
        self.network_settings = settings.network.to_dict()
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self._step = 0
        stream = torch.Generator().manual_seed(0)
        self._pairs = [_drawn(validation, stream, settings) for _ in range(settings.validation_pairs)]
        self._mind = sum(_mind_retrieval(views, places) for views, places in self._pairs) / len(self._pairs)

    def step(self, batch: tuple[Views, torch.Tensor], generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on Eq. 4, and where it is asked for, on the same among neighbours."""
        views, places = batch
        for group in self._optimiser.param_groups:
            group["lr"] = rate_at(self._settings, self._step)
        near, temperature = self._settings.neighbours > 0, self._settings.temperature
        (one, *around_one), (two, *around_two) = self._seen(
            views, lambda described: [at_places(described, places), *(resolutions(described) if near else [])]
        )
        loss = contrastive_loss(one, two, temperature)
        losses = {"contrastive": loss}
        if near:
            losses["neighbours"] = neighbourhood_loss(around_one, around_two, views.foreground, generator, temperature)
            loss = loss + self._settings.neighbours * losses["neighbours"]
        self._optimiser.zero_grad()
        loss.backward()
        self._place.average_gradients(self.network.parameters())
        self._optimiser.step()
        self._step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def validate(self) -> dict[str, float]:
        """How often the right place is found among 2048, in pairs never trained on; by MIND-SSC for comparison."""
        self.network.eval()
        with torch.no_grad():
            scores = [retrieval(*self._seen(views, partial(at_places, places=places))) for views, places in self._pairs]
        self.network.train()
        return {"retrieval": sum(scores) / len(scores), "retrieval of MIND": self._mind}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, step."""
        return {"network": self.network.state_dict(), "adam": self._optimiser.state_dict(), "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["adam"])
        self._step = int(state["step"])

    def _seen(self, views: Views, look: Callable[[torch.Tensor], Seen]) -> list[Seen]:
        """What ``look`` keeps of the descriptors (1, C, n, n, n) of each of the two views."""

        def seen(images: torch.Tensor) -> list[Seen]:
            with self._place.autocast():
                described = self.network(images)
            return [look(one) for one in described.float().split(1)]

        images = [image.to(self._place.device) for image in (views.first, views.second)]
        if views.first.numel() <= LARGE_VOXELS:
            return seen(torch.cat(images))
        # One after the other, and again on the way back: only what is looked at is kept of the first meanwhile.
        return [found for image in images for found in checkpoint(seen, image, use_reentrant=False)]


def make_masrnet(settings: MasrNetTraining, data: TrainingData, place: Place) -> tuple[MasrNetRecipe, Batches]:
    """The recipe, and batches of two views of one subject each."""

    def batches(generator: torch.Generator) -> tuple[Views, torch.Tensor]:
        views = draw_views(data.training.draw(generator), generator, settings.views)
        return views, foreground_places(views.foreground, settings.samples, generator)

    return MasrNetRecipe(settings, data.validation, place), batches


def _drawn(subjects: Subjects, generator: torch.Generator, settings: MasrNetTraining) -> tuple[Views, torch.Tensor]:
    views = draw_views(subjects.draw(generator), generator, settings.views)
    return views, foreground_places(views.foreground, _VALIDATION_PLACES, generator)


def _mind_retrieval(views: Views, places: torch.Tensor) -> float:
    """The same score of MIND-SSC, as it is used here: radius 1, dilation 2."""
    one, two = (at_places(mind_ssc(image), places) for image in (views.first, views.second))
    return retrieval(one, two, compare="distance")
