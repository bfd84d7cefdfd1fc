"""Anatomy-aware contrastive learning of MASR-Net: two images of the same anatomy, the same descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from MMRegCore.networks.masrnet import LARGE_VOXELS, MasrNet, MasrNetSettings
from MMRegCore.settings import setting
from MMRegCore.similarity.descriptors.mind import mind_ssc
from MMRegCore.training.data.patches import PatchPair, PatchSettings, draw_patches
from MMRegCore.training.data.subjects import Subjects, TrainingData
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.engine.recipe import Recipe
from MMRegCore.training.recipes.contrastive import at_points, contrastive_loss, foreground_points, retrieval
from MMRegCore.training.recipes.neighbourhood import multiscale, neighbourhood_loss
from MMRegCore.training.settings import RecipeSettings

Reduced = TypeVar("Reduced")
# Two images of the same anatomy, and sample points in them.
Batch = tuple[PatchPair, torch.Tensor]
# Sample points among which the right one is to be found in validation.
_VALIDATION_POINTS = 2048


@dataclass(frozen=True)
class MasrNetTraining(RecipeSettings):
    """Anatomy-aware contrastive learning of MASR-Net (Mok et al. 2024, section 3.3)."""

    network: MasrNetSettings = MasrNetSettings()
    samples: int = setting(8196, "Sample points compared with each other in each pair of images (N^k).", minimum=2)
    neighbours: float = setting(
        0.0,
        "Weight of Eq. 4 among the points within two voxels, smoothed and at three scales, as registration "
        "compares descriptors; 0 as published.",
        minimum=0,
    )
    temperature: float = setting(0.07, "τ of Eq. 4.", minimum=1e-3, maximum=10)
    validation_pairs: int = setting(8, "Pairs of images that are scored at each validation.", minimum=1)
    patches: PatchSettings = PatchSettings()


class MasrNetRecipe(Recipe):
    """Contrastive training; the validation pairs are the same whatever the training's seed."""

    network_class = MasrNet
    settings_class = MasrNetTraining
    score = "retrieval"
    settings: MasrNetTraining

    def __init__(self, settings: MasrNetTraining, data: TrainingData, context: ProcessContext) -> None:
        super().__init__(settings, data, context)
        self._subjects = data.training
        random = torch.Generator().manual_seed(0)
        self._pairs = [
            self._drawn(data.validation, random, _VALIDATION_POINTS) for _ in range(settings.validation_pairs)
        ]
        self._mind_score = sum(_mind_retrieval(*pair) for pair in self._pairs) / len(self._pairs)

    def draw(self, generator: torch.Generator) -> Batch:
        """Two patches of one subject, and sample points in their foreground."""
        return self._drawn(self._subjects, generator, self.settings.samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Eq. 4, and where the settings ask for it, the same among neighbours."""
        patches, points = batch
        weight, temperature = self.settings.neighbours, self.settings.temperature
        (one, *scales_one), (two, *scales_two) = self._describe(
            patches, lambda found: [at_points(found, points), *(multiscale(found) if weight > 0 else [])]
        )
        losses = {"contrastive": contrastive_loss(one, two, temperature)}
        loss = losses["contrastive"]
        if weight > 0:
            found = neighbourhood_loss(scales_one, scales_two, patches.foreground, generator, temperature)
            losses["neighbours"], loss = found, loss + weight * found
        return {"loss": loss, **losses}

    def validate(self) -> dict[str, float]:
        """How often the right point is found among 2048, in pairs never trained on; by MIND-SSC for comparison."""
        self.network.eval()
        with torch.no_grad():
            scores = [
                retrieval(*self._describe(pair, partial(at_points, points=points))) for pair, points in self._pairs
            ]
        self.network.train()
        return {"retrieval": sum(scores) / len(scores), "retrieval of MIND": self._mind_score}

    def _drawn(self, subjects: Subjects, generator: torch.Generator, count: int) -> Batch:
        patches = draw_patches(subjects.draw(generator), generator, self.settings.patches)
        return patches, foreground_points(patches.foreground, count, generator)

    def _describe(self, patches: PatchPair, reduce: Callable[[torch.Tensor], Reduced]) -> list[Reduced]:
        """What ``reduce`` makes of the descriptors (1, C, n, n, n) of each of the two patches."""

        def describe(images: torch.Tensor) -> list[Reduced]:
            with self._context.autocast():
                descriptors = self.network(images)
            return [reduce(one) for one in descriptors.float().split(1)]

        images = [image.to(self._context.device) for image in (patches.first, patches.second)]
        if patches.first.numel() <= LARGE_VOXELS:
            return describe(torch.cat(images))
        # One after the other, and again in the backward pass: only what is reduced is stored of the first meanwhile.
        return [found for image in images for found in checkpoint(describe, image, use_reentrant=False)]


def _mind_retrieval(patches: PatchPair, points: torch.Tensor) -> float:
    """The same score of MIND-SSC with radius 1 and dilation 2."""
    one, two = (at_points(mind_ssc(image), points) for image in (patches.first, patches.second))
    return retrieval(one, two, compare="distance")


RECIPE = MasrNetRecipe
