"""Training of LapIRN: level by level, coarse to fine, with MIND, NMI or DNS."""

from __future__ import annotations

from dataclasses import replace

import torch

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
from MMRegCore.training.pairs import Pair, Pairs
from MMRegCore.training.recipe import Batches
from MMRegCore.training.registration import PairRecipe, pairs_of, training_grid


class LapIrnRecipe(PairRecipe):
    """The levels in turn; while one begins to learn, those below are frozen."""

    architecture = "lapirn"
    network: LapIrn

    def __init__(self, settings: LapIrnTraining, validation: Pairs, place: Place) -> None:
        self._lapirn = settings
        self._describer: MasrNet | None = None
        if settings.similarity == "dns":
            describer = load_network(settings.descriptor, architecture="masr-net").to(place.device)
            self._describer = describer if isinstance(describer, MasrNet) else None
        weights = {"similarity": 1.0, "smoothness": settings.smoothness}
        super().__init__(LapIrn(settings.network), settings.network.to_dict(), settings, validation, weights, place)
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
    training, validation = pairs_of(data, grid, settings.pairs)
    return LapIrnRecipe(settings, validation, place), training.draw


def _described(images: torch.Tensor, describer: MasrNet) -> torch.Tensor:
    """DNS of each image of a batch (B, 1, D, H, W)."""
    return torch.cat([dns(image, describer) for image in images.split(1)])
