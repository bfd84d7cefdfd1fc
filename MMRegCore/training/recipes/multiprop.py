"""Training of MultiPropReg: similarity at several resolutions, smooth velocities, no folds, features with a prior."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from MMRegCore.errors import InputError
from MMRegCore.networks.blocks import avg_pool2, pad_to_multiple
from MMRegCore.networks.multiprop import MultiProp, MultiPropSettings
from MMRegCore.ops import diffusion_energy
from MMRegCore.settings import setting
from MMRegCore.similarity import make_similarity
from MMRegCore.training.data.pairs import Pair
from MMRegCore.training.data.subjects import TrainingData
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.recipes.losses import folding_loss, latent_loss, warped_loss
from MMRegCore.training.recipes.pair_recipe import PairRecipe, PairTraining


@dataclass(frozen=True)
class MultiPropTraining(PairTraining):
    """``mmreg train multiprop``."""

    network: MultiPropSettings = MultiPropSettings()
    similarity_weights: tuple[float, ...] = setting(
        (15.0, 3.2, 0.8), "Weights of the similarity at full, half, quarter … resolution.", minimum=0
    )
    smoothness: float = setting(10.0, "Weight of the diffusion of the velocity.", minimum=0)
    folding: float = setting(0.1, "Weight of negative Jacobian determinants.", minimum=0)
    latent: float = setting(1e-3, "Weight of the features' Kullback-Leibler divergence.", minimum=0)

    def check_together(self) -> None:
        """Raise `InputError` when there are more weights than resolutions."""
        most = len(self.network.features) + 1
        if len(self.similarity_weights) > most:
            raise InputError(
                f"expected similarity at no more than {most} resolutions; got {len(self.similarity_weights)} weights"
            )


class MultiPropRecipe(PairRecipe):
    """The loss of Eq. 8 with the terms of Eqs. 11 and 12."""

    network_class = MultiProp
    settings_class = MultiPropTraining
    regularising = frozenset({"smoothness", "folding", "latent"})
    settings: MultiPropTraining
    network: MultiProp

    def __init__(self, settings: MultiPropTraining, data: TrainingData, context: ProcessContext) -> None:
        super().__init__(settings, data, context)
        half_width = settings.similarity.ncc_half_width
        # Boxes of local correlation shrink with the resolution (paper, section 4.1).
        self._similarities = [
            make_similarity(replace(settings.similarity, ncc_half_width=max(half_width - level, 1)))
            for level in range(len(settings.similarity_weights))
        ]

    def loss_weights(self) -> dict[str, float]:
        """Similarity by resolution, then what regularises."""
        names = ("smoothness", "folding", "latent")
        similarities = {_name(level): weight for level, weight in enumerate(self.settings.similarity_weights)}
        return {**similarities, **{name: getattr(self.settings, name) for name in names}}

    def terms(self, pair: Pair) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Similarity at full, half, quarter … resolution, diffusion, folding, latent divergence."""
        with self._context.autocast():
            found = self.network.propagate(pair.fixed, pair.moving, strength=1.0)
        fixed, moving, displacement = pair.fixed, pair.moving, found.displacement_voxel
        terms = {_name(0): warped_loss(self._similarities[0], fixed, moving, displacement)}
        multiple = 2 ** len(found.scales)
        fixed, moving = pad_to_multiple(fixed, multiple), pad_to_multiple(found.moving, multiple)
        for level, similarity in enumerate(self._similarities[1:], start=1):
            fixed, moving = avg_pool2(fixed), avg_pool2(moving)
            terms[_name(level)] = warped_loss(similarity, fixed, moving, found.scales[-level].displacement)
        terms["smoothness"] = diffusion_energy(found.scales[-1].velocity)
        terms["folding"] = folding_loss(displacement)
        divergences = [latent_loss(one.mean, one.log_variance) for scale in found.scales for one in scale.latents]
        terms["latent"] = torch.stack(divergences).sum()
        return terms, displacement


def _name(level: int) -> str:
    return f"similarity 1/{2**level}"


RECIPE = MultiPropRecipe
