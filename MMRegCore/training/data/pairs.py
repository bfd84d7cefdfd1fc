"""Pairs of images for the training of registration networks, on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.networks.intensity import unit_range
from MMRegCore.ops import warp
from MMRegCore.resampling import resample, resample_smoothed
from MMRegCore.settings import Settings, setting
from MMRegCore.training.data.subjects import LruCache, Subject, Subjects, TrainingData
from MMRegCore.training.data.synthesis import DeformationSettings, random_deformation, synthetic_contrast
from MMRegCore.volume import Volume

# The papers deform nothing; few subjects need it.
NO_DEFORMATION = DeformationSettings(rotation_deg=0.0, scaling=0.0, amplitude_voxel=0.0)


@dataclass(frozen=True)
class PairSettings(Settings):
    """How pairs are drawn from the subjects of a split."""

    contrasts: Literal["different", "same", "any", "synthetic"] = setting(
        "different", "Of the two images of a pair; 'synthetic' renders label maps in random contrasts."
    )
    atlas: str = setting("", "Name of the training subject that is always fixed; any of them when empty.")
    batch: int = setting(1, "Pairs in a step.", minimum=1, maximum=64)
    known_displacement: float = setting(
        0.0,
        "How often both images are of one subject, the fixed one warped by 'deformation', which is then known.",
        minimum=0,
        maximum=1,
    )
    deformation: DeformationSettings = NO_DEFORMATION

    def check_together(self) -> None:
        """Raise `InputError` when a displacement is to be known and there is none."""
        if self.known_displacement > 0 and self.deformation == NO_DEFORMATION:
            raise InputError("expected a deformation above 0 for known_displacement > 0; got none")


@dataclass(frozen=True, eq=False)
class Pair:
    """A batch of pairs of images in [0, 1] on one grid, and their labels where both have some."""

    # (B, 1, D, H, W); (B, C, D, H, W) where they are encoded.
    fixed: torch.Tensor
    moving: torch.Tensor
    # (B, 1, D, H, W): whole numbers in float32.
    fixed_labels: torch.Tensor | None = None
    moving_labels: torch.Tensor | None = None
    # (B, 3, D, H, W): from fixed to moving in voxels, components (d, h, w), where it is known.
    displacement_voxel: torch.Tensor | None = None

    def to(self, device: torch.device) -> Pair:
        """The same on another device."""
        rest = (self.fixed_labels, self.moving_labels, self.displacement_voxel)
        return Pair(self.fixed.to(device), self.moving.to(device), *(None if t is None else t.to(device) for t in rest))


@dataclass(frozen=True, eq=False)
class Encoder:
    """Encodes images once, so that a network need not in every step."""

    grid: Grid  # of the images
    # From an image (1, 1, D, H, W) in [0, 1] to (1, C, d, h, w) on the grid of the pairs, on the CPU.
    encode: Callable[[torch.Tensor], torch.Tensor]


class Pairs:
    """The pairs of the subjects of one split, which are roughly aligned with each other, as they lie in space.

    Parameters
    ----------
    grid : Grid
        All are resampled to it.
    atlas : Subject, optional
        Always fixed, and never moving; any subject is either when None.
    encoder : Encoder, optional
        Images stay images when None.

    Raises
    ------
    InputError
        When there are too few subjects to make pairs of.
    """

    def __init__(
        self,
        subjects: Subjects,
        grid: Grid,
        settings: PairSettings,
        atlas: Subject | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        if encoder is not None and settings.contrasts == "synthetic":
            raise InputError("expected pairs.contrasts of images where these are encoded once; got synthetic")
        self._grid, self._settings, self._encoder = grid, settings, encoder
        self._atlas = None if atlas is None else self._on_grid(atlas)
        self._moving = [n for n, name in enumerate(subjects.names) if atlas is None or name != atlas.name]
        if len(self._moving) < (2 if atlas is None else 1):
            raise InputError(f"expected at least two subjects to make pairs of; got {len(subjects)}")
        self._subjects = LruCache(lambda number: self._on_grid(subjects[number]))

    def draw(self, generator: torch.Generator) -> Pair:
        """A batch of pairs, deformed as the settings say; the displacement of all or of none of them is known."""
        chance = self._settings.known_displacement
        known = chance > 0 and float(torch.rand((), generator=generator)) < chance
        one = self._draw_known if known else self._draw_one
        return _batch([one(generator) for _ in range(self._settings.batch)])

    def first(self, count: int) -> list[Pair]:
        """The first ``count`` ordered pairs, each alone, in contrasts that are always the same."""
        random = torch.Generator().manual_seed(0)
        if self._atlas is not None:
            return [self._pair(self._atlas, self._subjects[n], random) for n in self._moving[:count]]
        ordered = list(permutations(self._moving, 2))[:count]
        return [self._pair(self._subjects[a], self._subjects[b], random) for a, b in ordered]

    def _draw_one(self, generator: torch.Generator) -> Pair:
        drawn = int(torch.randint(len(self._moving), (), generator=generator))
        if self._atlas is not None:
            return self._pair(self._atlas, self._deformed(drawn, generator), generator)
        other = int(torch.randint(len(self._moving) - 1, (), generator=generator))
        fixed = self._deformed(drawn, generator)
        return self._pair(fixed, self._deformed(other + (other >= drawn), generator), generator)

    def _draw_known(self, generator: torch.Generator) -> Pair:
        """A subject, and itself along a random displacement: F(x) = M(x + u(x)) but for the contrast."""
        subject = self._subjects[self._moving[int(torch.randint(len(self._moving), (), generator=generator))]]
        displacement = random_deformation(self._grid.shape, generator, self._settings.deformation)
        return replace(self._pair(_warped(subject, displacement), subject, generator), displacement_voxel=displacement)

    def _pair(self, fixed: Subject, moving: Subject, generator: torch.Generator) -> Pair:
        images = self._images(fixed, moving, generator)
        if fixed.labels is None or moving.labels is None:
            return Pair(*images)
        return Pair(*images, fixed.labels[None, None].float(), moving.labels[None, None].float())

    def _images(self, first: Subject, second: Subject, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        how = self._settings.contrasts
        if how == "synthetic":
            images = [synthetic_contrast(_labels_of(subject), generator) for subject in (first, second)]
            return images[0][None], images[1][None]
        choices = [(a, b) for a in first.images for b in second.images if how == "any" or (how == "same") == (a == b)]
        if not choices:
            raise InputError(f"expected images of {how} contrasts in '{first.name}' and '{second.name}'; got none")
        a, b = choices[int(torch.randint(len(choices), (), generator=generator))]
        return first.images[a][None], second.images[b][None]

    def _deformed(self, number: int, generator: torch.Generator) -> Subject:
        """A moving subject along a random displacement, or as it is where the settings ask for none."""
        subject = self._subjects[self._moving[number]]
        if self._settings.deformation == NO_DEFORMATION:
            return subject
        return _warped(subject, random_deformation(self._grid.shape, generator, self._settings.deformation))

    def _on_grid(self, subject: Subject) -> Subject:
        """The subject on the grid of the pairs, its images encoded where there is an encoder."""
        if subject.grid.matches(self._grid) and self._encoder is None:
            return subject
        grid = self._grid if self._encoder is None else self._encoder.grid
        images = {
            name: unit_range(resample_smoothed(Volume(image, subject.grid, name=name), grid))
            for name, image in subject.images.items()
        }
        if self._encoder is not None:
            images = {name: self._encoder.encode(image[None])[0] for name, image in images.items()}
        labels = subject.labels
        if labels is not None:
            volume = Volume(labels[None].float(), subject.grid)
            labels = resample(volume, self._grid, mode="nearest", padding_mode="zeros")[0].round().short()
        return Subject(subject.name, self._grid, images, labels)


def pairs_of_splits(
    data: TrainingData, grid: Grid, settings: PairSettings, encoder: Encoder | None = None
) -> tuple[Pairs, Pairs]:
    """The pairs of the training and of the validation split; `InputError` where they cannot be made."""
    atlas: Subject | None = None
    if settings.atlas:
        if settings.atlas not in data.training.names:
            raise InputError(f"expected the atlas among the training subjects; got '{settings.atlas}'")
        atlas = data.training[data.training.names.index(settings.atlas)]
    training, validation = (Pairs(split, grid, settings, atlas, encoder) for split in (data.training, data.validation))
    return training, validation


def _warped(subject: Subject, displacement_voxel: torch.Tensor) -> Subject:
    """All of a subject along a displacement (1, 3, D, H, W)."""
    images = {name: warp(image[None], displacement_voxel)[0] for name, image in subject.images.items()}
    labels = subject.labels
    if labels is not None:
        labels = warp(labels[None, None].float(), displacement_voxel, mode="nearest")[0, 0].round().short()
    return replace(subject, images=images, labels=labels)


def _labels_of(subject: Subject) -> torch.Tensor:
    if subject.labels is None:
        raise InputError(f"expected labels to render contrasts of; got none for '{subject.name}'")
    return subject.labels


def _batch(pairs: Sequence[Pair]) -> Pair:
    """Pairs in one; what one of them lacks, all lack."""

    def joined(name: str) -> torch.Tensor | None:
        parts = [part for part in (getattr(pair, name) for pair in pairs) if part is not None]
        return torch.cat(parts) if len(parts) == len(pairs) else None

    fixed, moving = torch.cat([p.fixed for p in pairs]), torch.cat([p.moving for p in pairs])
    return Pair(fixed, moving, joined("fixed_labels"), joined("moving_labels"), joined("displacement_voxel"))
