"""How MASR-Net is trained: two views of the same anatomy, the same descriptors; of two people, the same structures."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from MMRegCore.config.training import MasrNetTraining
from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.training.contrastive import at_places, contrastive_loss, foreground_places, retrieval
from MMRegCore.training.data import Subjects, TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.label_transfer import (
    People,
    balanced_places,
    draw_people,
    label_shares,
    label_transfer_loss,
    with_company,
)
from MMRegCore.training.recipe import Batches, rate_at
from MMRegCore.training.views import Views, draw_views

# What is shown, and the places in it that are compared.
Batch: TypeAlias = tuple[Views, torch.Tensor] | tuple[People, torch.Tensor]

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

    def __init__(self, settings: MasrNetTraining, validation: Subjects, place: Place) -> None:
        self._settings, self._place = settings, place
        self.network = MasrNet(settings.network).to(place.device)
        self.network_settings = settings.network.to_dict()
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self._step = 0
        count = settings.validation_pairs
        stream = torch.Generator().manual_seed(0)
        self._pairs = [_views_of(validation, stream, settings, _VALIDATION_PLACES) for _ in range(count)]
        self._mind = sum(_mind_retrieval(views, places) for views, places in self._pairs) / count
        company = with_company(validation) if settings.between > 0 else ()
        self._people = [_people_of(validation, company, stream, settings) for _ in range(count if company else 0)]
        self.score = "mean of both" if self._people else "retrieval"

    def step(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on Eq. 4, or on what two people have in common; the batch has the places to compare."""
        del generator  # everything random is in the batch
        shown, places = batch
        for group in self._optimiser.param_groups:
            group["lr"] = rate_at(self._settings, self._step)
        if isinstance(shown, People):
            name, loss = "label transfer", label_transfer_loss(self._shares(shown, places))
        else:
            one, two = (at_places(part, places) for part in self._described(shown))
            name, loss = "contrastive", contrastive_loss(one, two, self._settings.temperature)
        self._optimiser.zero_grad()
        loss.backward()
        self._place.average_gradients(self.network.parameters())
        self._optimiser.step()
        self._step += 1
        return {name: float(loss.detach())}

    def validate(self) -> dict[str, float]:
        """How well descriptors find what they should in subjects never trained on.

        How often the right place is found among 2048, and by MIND-SSC for comparison; which share of the similarity
        between people falls on the same structure, where that is trained.
        """
        self.network.eval()
        with torch.no_grad():
            found = []
            for views, places in self._pairs:
                one, two = (at_places(part, places) for part in self._described(views))
                found.append(retrieval(one, two))
            shares = [float(self._shares(people, places).mean()) for people, places in self._people]
        self.network.train()
        scores = {"retrieval": sum(found) / len(found), "retrieval of MIND": self._mind}
        if shares:
            scores["label transfer"] = sum(shares) / len(shares)
            scores["mean of both"] = (scores["retrieval"] + scores["label transfer"]) / 2
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, step."""
        return {"network": self.network.state_dict(), "adam": self._optimiser.state_dict(), "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["adam"])
        self._step = int(state["step"])

    def _described(self, shown: Views | People) -> tuple[torch.Tensor, torch.Tensor]:
        with self._place.autocast():
            both = self.network(torch.cat([shown.first, shown.second]).to(self._place.device))
        one, two = both.float().split(1)
        return one, two

    def _shares(self, people: People, places: torch.Tensor) -> torch.Tensor:
        return label_shares(
            *self._described(people),
            people.first_labels,
            people.second_labels,
            places,
            radius=self._settings.between_radius,
            temperature=self._settings.temperature,
        )


def make_masrnet(settings: MasrNetTraining, data: TrainingData, place: Place) -> tuple[MasrNetRecipe, Batches]:
    """The recipe, and batches: two views of one subject, or the same part of two people."""
    company = with_company(data.training) if settings.between > 0 else ()

    def batches(generator: torch.Generator) -> Batch:
        if company and float(torch.rand((), generator=generator)) < settings.between:
            return _people_of(data.training, company, generator, settings)
        return _views_of(data.training, generator, settings, settings.samples)

    return MasrNetRecipe(settings, data.validation, place), batches


def _views_of(
    subjects: Subjects, generator: torch.Generator, settings: MasrNetTraining, samples: int
) -> tuple[Views, torch.Tensor]:
    views = draw_views(subjects.draw(generator), generator, settings.views)
    return views, foreground_places(views.foreground, samples, generator)


def _people_of(
    subjects: Subjects, company: tuple[list[int], ...], generator: torch.Generator, settings: MasrNetTraining
) -> tuple[People, torch.Tensor]:
    group = company[int(torch.randint(len(company), (), generator=generator))]
    one, other = (group[n] for n in torch.randperm(len(group), generator=generator)[:2].tolist())
    people = draw_people(subjects[one], subjects[other], generator, settings.views)
    return people, balanced_places(people.first_labels, settings.between_places, generator)


def _mind_retrieval(views: Views, places: torch.Tensor) -> float:
    """The same score of MIND-SSC, as it is used here: radius 1, dilation 2."""
    one, two = (at_places(mind_ssc(image), places) for image in (views.first, views.second))
    return retrieval(one, two, compare="distance")
