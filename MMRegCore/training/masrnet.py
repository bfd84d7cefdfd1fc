"""How MASR-Net is trained: two views of the same anatomy, the same descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from MMRegCore.config.training import MasrNetTraining
from MMRegCore.errors import InputError
from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.masrnet import LARGE_VOXELS, MasrNet
from MMRegCore.networks.weights import with_channels_together
from MMRegCore.training.contrastive import at_places, contrastive_loss, foreground_places, retrieval
from MMRegCore.training.data import Subjects, TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.neighbourhood import neighbourhood_loss, resolutions
from MMRegCore.training.recipe import Batches, rate_at
from MMRegCore.training.structures import Prototypes, label_numbers
from MMRegCore.training.views import Views, draw_views

# Places among which the right one is to be found in validation.
_VALIDATION_PLACES = 2048


class MasrNetRecipe:
    """Contrastive training of MASR-Net; see `MMRegCore.training.recipe.Recipe`.

    Parameters
    ----------
    settings : MasrNetTraining
    data : TrainingData
        The pairs that are scored are drawn from the validation split once, whatever the training's seed.
    place : Place
    """

    architecture = "masr-net"
    score = "retrieval"

    def __init__(self, settings: MasrNetTraining, data: TrainingData, place: Place) -> None:
        self._settings, self._place = settings, place
        self.network = MasrNet(settings.network).to(place.device)
        with_channels_together(self.network)
        self.network_settings = settings.network.to_dict()
        numbers: set[int] = set()
        if settings.structures > 0:
            named = settings.structure_labels
            numbers = label_numbers(data.training) if named == "all" else set(named)
        if settings.structures > 0 and settings.network.context == 0:
            raise InputError("expected network.context above 0 to tell structures by (structures > 0); got 0")
        self._prototypes = Prototypes(numbers, settings.network.context).to(place.device)
        self._learned = [*self.network.parameters(), *self._prototypes.parameters()]
        self._optimiser = torch.optim.Adam(self._learned, lr=settings.learning_rate)
        self._step = 0
        stream = torch.Generator().manual_seed(0)
        self._pairs = [self._drawn(data.validation, stream) for _ in range(settings.validation_pairs)]
        self._mind = sum(_mind_retrieval(views, asked.anywhere) for views, asked in self._pairs) / len(self._pairs)

    def step(self, batch: Views, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on Eq. 4 and, where they are asked for, on the same among neighbours and on structures."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate_at(self._settings, self._step)
        asked = self._asked(batch, self._settings.samples, generator)
        one, two = self._seen(batch, self._keeper(asked, near=self._settings.neighbours > 0))
        temperature = self._settings.temperature
        losses = {"contrastive": contrastive_loss(one.anywhere, two.anywhere, temperature)}
        loss = losses["contrastive"]
        if self._settings.neighbours > 0:
            losses["neighbours"] = neighbourhood_loss(one.near, two.near, batch.foreground, generator, temperature)
            loss = loss + self._settings.neighbours * losses["neighbours"]
        if self._settings.structures > 0:
            told = [self._prototypes.loss(view.structures, asked.prototypes, temperature) for view in (one, two)]
            losses["structures"] = (told[0] + told[1]) / 2
            loss = loss + self._settings.structures * losses["structures"]
        self._optimiser.zero_grad()
        loss.backward()
        self._place.average_gradients(self._learned)
        torch.nn.utils.clip_grad_norm_(self._learned, self._settings.longest_gradient)
        self._optimiser.step()
        self._step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def validate(self) -> dict[str, float]:
        """How often the right place is found among 2048, in pairs never trained on; by MIND-SSC for comparison.

        Where structures are learned, also how often they are told.
        """
        self.network.eval()
        found, told = [], []
        with torch.no_grad():
            for views, asked in self._pairs:
                one, two = self._seen(views, self._keeper(asked, near=False))
                found.append(retrieval(one.anywhere, two.anywhere))
                told += [self._prototypes.told(view.structures, asked.prototypes) for view in (one, two)]
        self.network.train()
        scores = {"retrieval": sum(found) / len(found), "retrieval of MIND": self._mind}
        if self._settings.structures > 0:
            scores["structures"] = sum(told) / len(told)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Weights, prototypes, optimiser, step."""
        return {
            "network": self.network.state_dict(),
            "prototypes": self._prototypes.state_dict(),
            "adam": self._optimiser.state_dict(),
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._prototypes.load_state_dict(state["prototypes"])
        self._optimiser.load_state_dict(state["adam"])
        self._step = int(state["step"])

    def _drawn(self, subjects: Subjects, generator: torch.Generator) -> tuple[Views, _Asked]:
        views = draw_views(subjects.draw(generator), generator, self._settings.views)
        return views, self._asked(views, _VALIDATION_PLACES, generator)

    def _asked(self, views: Views, count: int, generator: torch.Generator) -> _Asked:
        anywhere = foreground_places(views.foreground, count, generator)
        nowhere = torch.zeros(0, dtype=torch.long)
        structures = (nowhere, nowhere)
        if views.labels is not None and self._settings.structures > 0:
            structures = self._prototypes.places(views.labels * views.foreground, generator)
        return _Asked(anywhere, *structures)

    def _keeper(self, asked: _Asked, *, near: bool) -> Callable[[torch.Tensor], _Kept]:
        """What takes of one view's descriptors (1, C, n, n, n) what is asked for: of the context the structures."""

        def keep(described: torch.Tensor) -> _Kept:
            own, context = described.split([self.network.settings.descriptor, self.network.settings.context], dim=1)
            anywhere, structures = at_places(own, asked.anywhere), at_places(context, asked.structures)
            return _Kept(anywhere, structures, resolutions(own) if near else [])

        return keep

    def _seen(self, views: Views, look: Callable[[torch.Tensor], _Kept]) -> list[_Kept]:
        """What ``look`` keeps of the descriptors (1, C, n, n, n) of each of the two views."""

        def seen(images: torch.Tensor) -> list[_Kept]:
            with self._place.autocast():
                described = self.network(images)
            return [look(one) for one in described.float().split(1)]

        images = [image.to(self._place.device) for image in (views.first, views.second)]
        if views.first.numel() <= LARGE_VOXELS:
            return seen(torch.cat(images))
        # One after the other, and again on the way back: only what is looked at is kept of the first meanwhile.
        return [found for image in images for found in checkpoint(seen, image, use_reentrant=False)]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Flat indices of the places that are asked for: anywhere (N,), and of structures (M,) with their prototypes."""

    anywhere: torch.Tensor
    structures: torch.Tensor
    prototypes: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is kept of a view: descriptors (N, C) anywhere, contexts (M, C') of structures, smoothed descriptors."""

    anywhere: torch.Tensor
    structures: torch.Tensor
    near: list[torch.Tensor]


def make_masrnet(settings: MasrNetTraining, data: TrainingData, place: Place) -> tuple[MasrNetRecipe, Batches]:
    """The recipe, and batches of two views of one subject each."""

    def batches(generator: torch.Generator) -> Views:
        return draw_views(data.training.draw(generator), generator, settings.views)

    return MasrNetRecipe(settings, data, place), batches


def _mind_retrieval(views: Views, places: torch.Tensor) -> float:
    """The same score of MIND-SSC, as it is used here: radius 1, dilation 2."""
    one, two = (at_places(mind_ssc(image), places) for image in (views.first, views.second))
    return retrieval(one, two, compare="distance")
