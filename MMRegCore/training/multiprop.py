"""Training of MultiPropReg: similarity at several resolutions, smooth velocities, no folds, features with a prior."""

from __future__ import annotations

from dataclasses import replace

import torch

from MMRegCore.config.pair_training import MultiPropTraining
from MMRegCore.errors import InputError
from MMRegCore.networks.flow import halved, padded_to, warp
from MMRegCore.networks.multiprop import MultiProp
from MMRegCore.training.data import TrainingData
from MMRegCore.training.distributed import Place
from MMRegCore.training.losses import diffusion_loss, folding_loss, latent_loss, local_correlation_loss, mind_loss
from MMRegCore.training.pairs import Pair, Pairs
from MMRegCore.training.recipe import Batches
from MMRegCore.training.registration import PairRecipe, pairs_of, training_grid

# Local correlation looks at smaller boxes at coarser resolutions (paper, section 4.1).
_WINDOWS = (9, 7, 5, 3, 3)


class MultiPropRecipe(PairRecipe):
    """The loss of Eq. 8 with the terms of Eqs. 11 and 12."""

    architecture = "multiprop"
    regularising = frozenset({"smoothness", "folding", "latent"})
    network: MultiProp

    def __init__(self, settings: MultiPropTraining, validation: Pairs, place: Place) -> None:
        self._form = settings.form
        self._resolutions = len(settings.similarity)
        weights = {_similarity_at(level): weight for level, weight in enumerate(settings.similarity)}
        weights |= {"smoothness": settings.smoothness, "folding": settings.folding, "latent": settings.latent}
        network = MultiProp(settings.network)
        super().__init__(network, settings.network.to_dict(), settings, validation, weights, place)

    def terms(self, pair: Pair) -> dict[str, torch.Tensor]:
        """Similarity at full, half, quarter … resolution, diffusion, folding, latent divergence."""
        with self._place.autocast():
            found = self.network.propagate(pair.fixed, pair.moving, strength=1.0)
        displacement = found.displacement_voxel
        terms = {_similarity_at(0): self._unlike(pair.fixed, warp(pair.moving, displacement), 0)}
        multiple = 2 ** len(found.scales)
        fixed, moving = padded_to(pair.fixed, multiple), padded_to(found.moving, multiple)
        for level in range(1, self._resolutions):
            fixed, moving = halved(fixed), halved(moving)
            terms[_similarity_at(level)] = self._unlike(fixed, warp(moving, found.scales[-level].displacement), level)
        terms["smoothness"] = diffusion_loss(found.scales[-1].velocity)
        terms["folding"] = folding_loss(displacement)
        latents = [latent for scale in found.scales for latent in (scale.fixed, scale.moving)]
        divergences = [latent_loss(latent.mean, latent.log_variance) for latent in latents]
        terms["latent"] = torch.stack(divergences).sum()
        return terms | self.told_terms(pair, displacement)

    def _unlike(self, fixed: torch.Tensor, warped: torch.Tensor, level: int) -> torch.Tensor:
        if self._form == "uni-modal":
            return local_correlation_loss(fixed, warped, window=_WINDOWS[level])
        return mind_loss(fixed, warped, radius=self._settings.mind_radius, dilation=self._settings.mind_dilation)


def make_multiprop(settings: MultiPropTraining, data: TrainingData, place: Place) -> tuple[MultiPropRecipe, Batches]:
    """The recipe, and batches of pairs."""
    if len(settings.similarity) > len(settings.network.features) + 1:
        raise InputError(
            f"expected similarity at no more than {len(settings.network.features) + 1} resolutions; "
            f"got {len(settings.similarity)} weights"
        )
    grid, trained_on = training_grid(data, settings.network.trained_on.spacing_mm)
    settings = replace(settings, network=replace(settings.network, trained_on=trained_on))
    training, validation = pairs_of(data, grid, settings.pairs)
    return MultiPropRecipe(settings, validation, place), training.draw


def _similarity_at(level: int) -> str:
    return f"similarity 1/{2**level}"
