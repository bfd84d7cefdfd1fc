"""Training of LapIRN: level by level, coarse to fine, with MIND, NMI or DNS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch

from MMRegCore.config.networks import LapIrnSettings
from MMRegCore.config.pair_training import LapIrnTraining
from MMRegCore.errors import InputError
from MMRegCore.features.dns import dns
from MMRegCore.networks.flow import halved, padded_to, warp
from MMRegCore.networks.lapirn import LEVELS, LapIrn, LevelField
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network
from MMRegCore.training.data import TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.losses import cosine_loss, diffusion_loss, mind_loss, mutual_information_loss
from MMRegCore.training.pairs import Pair, Pairs, Seen
from MMRegCore.training.recipe import Batches
from MMRegCore.training.registration import PairRecipe, pairs_of, training_grid


class LapIrnRecipe(PairRecipe):
    """The levels in turn; while one begins to learn, those below are frozen."""

    architecture = "lapirn"
    network: LapIrn

    def __init__(
        self, network: LapIrn, settings: LapIrnTraining, validation: Pairs, place: Place, describer: MasrNet | None
    ) -> None:
        self._lapirn, self._describer = settings, describer
        weights = {"similarity": 1.0, "smoothness": settings.smoothness}
        super().__init__(network, settings.network.to_dict(), settings, validation, weights, place)
        self._levels = 1

    def begin_step(self, step: int) -> None:
        """Choose the level that learns, and freeze those below for a while."""
        begins = [0, *(sum(self._lapirn.level_steps[: n + 1]) for n in range(LEVELS - 1))]
        self._levels = sum(step >= begin for begin in begins)
        frozen = step < begins[self._levels - 1] + self._lapirn.frozen_steps
        for index, level in enumerate(self.network.levels):
            level.requires_grad_(index == self._levels - 1 or (index < self._levels - 1 and not frozen))

    def predicted(self, pair: Pair) -> torch.Tensor:
        """The displacement of the levels that have begun to learn."""
        return self.network.at_full_resolution(self._fields(pair), pair.fixed)

    def terms(self, pair: Pair) -> dict[str, torch.Tensor]:
        """Diffusion of the field of the level that learns; similarity there and, with half the weight each, below."""
        fields = self._fields(pair)
        terms = {"similarity": self._unlike(pair, fields[-1]), "smoothness": diffusion_loss(fields[-1].flow)}
        return terms | self.told_terms(pair, self.network.at_full_resolution(fields, pair.fixed))

    def dissimilarity(self, pair: Pair, displacement: torch.Tensor) -> torch.Tensor:
        """Where descriptors are seen, one minus the mean cosine of those."""
        if self.network.describer is None:
            return super().dissimilarity(pair, displacement)
        return cosine_loss(pair.fixed, warp(pair.moving, displacement))

    def _fields(self, pair: Pair) -> list[LevelField]:
        with self._place.autocast():
            return self.network.fields(pair.fixed, pair.moving, self._levels)

    def _unlike(self, pair: Pair, field: LevelField) -> torch.Tensor:
        multiple = 2**LEVELS
        fixed, moving = padded_to(pair.fixed, multiple), padded_to(pair.moving, multiple)
        for _ in range(LEVELS - self._levels):
            fixed, moving = halved(fixed), halved(moving)
        if self._describer is not None:
            fixed, moving = _described(fixed, self._describer), _described(moving, self._describer)
        warped = warp(moving, field.displacement)
        loss = self._compared(fixed, warped)
        for level in range(1, self._levels):
            fixed, warped = halved(fixed), halved(warped)
            loss = loss + self._compared(fixed, warped) / 2**level
        return loss

    def _compared(self, fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        if self._lapirn.similarity == "dns":
            return cosine_loss(fixed, warped)
        if self._lapirn.similarity == "nmi":
            return mutual_information_loss(fixed, warped)
        return mind_loss(fixed, warped, radius=self._settings.mind_radius, dilation=self._settings.mind_dilation)


def make_lapirn(settings: LapIrnTraining, data: TrainingData, place: Place) -> tuple[LapIrnRecipe, Batches]:
    """The recipe, and batches of pairs."""
    if len(settings.level_steps) != LEVELS - 1:
        raise InputError(f"expected the steps of {LEVELS - 1} levels; got {len(settings.level_steps)}")
    grid, trained_on = training_grid(data, settings.network.trained_on.spacing_mm)
    settings = replace(settings, network=replace(settings.network, trained_on=trained_on))
    describer: MasrNet | None = None
    if settings.similarity == "dns":
        describer = cast(MasrNet, load_network(settings.descriptor, architecture="masr-net")).to(place.device)
    if settings.network.inputs == "images":
        training, validation = pairs_of(data, grid, settings.pairs)
        return LapIrnRecipe(LapIrn(settings.network), settings, validation, place, describer), training.draw
    if describer is None or settings.pairs.known > 0:
        raise InputError(
            "expected similarity = dns and pairs.known = 0 for network.inputs = descriptors, beside which there are no "
            f"images; got {settings.similarity} and {settings.pairs.known:g}"
        )
    settings = replace(settings, network=replace(settings.network, describer=describer.settings))
    network = _seeing(settings.network, describer).to(place.device)
    training, validation = pairs_of(data, grid.pooled(2), settings.pairs, Seen(grid, _describe_by(network, place)))
    # What it sees is described already, and compared as it is.
    return LapIrnRecipe(network, settings, validation, place, None), training.draw


def _seeing(settings: LapIrnSettings, describer: MasrNet) -> LapIrn:
    """A network that sees what the describer says."""
    network = LapIrn(settings)
    if network.describer is not None:
        network.describer.load_state_dict(describer.state_dict())
    return network


def _describe_by(network: LapIrn, place: Place) -> Callable[[torch.Tensor], torch.Tensor]:
    def describe(image: torch.Tensor) -> torch.Tensor:
        with place.autocast():
            return network.described(image.to(place.device)).cpu()

    return describe


def _described(images: torch.Tensor, describer: MasrNet) -> torch.Tensor:
    """DNS of each image of a batch (B, 1, D, H, W)."""
    return torch.cat([dns(image, describer) for image in images.split(1)])
