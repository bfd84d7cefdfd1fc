"""How a registration network is trained on pairs of images; what it is that is lost is each network's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from MMRegCore.config.networks import TrainedOn
from MMRegCore.config.pair_training import PairSettings, PairTraining
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.networks.flow import warp
from MMRegCore.networks.weights import with_channels_together
from MMRegCore.similarity import dice
from MMRegCore.training.bilevel import Bilevel, step_of_adam
from MMRegCore.training.data import Subject, TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.losses import folding_loss, jacobian_determinant, known_loss, mind_loss, soft_dice_loss
from MMRegCore.training.pairs import Pair, Pairs, Seen
from MMRegCore.training.recipe import rate_at

# Pairs of the validation split that are scored; labels that the loss looks at in one step, and how often blurred.
_VALIDATED, _LABELS, _BLUR = 6, 8, 1


class PairRecipe(ABC):
    """Training of one registration network; see `MMRegCore.training.recipe.Recipe`.

    Parameters
    ----------
    network : nn.Module
        ``network(fixed, moving)`` is the displacement.
    settings : PairTraining
    validation : Pairs
        Judges the network and, in bilevel training, the weights of the loss.
    weights : mapping of str to float
        The terms of the loss by name, and their weights λ.
    place : Place
    """

    architecture: str
    # Terms of the loss that ask what the displacement is like, not what it matches.
    regularising: frozenset[str] = frozenset({"smoothness"})

    def __init__(
        self,
        network: nn.Module,
        network_settings: dict[str, Any],
        settings: PairTraining,
        validation: Pairs,
        weights: Mapping[str, float],
        place: Place,
    ) -> None:
        self.network, self.network_settings = with_channels_together(network.to(place.device)), network_settings
        self._settings, self._place, self._validation = settings, place, validation
        if settings.labels > 0:
            weights = {**weights, "labels": settings.labels}
        if settings.pairs.known > 0:
            weights = {**weights, "known": settings.known}
        self._names = tuple(weights)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self._bilevel = Bilevel(weights, self.regularising, settings.bilevel, place)
        self._steps = 0
        self._pairs = validation.all_of(_VALIDATED)
        labelled = self._pairs[0].fixed_labels is not None
        if settings.bilevel.every > 0 and settings.bilevel.objective == "dice" and not labelled:
            raise InputError("expected labels for bilevel.objective = dice; the validation split has none")
        self.score = "dice" if labelled else "similarity"

    @abstractmethod
    def terms(self, pair: Pair) -> dict[str, torch.Tensor]:
        """The terms of the loss on a batch, unweighted, under the names that they have weights for."""

    def begin_step(self, step: int) -> None:  # noqa: B027 - most trainings are the same from begin to end
        """Do what changes with the course of the training; ``step`` counts from 0."""

    def predicted(self, pair: Pair) -> torch.Tensor:
        """The displacement (B, 3, D, H, W) that is validated."""
        with self._place.autocast():
            displacement: torch.Tensor = self.network(pair.fixed, pair.moving)
        return displacement

    def step(self, batch: Pair, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam, and before it, where it is time, one of the upper level."""
        self.begin_step(self._steps)
        rate = rate_at(self._settings, self._steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        pair = batch.to(self._place.device)
        if self._bilevel.due(self._steps):
            self._learn_weights(pair, generator)
        weights = self._bilevel.weights
        found = self.terms(pair)
        loss = (self._together(found) * weights).sum()
        self._optimiser.zero_grad()
        loss.backward()
        self._place.average_gradients(self.network.parameters())
        length = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._settings.longest_gradient)
        self._optimiser.step()
        self._steps += 1
        losses = {"loss": float(loss.detach()), "gradient": float(length)} | {
            name: float(value.detach()) for name, value in found.items()
        }
        if self._settings.bilevel.every > 0:
            losses |= {f"weight of {name}": float(w) for name, w in zip(self._names, weights, strict=True)}
        return losses

    def validate(self) -> dict[str, float]:
        """Dice before and after, folded voxels, MIND distance before and after; means over the pairs."""
        self.network.eval()
        with torch.no_grad():
            rows = [self._scores(pair.to(self._place.device)) for pair in self._pairs]
        self.network.train()
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, λ and its optimiser, steps."""
        return {
            "network": self.network.state_dict(),
            "adam": self._optimiser.state_dict(),
            "bilevel": self._bilevel.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["adam"])
        self._bilevel.load_state_dict(state["bilevel"])
        self._steps = int(state["steps"])

    def upper(self, pair: Pair) -> torch.Tensor:
        """What the upper level makes small on a validation pair; does not depend on λ (paper, below Eq. 14)."""
        displacement = self.predicted(pair)
        if self._settings.bilevel.objective == "dice":
            if pair.fixed_labels is None or pair.moving_labels is None:
                raise InputError("expected labels for bilevel.objective = dice; a validation subject has none")
            apart = soft_dice_loss(pair.fixed_labels, pair.moving_labels, displacement, blur=_BLUR)
            return apart + folding_loss(displacement)
        return self.dissimilarity(pair, displacement) + folding_loss(displacement)

    def told_terms(self, pair: Pair, displacement: torch.Tensor) -> dict[str, torch.Tensor]:
        """What labels and a known displacement add to the loss; nothing where they have no weight."""
        terms = {}
        if "labels" in self._names:
            if pair.fixed_labels is None or pair.moving_labels is None:
                raise InputError("expected labels for every training subject, or labels = 0; a subject has none")
            terms["labels"] = soft_dice_loss(
                pair.fixed_labels, pair.moving_labels, displacement, most=_LABELS, blur=_BLUR
            )
        if "known" in self._names:
            terms["known"] = known_loss(pair.fixed, displacement, pair.displacement_voxel)
        return terms

    def _learn_weights(self, pair: Pair, generator: torch.Generator) -> None:
        judged = self._validation.draw(generator).to(self._place.device)
        seed = int(torch.randint(2**62, (), generator=generator))

        def terms() -> torch.Tensor:
            # Latents are sampled: from a stream of their own, so that the step itself draws as it would without.
            with torch.random.fork_rng(devices=[self._place.device] if self._place.device.type == "cuda" else []):
                torch.manual_seed(seed)
                return self._together(self.terms(pair))

        self._bilevel.update(
            terms,
            lambda: self.upper(judged),
            list(self.network.parameters()),
            step_of_adam(self._optimiser),
            self._settings.longest_gradient,
        )

    def _together(self, found: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([found[name].float() for name in self._names])

    def dissimilarity(self, pair: Pair, displacement: torch.Tensor) -> torch.Tensor:
        """How far the warped images are apart, by which validation judges: MIND distance."""
        radius, dilation = self._settings.mind_radius, self._settings.mind_dilation
        return mind_loss(pair.fixed, warp(pair.moving, displacement), radius=radius, dilation=dilation)

    def _scores(self, pair: Pair) -> dict[str, float]:
        displacement = self.predicted(pair)
        nothing = torch.zeros_like(displacement)
        scores = {
            "similarity": -float(self.dissimilarity(pair, displacement)),
            "similarity before": -float(self.dissimilarity(pair, nothing)),
            "folds": float((jacobian_determinant(displacement) <= 0).sum()),
        }
        if pair.fixed_labels is not None and pair.moving_labels is not None:
            scores["dice"] = mean_dice(pair.fixed_labels, pair.moving_labels, displacement)
            scores["dice before"] = mean_dice(pair.fixed_labels, pair.moving_labels, nothing)
        return scores


def pairs_of(data: TrainingData, grid: Grid, settings: PairSettings, seen: Seen | None = None) -> tuple[Pairs, Pairs]:
    """The pairs of the training and of the validation split; `InputError` where they cannot be made."""
    atlas: Subject | None = None
    if settings.atlas:
        if settings.atlas not in data.training.names:
            raise InputError(f"expected the atlas among the training subjects; got '{settings.atlas}'")
        atlas = data.training[data.training.names.index(settings.atlas)]
    training, validation = (Pairs(split, grid, settings, atlas, seen) for split in (data.training, data.validation))
    return training, validation


def mean_dice(fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor) -> float:
    """Mean Dice over the labels that both maps (1, 1, D, H, W) have, ``moving`` warped to the nearest voxel."""
    numbers = [int(n) for n in fixed.unique() if n != 0 and bool((moving == n).any())]
    found = list(dice(nearest(moving, displacement), fixed, numbers).values())
    return sum(found) / max(len(found), 1)


def nearest(labels: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Label maps (B, 1, D, H, W) pulled through a displacement without mixing: the label of the nearest voxel."""
    from MMRegCore.warp import warp as pulled

    return pulled(labels, displacement, mode="nearest")


def training_grid(data: TrainingData, spacing_mm: float) -> tuple[Grid, TrainedOn]:
    """The grid that a training works on, about the first of its subjects, and what the card says of it."""
    grid = data.training[0].grid.upright(spacing_mm)
    extent = tuple(round(n * spacing_mm, 3) for n in grid.shape)
    return grid, replace(TrainedOn(), spacing_mm=spacing_mm, extent_mm=extent)
