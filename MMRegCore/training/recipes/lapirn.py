"""Training of LapIRN: level by level, coarse to fine (Mok and Chung 2020)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import torch

from MMRegCore.errors import InputError
from MMRegCore.networks.blocks import avg_pool2, pad_to_multiple
from MMRegCore.networks.lapirn import LEVELS, LapIrn, LapIrnSettings, LevelField
from MMRegCore.ops import diffusion_energy, warp
from MMRegCore.settings import setting
from MMRegCore.similarity.descriptors.dns import Dns
from MMRegCore.training.data.pairs import Encoder, Pair, Pairs, pairs_of_splits
from MMRegCore.training.data.subjects import TrainingData
from MMRegCore.training.recipes.losses import encoded_loss
from MMRegCore.training.recipes.pair_recipe import PairRecipe, PairTraining


@dataclass(frozen=True)
class LapIrnTraining(PairTraining):
    """``mmreg train lapirn``: the levels in turn, coarse to fine."""

    network: LapIrnSettings = LapIrnSettings()
    smoothness: float = setting(1.0, "Weight of the diffusion.", minimum=0)
    level_steps: tuple[int, ...] = setting(
        (10000, 10000), "Steps of the first two levels; the third has the rest.", minimum=1
    )
    frozen_steps: int = setting(
        2000, "Steps at the beginning of a level in which those below stay as they are.", minimum=0
    )

    def check_together(self) -> None:
        """Raise `InputError` unless all levels but the last have steps, and descriptors are alone and those of dns."""
        if len(self.level_steps) != LEVELS - 1:
            raise InputError(f"expected the steps of {LEVELS - 1} levels; got {len(self.level_steps)}")
        known = self.pairs.known_displacement
        if self.network.inputs == "descriptors" and (self.similarity.name != "dns" or known > 0):
            raise InputError(
                "expected similarity.name = dns and pairs.known_displacement = 0 for network.inputs = descriptors, "
                f"beside which there are no images; got {self.similarity.name} and {known:g}"
            )


class LapIrnRecipe(PairRecipe):
    """The levels in turn; at the beginning of each, those below are frozen."""

    network_class = LapIrn
    settings_class = LapIrnTraining
    settings: LapIrnTraining
    network: LapIrn
    _levels = 1

    def make_network(self) -> LapIrn:
        """Where descriptors are its input, they are those that the similarity compares."""
        settings = self.settings.network
        if settings.inputs == "images" or not isinstance(self._similarity, Dns):
            return LapIrn(settings)
        network = LapIrn(replace(settings, descriptor_network=self._similarity.network.settings))
        network.descriptor_network = self._similarity.network
        return network

    def make_pairs(self, data: TrainingData) -> tuple[Pairs, Pairs]:
        """Images, or what the network encodes of them at half the resolution, once for the whole training."""
        if not self._encoded:
            return super().make_pairs(data)
        return pairs_of_splits(data, self.grid.pooled(2), self.settings.pairs, Encoder(self.grid, self._encode))

    def loss_weights(self) -> dict[str, float]:
        """Similarity and smoothness."""
        return {"similarity": 1.0, "smoothness": self.settings.smoothness}

    def begin_step(self, step: int) -> None:
        """Choose the level that is trained, and freeze those below at its beginning."""
        starts = [0, *accumulate(self.settings.level_steps)]
        self._levels = sum(step >= start for start in starts)
        frozen = step < starts[self._levels - 1] + self.settings.frozen_steps
        for index, level in enumerate(self.network.levels):
            level.requires_grad_(index == self._levels - 1 or (index < self._levels - 1 and not frozen))

    def predict(self, pair: Pair) -> torch.Tensor:
        """The displacement of the levels that are trained so far."""
        return self.network.at_full_resolution(self._fields(pair), pair.fixed.shape[2:])

    def terms(self, pair: Pair) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Diffusion of the field of the level in training; similarity there and, with half the weight each, below."""
        fields = self._fields(pair)
        similarity = self._pyramid_loss(pair, fields[-1].displacement)
        terms = {"similarity": similarity, "smoothness": diffusion_energy(fields[-1].flow)}
        return terms, self.network.at_full_resolution(fields, pair.fixed.shape[2:])

    def dissimilarity(self, pair: Pair, displacement: torch.Tensor) -> torch.Tensor:
        """Of encoded images, by the similarity that they are trained by."""
        if not self._encoded:
            return super().dissimilarity(pair, displacement)
        return encoded_loss(self._similarity, pair.fixed, warp(pair.moving, displacement))

    @property
    def _encoded(self) -> bool:
        """Whether pairs hold descriptors instead of images."""
        return self.network.descriptor_network is not None

    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        with self._context.autocast():
            return self.network.encode(image.to(self._context.device)).cpu()

    def _fields(self, pair: Pair) -> list[LevelField]:
        with self._context.autocast():
            return self.network.fields(pair.fixed, pair.moving, self._levels)

    def _pyramid_loss(self, pair: Pair, displacement: torch.Tensor) -> torch.Tensor:
        fixed, moving = (pad_to_multiple(images, 2**LEVELS) for images in (pair.fixed, pair.moving))
        for _ in range(LEVELS - self._levels):
            fixed, moving = avg_pool2(fixed), avg_pool2(moving)
        encoded, similarity = self._encoded, self._similarity
        if not encoded and not similarity.differentiable:
            weight, encoded = torch.ones_like(fixed), True
            fixed, moving = similarity.encode_fixed(fixed, weight), similarity.encode_moving(moving, weight)
        compare = partial(encoded_loss, similarity) if encoded else similarity.loss
        warped = warp(moving, displacement)
        loss = compare(fixed, warped)
        for level in range(1, self._levels):
            fixed, warped = avg_pool2(fixed), avg_pool2(warped)
            loss = loss + compare(fixed, warped) / 2**level
        return loss


RECIPE = LapIrnRecipe
