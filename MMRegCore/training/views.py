"""Two views of one anatomy, voxel by voxel the same places, that look as different as images can."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from MMRegCore.config.training import ViewSettings
from MMRegCore.errors import InputError
from MMRegCore.networks.intensity import unit_range
from MMRegCore.training.bezier import random_bezier
from MMRegCore.training.data import Subject
from MMRegCore.training.synthesis import random_deformation, synthetic_contrast
from MMRegCore.warp import sample, voxel_coordinates

# The contrast of that name is ultrasound: zeros are outside its field of view.
ULTRASOUND = "us"
# Darker than this is background, where a subject has no labels.
_FOREGROUND = 0.05


@dataclass(frozen=True, eq=False)
class Views:
    """Two images (1, 1, n, n, n) in [0, 1] of the same places, and the foreground (n, n, n), bool."""

    first: torch.Tensor
    second: torch.Tensor
    foreground: torch.Tensor


def draw_views(subject: Subject, generator: torch.Generator, settings: ViewSettings) -> Views:
    """Cut a deformed cube out of a subject and show it twice.

    The two are, by chance and by what the subject has: an image and its ultrasound; two synthetic contrasts of its
    labels; or images of it, the same or two, changed along Bézier curves.

    Parameters
    ----------
    subject : Subject
    generator : torch.Generator
        On the CPU.
    settings : ViewSettings

    Raises
    ------
    InputError
        When the subject has neither labels nor images.
    """
    positions = _positions(subject, generator, settings)
    chance = float(torch.rand((), generator=generator))
    magnetic = [name for name in sorted(subject.images) if name != ULTRASOUND]
    if ULTRASOUND in subject.images and magnetic and chance < settings.ultrasound:
        return _with_ultrasound(subject, magnetic, positions, generator, settings)
    chance = float(torch.rand((), generator=generator))
    if subject.labels is not None and (not magnetic or chance < settings.synthetic):
        labels = sample(subject.labels[None, None].float(), positions, mode="nearest")[0, 0].long()
        one, two = (synthetic_contrast(labels, generator, settings.synthesis)[None] for _ in range(2))
        return Views(unit_range(one), unit_range(two), labels > 0)
    if not magnetic:
        raise InputError(f"expected labels or images of '{subject.name}'; got neither")
    chosen = torch.randint(len(magnetic), (2,), generator=generator).tolist()
    one, two = (sample(subject.images[magnetic[index]][None], positions) for index in chosen)
    foreground = (one > _FOREGROUND)[0, 0]
    return Views(unit_range(one), unit_range(random_bezier(two, generator, settings.inversion)), foreground)


def _with_ultrasound(
    subject: Subject,
    magnetic: list[str],
    positions: torch.Tensor,
    generator: torch.Generator,
    settings: ViewSettings,
) -> Views:
    name = magnetic[int(torch.randint(len(magnetic), (), generator=generator))]
    image = random_bezier(sample(subject.images[name][None], positions), generator, settings.inversion)
    ultrasound = sample(subject.images[ULTRASOUND][None], positions)
    return Views(unit_range(image), unit_range(ultrasound), (ultrasound > 0)[0, 0])


def _positions(subject: Subject, generator: torch.Generator, settings: ViewSettings) -> torch.Tensor:
    """(1, n, n, n, 3): where the voxels of the cube lie in the subject, voxel coordinates (w, h, d)."""
    shape = (settings.crop_voxel,) * 3
    low, high = (math.log(value) for value in settings.zoom)
    zoom = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    displacement = random_deformation(shape, generator, settings.deformation)
    positions = voxel_coordinates(shape) + displacement.flip(1).permute(0, 2, 3, 4, 1)
    return (positions - (shape[0] - 1) / 2) * zoom + _centre(subject, generator, zoom * shape[0] / 2)


def _centre(subject: Subject, generator: torch.Generator, half_voxel: float) -> torch.Tensor:
    """(3,), (w, h, d): a place of the foreground, moved so that the cube lies within the image where it fits."""
    content = _content(subject)
    places = content.flatten().nonzero()[:, 0]
    if len(places) == 0:
        raise InputError(f"expected foreground in '{subject.name}'; got an empty image")
    place = int(places[int(torch.randint(len(places), (), generator=generator))])
    height, width = content.shape[1:]
    index = (place // (height * width), place // width % height, place % width)
    inner = [
        min(max(float(p), half_voxel), n - 1 - half_voxel) if n - 1 > 2 * half_voxel else (n - 1) / 2
        for p, n in zip(index, content.shape, strict=True)
    ]
    return torch.tensor(inner[::-1])


def _content(subject: Subject) -> torch.Tensor:
    """(D, H, W) bool: ultrasound where there is some, else labels, else what is not dark."""
    if ULTRASOUND in subject.images:
        return subject.images[ULTRASOUND][0] > 0
    if subject.labels is not None:
        return subject.labels > 0
    return torch.stack([image[0] for image in subject.images.values()]).amax(dim=0) > _FOREGROUND
