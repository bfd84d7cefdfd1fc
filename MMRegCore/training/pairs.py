"""Pairs of images for the training of registration networks, on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import torch

from MMRegCore.config.pair_training import NO_DEFORMATION, PairSettings
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.networks.intensity import unit_range
from MMRegCore.preprocess import on_grid
from MMRegCore.training.data import Kept, Subject, Subjects
from MMRegCore.training.synthesis import random_deformation, synthetic_contrast
from MMRegCore.volume import Volume
from MMRegCore.warp import resample, warp


@dataclass(frozen=True, eq=False)
class Pair:
    """Pairs of images in [0, 1] on one grid, and their labels where both have some.

    Attributes
    ----------
    fixed, moving : Tensor, (B, 1, D, H, W)
        Or what takes their place, (B, C, D, H, W).
    fixed_labels, moving_labels : Tensor, (B, 1, D, H, W), optional
        Whole numbers in float32.
    displacement_voxel : Tensor, (B, 3, D, H, W), optional
        From fixed to moving, where it is known; components (d, h, w).
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_labels: torch.Tensor | None = None
    moving_labels: torch.Tensor | None = None
    displacement_voxel: torch.Tensor | None = None

    def to(self, device: torch.device) -> Pair:
        """The same on another device."""
        rest = (self.fixed_labels, self.moving_labels, self.displacement_voxel)
        moved = (None if t is None else t.to(device) for t in rest)
        return Pair(self.fixed.to(device), self.moving.to(device), *moved)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network sees in place of images.

    Attributes
    ----------
    grid : Grid
        Where images are described.
    describe : callable
        From an image (1, 1, D, H, W) in [0, 1] there to values (1, C, d, h, w) on the grid of the pairs, on the CPU.
    """

    grid: Grid
    describe: Callable[[torch.Tensor], torch.Tensor]


class Pairs:
    """The pairs of the subjects of one split.

    Parameters
    ----------
    subjects : Subjects
        Roughly aligned with each other, as they lie in space.
    grid : Grid
        Which all are brought to.
    settings : PairSettings
    atlas : Subject, optional
        Always fixed, and never moving; None lets all be both.
    seen : Seen, optional
        What takes the place of the images; None leaves them as they are.

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
        seen: Seen | None = None,
    ) -> None:
        if seen is not None and settings.contrasts == "synthetic":
            raise InputError("expected pairs.contrasts of images for descriptors, which are made once; got synthetic")
        self._grid, self._settings, self._seen = grid, settings, seen
        self._fixed = None if atlas is None else self._upright(atlas)
        self._moving = [n for n, name in enumerate(subjects.names) if atlas is None or name != atlas.name]
        if len(self._moving) < (2 if atlas is None else 1):
            raise InputError(f"expected at least two subjects to make pairs of; got {len(subjects)}")
        self._at = Kept(lambda number: self._upright(subjects[number]))

    def draw(self, generator: torch.Generator) -> Pair:
        """A batch of pairs, deformed as the settings say; of all or of none of them the answer is known."""
        known = self._settings.known > 0 and float(torch.rand((), generator=generator)) < self._settings.known
        one = self._known if known else self._one
        return _together([one(generator) for _ in range(self._settings.batch)])

    def all_of(self, most: int) -> list[Pair]:
        """The first ``most`` ordered pairs, each alone, in contrasts that are always the same."""
        random = torch.Generator().manual_seed(0)
        if self._fixed is not None:
            return [self._pair(self._fixed, self._at[n], random) for n in self._moving[:most]]
        ordered = list(permutations(self._moving, 2))[:most]
        return [self._pair(self._at[a], self._at[b], random) for a, b in ordered]

    def _one(self, generator: torch.Generator) -> Pair:
        if self._fixed is not None:
            drawn = int(torch.randint(len(self._moving), (), generator=generator))
            return self._pair(self._fixed, self._deformed(self._at[self._moving[drawn]], generator), generator)
        fixed = int(torch.randint(len(self._moving), (), generator=generator))
        other = int(torch.randint(len(self._moving) - 1, (), generator=generator))
        moving = other + (other >= fixed)
        return self._pair(
            self._deformed(self._at[fixed], generator), self._deformed(self._at[moving], generator), generator
        )

    def _known(self, generator: torch.Generator) -> Pair:
        """A subject, and itself along a random deformation: F(x) = M(x + u(x)) but for the contrast."""
        subject = self._at[self._moving[int(torch.randint(len(self._moving), (), generator=generator))]]
        displacement = random_deformation(self._grid.shape, generator, self._settings.deformation)
        return replace(self._pair(_pulled(subject, displacement), subject, generator), displacement_voxel=displacement)

    def _pair(self, first: Subject, second: Subject, generator: torch.Generator) -> Pair:
        labels = [None, None] if first.labels is None or second.labels is None else [first.labels, second.labels]
        return Pair(
            *self._images(first, second, generator),
            *(None if label is None else label[None, None].float() for label in labels),
        )

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

    def _deformed(self, subject: Subject, generator: torch.Generator) -> Subject:
        """The subject along a random deformation; as it is where none is asked for. The atlas never is."""
        if self._settings.deformation == NO_DEFORMATION:
            return subject
        return _pulled(subject, random_deformation(self._grid.shape, generator, self._settings.deformation))

    def _upright(self, subject: Subject) -> Subject:
        """The subject on the grid of the pairs."""
        if subject.grid.matches(self._grid) and self._seen is None:
            return subject
        grid = self._grid if self._seen is None else self._seen.grid
        images = {
            name: unit_range(on_grid(Volume(image, subject.grid, name=name), grid))
            for name, image in subject.images.items()
        }
        if self._seen is not None:
            images = {name: self._seen.describe(image[None])[0] for name, image in images.items()}
        labels = None
        if subject.labels is not None:
            whole = Volume(subject.labels[None].float(), subject.grid)
            labels = resample(whole, self._grid, mode="nearest", padding_mode="zeros")[0].round().short()
        return Subject(subject.name, self._grid, images, labels)


def _pulled(subject: Subject, displacement_voxel: torch.Tensor) -> Subject:
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


def _together(pairs: list[Pair]) -> Pair:
    def batch(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
        there = [part for part in parts if part is not None]
        return torch.cat(there) if len(there) == len(parts) else None

    fixed, moving = torch.cat([p.fixed for p in pairs]), torch.cat([p.moving for p in pairs])
    rest = ("fixed_labels", "moving_labels", "displacement_voxel")
    return Pair(fixed, moving, *(batch([getattr(p, name) for p in pairs]) for name in rest))
