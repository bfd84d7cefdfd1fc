"""How registration networks are trained on pairs of images; the terms of the loss are each network's own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from MMRegCore.errors import InputError
from MMRegCore.evaluate.overlap import dice
from MMRegCore.networks.protocol import RegistrationNetwork, RegistrationNetworkSettings, TrainingDomain
from MMRegCore.networks.weights import channels_last
from MMRegCore.ops import jacobian_determinant, warp
from MMRegCore.settings import setting
from MMRegCore.similarity import make_similarity
from MMRegCore.similarity.settings import SimilaritySettings
from MMRegCore.training.data.pairs import Pair, Pairs, PairSettings, pairs_of_splits
from MMRegCore.training.data.subjects import TrainingData
from MMRegCore.training.engine.bilevel import Bilevel, BilevelSettings, step_of_adam
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.engine.recipe import Recipe
from MMRegCore.training.recipes.losses import folding_loss, known_displacement_loss, soft_dice_loss
from MMRegCore.training.settings import RecipeSettings

# Pairs of the validation split that are scored; labels that the loss compares in one step, and how often blurred.
_VALIDATION_PAIRS, _LABELS, _BLUR = 6, 8, 1


@dataclass(frozen=True)
class PairTraining(RecipeSettings):
    """Base of the trainings on pairs of images."""

    network: RegistrationNetworkSettings = RegistrationNetworkSettings()
    pairs: PairSettings = PairSettings()
    max_grad_norm: float = setting(
        1.0, "Longer gradients are cut to this length: one unusual pair must not undo the training.", minimum=1e-6
    )
    similarity: SimilaritySettings = SimilaritySettings()
    label_weight: float = setting(
        0.0, "Weight of 1 - Dice of the training subjects' labels; 0, as published, needs no labels.", minimum=0
    )
    known_displacement_weight: float = setting(
        1.0, "Weight of the mean squared distance, in voxels, to a known displacement.", minimum=0
    )
    bilevel: BilevelSettings = BilevelSettings()


class PairRecipe(Recipe):
    """Training of one registration network, on an axis-aligned grid about the first of the training subjects."""

    network_class: ClassVar[type[RegistrationNetwork]]
    # The terms of the loss that depend on the displacement alone.
    regularising: ClassVar[frozenset[str]] = frozenset({"smoothness"})
    settings: PairTraining
    network: RegistrationNetwork

    def __init__(self, settings: PairTraining, data: TrainingData, context: ProcessContext) -> None:
        spacing_mm = settings.network.trained_on.spacing_mm
        self.grid = data.training[0].grid.axis_aligned(spacing_mm)
        domain = TrainingDomain(spacing_mm, tuple(round(n * spacing_mm, 3) for n in self.grid.shape))
        settings = replace(settings, network=replace(settings.network, trained_on=domain))
        self.max_grad_norm = settings.max_grad_norm
        self._similarity = make_similarity(settings.similarity)
        # The same for all trainings, so that they can be compared.
        self._validated = make_similarity(replace(settings.similarity, name="mind", mind_norm="l2"))
        super().__init__(settings, data, context)
        channels_last(self.network)
        weights = self.loss_weights()
        if settings.label_weight > 0:
            weights["labels"] = settings.label_weight
        if settings.pairs.known_displacement > 0:
            weights["known displacement"] = settings.known_displacement_weight
        self._names = tuple(weights)
        self._bilevel = Bilevel(weights, self.regularising, settings.bilevel, context)
        self._training, self._validation = self.make_pairs(data)
        self._validation_pairs = self._validation.first(_VALIDATION_PAIRS)
        labelled = self._validation_pairs[0].fixed_labels is not None
        if settings.bilevel.every > 0 and settings.bilevel.objective == "dice" and not labelled:
            raise InputError("expected labels for bilevel.objective = dice; the validation split has none")
        self.score = "dice" if labelled else "similarity"

    @abstractmethod
    def loss_weights(self) -> dict[str, float]:
        """The terms of the loss by name, and their weights λ."""

    @abstractmethod
    def terms(self, pair: Pair) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The terms of the loss on a batch, unweighted, and the displacement (B, 3, D, H, W)."""

    def begin_step(self, step: int) -> None:
        """Do what changes with the course of the training; ``step`` counts from 0."""

    def make_pairs(self, data: TrainingData) -> tuple[Pairs, Pairs]:
        """The pairs of both splits."""
        return pairs_of_splits(data, self.grid, self.settings.pairs)

    def predict(self, pair: Pair) -> torch.Tensor:
        """The displacement (B, 3, D, H, W) that is validated."""
        with self._context.autocast():
            displacement: torch.Tensor = self.network(pair.fixed, pair.moving)
        return displacement

    def dissimilarity(self, pair: Pair, displacement: torch.Tensor) -> torch.Tensor:
        """How different fixed and warped images are in validation: their distance by MIND."""
        return self._validated.loss(pair.fixed, warp(pair.moving, displacement))

    def draw(self, generator: torch.Generator) -> Pair:
        """A batch of pairs."""
        return self._training.draw(generator)

    def loss(self, batch: Pair, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The weighted terms, and before them, where that is due, an update of their weights."""
        self.begin_step(self._steps)
        pair = batch.to(self._context.device)
        if self._bilevel.due(self._steps):
            self._learn_weights(pair, generator)
        weights, terms = self._bilevel.weights, self._all_terms(pair)
        losses = {"loss": (torch.stack(list(terms.values())) * weights).sum(), **terms}
        if self.settings.bilevel.every > 0:
            losses |= {f"weight of {name}": weight for name, weight in zip(self._names, weights, strict=True)}
        return losses

    def validate(self) -> dict[str, float]:
        """Dice before and after, folded voxels, MIND distance before and after; means over the pairs."""
        self.network.eval()
        with torch.no_grad():
            rows = [self._scores(pair.to(self._context.device)) for pair in self._validation_pairs]
        self.network.train()
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    def state_dict(self) -> dict[str, Any]:
        """With the weights of the loss."""
        return {**super().state_dict(), "bilevel": self._bilevel.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`."""
        super().load_state_dict(state)
        self._bilevel.load_state_dict(state["bilevel"])

    def upper(self, pair: Pair) -> torch.Tensor:
        """The objective of the upper level on a validation pair; does not depend on λ (paper, below Eq. 14)."""
        displacement = self.predict(pair)
        folding = folding_loss(displacement)
        if self.settings.bilevel.objective == "similarity":
            return self.dissimilarity(pair, displacement) + folding
        if pair.fixed_labels is None or pair.moving_labels is None:
            raise InputError("expected labels for bilevel.objective = dice; a validation subject has none")
        return soft_dice_loss(pair.fixed_labels, pair.moving_labels, displacement, blur=_BLUR) + folding

    def _all_terms(self, pair: Pair) -> dict[str, torch.Tensor]:
        """The terms in the order of their weights, with the supervised ones that have a weight."""
        terms, displacement = self.terms(pair)
        if "labels" in self._names:
            if pair.fixed_labels is None or pair.moving_labels is None:
                raise InputError("expected labels for every training subject, or label_weight = 0; a subject has none")
            labels = pair.fixed_labels, pair.moving_labels
            terms["labels"] = soft_dice_loss(*labels, displacement, most=_LABELS, blur=_BLUR)
        if "known displacement" in self._names:
            terms["known displacement"] = known_displacement_loss(pair.fixed, displacement, pair.displacement_voxel)
        return {name: terms[name].float() for name in self._names}

    def _learn_weights(self, pair: Pair, generator: torch.Generator) -> None:
        validation = self._validation.draw(generator).to(self._context.device)
        seed = int(torch.randint(2**62, (), generator=generator))

        def terms() -> torch.Tensor:
            # Latents are sampled: from a stream of their own, so that the step itself draws as it would without.
            with torch.random.fork_rng(devices=self._context.fork_devices):
                torch.manual_seed(seed)
                return torch.stack(list(self._all_terms(pair).values()))

        parameters, stepper = list(self.network.parameters()), step_of_adam(self._optimiser)
        self._bilevel.update(terms, lambda: self.upper(validation), parameters, stepper, self.max_grad_norm)

    def _scores(self, pair: Pair) -> dict[str, float]:
        displacement = self.predict(pair)
        zero = torch.zeros_like(displacement)
        scores = {
            "similarity": -float(self.dissimilarity(pair, displacement)),
            "similarity before": -float(self.dissimilarity(pair, zero)),
            "folds": float((jacobian_determinant(displacement, "forward") <= 0).sum()),
        }
        if pair.fixed_labels is not None and pair.moving_labels is not None:
            scores["dice"] = _mean_dice(pair.fixed_labels, pair.moving_labels, displacement)
            scores["dice before"] = _mean_dice(pair.fixed_labels, pair.moving_labels, zero)
        return scores


def _mean_dice(fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor) -> float:
    """Mean Dice over the labels that both maps (1, 1, D, H, W) have, ``moving`` warped to the nearest voxel."""
    common = [int(n) for n in fixed.unique() if n != 0 and bool((moving == n).any())]
    found = dice(warp(moving, displacement, mode="nearest"), fixed, common).values()
    return sum(found) / max(len(found), 1)
