"""Training of the brain extraction: synthetic heads of label maps, the distance from the brain's surface."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from MMRegCore.networks.brain_unet import BrainUNet, BrainUNetSettings
from MMRegCore.settings import setting
from MMRegCore.training.data.heads import Head, HeadSettings, draw_head
from MMRegCore.training.data.subjects import TrainingData
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.engine.recipe import Recipe
from MMRegCore.training.settings import RecipeSettings

# Farther from the surface than this the distance is one number; within `_SOFT_MM` the mask is soft.
_CLIPPED_MM, _SOFT_MM = 8.0, 1.0


@dataclass(frozen=True)
class BrainUNetTraining(RecipeSettings):
    """``mmreg train brain-unet``: label maps of whole heads with FreeSurfer's numbers, 500 and up outside the brain."""

    network: BrainUNetSettings = BrainUNetSettings()
    heads: HeadSettings = HeadSettings()
    batch: int = setting(1, "Heads of one step.", minimum=1)
    validation_heads: int = setting(12, "Synthetic heads that are scored at each validation.", minimum=1)


class BrainUNetRecipe(Recipe):
    """One synthetic head after the other; the validation heads are the same whatever the training's seed."""

    network_class = BrainUNet
    settings_class = BrainUNetTraining
    score = "dice"
    max_grad_norm = 1.0
    settings: BrainUNetTraining

    def __init__(self, settings: BrainUNetTraining, data: TrainingData, context: ProcessContext) -> None:
        super().__init__(settings, data, context)
        self._heads = [Head.of(subject) for subject in data.training]
        random = torch.Generator().manual_seed(0)
        judged = [Head.of(subject) for subject in data.validation]
        self._judged = [
            draw_head(judged[n % len(judged)], random, settings.heads) for n in range(settings.validation_heads)
        ]

    def draw(self, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Images and distances; they differ in size."""
        return [
            draw_head(self._heads[int(torch.randint(len(self._heads), (), generator=generator))], generator, heads)
            for heads in [self.settings.heads] * self.settings.batch
        ]

    def loss(
        self, batch: list[tuple[torch.Tensor, torch.Tensor]], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Mean error of the clipped distance, and 1 − soft Dice."""
        device = self._context.device
        losses = [self._losses(image.to(device), distance.to(device)) for image, distance in batch]
        distance, overlap = (torch.stack(part).mean() for part in zip(*losses, strict=True))
        return {"loss": distance / _CLIPPED_MM + overlap, "distance_mm": distance, "overlap": overlap}

    def validate(self) -> dict[str, float]:
        """Dice of the brain, over all heads together."""
        self.network.eval()
        common = found = wanted = 0.0
        with torch.no_grad():
            for image, distance in self._judged:
                with self._context.autocast():
                    mask = self.network(image.to(self._context.device)).float().cpu() < 0
                mask, truth = mask & distance.isfinite(), distance < 0
                common += int((mask & truth).sum())
                found, wanted = found + int(mask.sum()), wanted + int(truth.sum())
        self.network.train()
        return {"dice": 2 * common / max(found + wanted, 1)}

    def _losses(self, image: torch.Tensor, distance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self._context.autocast():
            found = self.network(image)
        scanned = distance.isfinite()
        found, distance = found.float()[scanned], distance[scanned]
        wanted = distance.clamp(-_CLIPPED_MM, _CLIPPED_MM)
        # Beyond what counts, any value on the right side is right.
        beyond = wanted.abs() >= _CLIPPED_MM
        error = torch.where(beyond, (_CLIPPED_MM - found * wanted.sign()).clamp(min=0), (found - wanted).abs())
        mask, truth = torch.sigmoid(-found / _SOFT_MM), torch.sigmoid(-distance / (_SOFT_MM / 2))
        overlap = 1 - (2 * (mask * truth).sum() + 100) / (mask.sum() + truth.sum() + 100)
        return error.mean(), overlap


RECIPE = BrainUNetRecipe
