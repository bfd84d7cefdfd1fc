"""Training of the gradient-guided registration: the four-part loss of Eq. 2 (Xu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from MMRegCore.networks.gradient_guided import GradientGuided, GradientGuidedSettings, gradient_map
from MMRegCore.ops import diffusion_energy
from MMRegCore.settings import setting
from MMRegCore.similarity.settings import SimilaritySettings
from MMRegCore.training.data.pairs import Pair
from MMRegCore.training.recipes.losses import warped_loss
from MMRegCore.training.recipes.pair_recipe import PairRecipe, PairTraining


@dataclass(frozen=True)
class GradientGuidedTraining(PairTraining):
    """``mmreg train gradient-guided``."""

    network: GradientGuidedSettings = GradientGuidedSettings()
    learning_rate: float = setting(1e-5, "Step size of Adam.", minimum=1e-9, maximum=1)
    # Absolute differences, Eq. 5.
    similarity: SimilaritySettings = SimilaritySettings(mind_norm="l1")
    gradient_similarity: float = setting(0.5, "α: weight of the similarity of the gradient maps.", minimum=0)
    gradient_smoothness: float = setting(0.5, "β: weight of the gradient branch's diffusion.", minimum=0)
    smoothness: float = setting(1.0, "γ: weight of the fused field's diffusion.", minimum=0)


class GradientGuidedRecipe(PairRecipe):
    """Similarity of the images under the fused field and of their gradient maps under the gradient branch's own."""

    network_class = GradientGuided
    settings_class = GradientGuidedTraining
    regularising = frozenset({"smoothness", "gradient smoothness"})
    settings: GradientGuidedTraining
    network: GradientGuided

    def loss_weights(self) -> dict[str, float]:
        """Of Eq. 2; the image branch alone has only the terms of the image."""
        weights = {"similarity": 1.0, "smoothness": self.settings.smoothness}
        if self.network.gradient_branch is not None:
            weights["gradient similarity"] = self.settings.gradient_similarity
            weights["gradient smoothness"] = self.settings.gradient_smoothness
        return weights

    def terms(self, pair: Pair) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Eqs. 3 and 5 of both fields."""
        with self._context.autocast():
            fused, by_gradient = self.network.fields(pair.fixed, pair.moving)
        terms = {
            "similarity": warped_loss(self._similarity, pair.fixed, pair.moving, fused),
            "smoothness": diffusion_energy(fused),
        }
        if by_gradient is not None:
            fixed, moving = gradient_map(pair.fixed), gradient_map(pair.moving)
            terms["gradient similarity"] = warped_loss(self._similarity, fixed, moving, by_gradient)
            terms["gradient smoothness"] = diffusion_energy(by_gradient)
        return terms, fused


RECIPE = GradientGuidedRecipe
