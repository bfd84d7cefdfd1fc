"""Pairs of patches for contrastive learning: the same part of one anatomy in two contrasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from MMRegCore.errors import InputError
from MMRegCore.networks.intensity import unit_range
from MMRegCore.ops import identity_positions, sample
from MMRegCore.settings import Settings, as_text, setting
from MMRegCore.training.data.bezier import random_bezier
from MMRegCore.training.data.subjects import Subject
from MMRegCore.training.data.synthesis import (
    DeformationSettings,
    SynthesisSettings,
    random_deformation,
    synthetic_contrast,
)

# The contrast of that name is ultrasound: zeros are outside its field of view.
ULTRASOUND = "us"
# Darker than this is background, where a subject has no labels.
_FOREGROUND = 0.05


@dataclass(frozen=True)
class PatchSettings(Settings):
    """Two images of the same anatomy whose descriptors must be the same."""

    crop_voxel: int = setting(64, "Size of the cube that is cut out.", minimum=16)
    zoom: tuple[float, ...] = setting(
        (1.0, 1.0), "Least and largest voxel size of the cube, in voxels of the data.", minimum=0.25, maximum=4
    )
    synthetic: float = setting(
        0.5, "How often both are synthetic contrasts, where a subject has labels.", minimum=0, maximum=1
    )
    ultrasound: float = setting(
        0.25, "How often one of them is ultrasound, where a subject has it.", minimum=0, maximum=1
    )
    inversion: float = setting(0.5, "How often intensities are inverted (δ, Eq. 3).", minimum=0, maximum=1)
    synthesis: SynthesisSettings = SynthesisSettings()
    deformation: DeformationSettings = DeformationSettings()

    def check_together(self) -> None:
        """Raise `InputError` unless ``zoom`` is a range."""
        if len(self.zoom) != 2 or self.zoom[0] > self.zoom[1]:
            raise InputError(f"expected zoom to be the least and the largest; got {as_text(self.zoom)}")


@dataclass(frozen=True, eq=False)
class PatchPair:
    """Two images (1, 1, n, n, n) in [0, 1] of the same part of an anatomy, and the foreground (n, n, n), bool."""

    first: torch.Tensor
    second: torch.Tensor
    foreground: torch.Tensor


def draw_patches(subject: Subject, generator: torch.Generator, settings: PatchSettings) -> PatchPair:
    """Cut a deformed cube out of a subject, in two contrasts.

    The two are, by chance and by what the subject has: an image and its ultrasound; two synthetic contrasts of its
    labels; or images of it, the same or two, one of them changed along a Bézier curve.  ``generator`` is on the CPU.
    Raises `InputError` when the subject has neither labels nor images.
    """
    positions = _positions(subject, generator, settings)

    def cut_out(name: str) -> torch.Tensor:
        return sample(subject.images[name][None], positions)

    chance = float(torch.rand((), generator=generator))
    others = [name for name in sorted(subject.images) if name != ULTRASOUND]
    if ULTRASOUND in subject.images and others and chance < settings.ultrasound:
        image = cut_out(others[int(torch.randint(len(others), (), generator=generator))])
        image, ultrasound = random_bezier(image, generator, settings.inversion), cut_out(ULTRASOUND)
        return PatchPair(unit_range(image), unit_range(ultrasound), (ultrasound > 0)[0, 0])
    chance = float(torch.rand((), generator=generator))
    if subject.labels is not None and (not others or chance < settings.synthetic):
        labels = sample(subject.labels[None, None].float(), positions, mode="nearest")[0, 0].long()
        one, two = (synthetic_contrast(labels, generator, settings.synthesis)[None] for _ in range(2))
        return PatchPair(unit_range(one), unit_range(two), labels > 0)
    if not others:
        raise InputError(f"expected labels or images of '{subject.name}'; got neither")
    one, two = (cut_out(others[n]) for n in torch.randint(len(others), (2,), generator=generator).tolist())
    foreground = (one > _FOREGROUND)[0, 0]
    return PatchPair(unit_range(one), unit_range(random_bezier(two, generator, settings.inversion)), foreground)


def _positions(subject: Subject, generator: torch.Generator, settings: PatchSettings) -> torch.Tensor:
    """(1, 3, n, n, n): where the voxels of the cube lie in the subject, in voxels."""
    shape = (settings.crop_voxel,) * 3
    low, high = (math.log(value) for value in settings.zoom)
    zoom = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    positions = identity_positions(shape) + random_deformation(shape, generator, settings.deformation)
    centre = _centre(subject, generator, zoom * settings.crop_voxel / 2)
    return (positions - (settings.crop_voxel - 1) / 2) * zoom + centre.reshape(3, 1, 1, 1)


def _centre(subject: Subject, generator: torch.Generator, half_voxel: float) -> torch.Tensor:
    """(3,): a voxel of the foreground, moved so that the cube lies within the image where it fits."""
    foreground = _foreground(subject)
    index = foreground.nonzero()
    if len(index) == 0:
        raise InputError(f"expected foreground in '{subject.name}'; got an empty image")
    drawn = index[int(torch.randint(len(index), (), generator=generator))].tolist()
    centre = [
        min(max(float(p), half_voxel), n - 1 - half_voxel) if n - 1 > 2 * half_voxel else (n - 1) / 2
        for p, n in zip(drawn, foreground.shape, strict=True)
    ]
    return torch.tensor(centre)


def _foreground(subject: Subject) -> torch.Tensor:
    """(D, H, W) bool: ultrasound where there is some, else labels, else what is not dark."""
    if ULTRASOUND in subject.images:
        return subject.images[ULTRASOUND][0] > 0
    if subject.labels is not None:
        return subject.labels > 0
    return torch.stack([image[0] for image in subject.images.values()]).amax(dim=0) > _FOREGROUND
