"""Training of the gradient-guided registration: the four-part loss of Eq. 2."""

from __future__ import annotations

from dataclasses import replace

import torch

from MMRegCore.config.pair_training import GradientGuidedTraining
from MMRegCore.networks.flow import warp
from MMRegCore.networks.gradient_guided import GradientGuided, gradient_map
from MMRegCore.training.data import TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.losses import diffusion_loss, mind_loss
from MMRegCore.training.pairs import Pair, Pairs
from MMRegCore.training.recipe import Batches
from MMRegCore.training.registration import PairRecipe, pairs_of, training_grid


class GradientGuidedRecipe(PairRecipe):
    """Similarity of the images under the fused field and of their gradient maps under the gradient branch's own."""

    architecture = "gradient-guided"
    regularising = frozenset({"smoothness", "gradient smoothness"})
    network: GradientGuided

    def __init__(self, settings: GradientGuidedTraining, validation: Pairs, place: Place) -> None:
        weights = {"similarity": 1.0, "smoothness": settings.smoothness}
        if settings.network.fusion != "image":
            weights |= {
                "gradient similarity": settings.gradient_similarity,
                "gradient smoothness": settings.gradient_smoothness,
            }
        network = GradientGuided(settings.network)
        super().__init__(network, settings.network.to_dict(), settings, validation, weights, place)

    def terms(self, pair: Pair) -> dict[str, torch.Tensor]:
        """Eqs. 3 and 5 of both fields; the image branch alone has only those of the image."""
        with self._place.autocast():
            fused, by_gradient = self.network.fields(pair.fixed, pair.moving)
        terms = {
            "similarity": self._unlike(pair.fixed, warp(pair.moving, fused)),
            "smoothness": diffusion_loss(fused),
        }
        if by_gradient is not None:
            fixed, moving = gradient_map(pair.fixed), gradient_map(pair.moving)
            terms["gradient similarity"] = self._unlike(fixed, warp(moving, by_gradient))
            terms["gradient smoothness"] = diffusion_loss(by_gradient)
        return terms | self.told_terms(pair, fused)

    def _unlike(self, fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        radius, dilation = self._settings.mind_radius, self._settings.mind_dilation
        return mind_loss(fixed, warped, radius=radius, dilation=dilation, squared=False)


def make_gradient_guided(
    settings: GradientGuidedTraining, data: TrainingData, place: Place
) -> tuple[GradientGuidedRecipe, Batches]:
    """The recipe, and batches of pairs."""
    grid, trained_on = training_grid(data, settings.network.trained_on.spacing_mm)
    settings = replace(settings, network=replace(settings.network, trained_on=trained_on))
    training, validation = pairs_of(data, grid, settings.pairs)
    return GradientGuidedRecipe(settings, validation, place), training.draw
