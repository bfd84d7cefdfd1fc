"""Synthetic training images: random contrasts of a label map, random smooth deformations.

A network that sees the same anatomy in every possible contrast can learn from nothing but the anatomy (Billot et al.
2023, Hoffmann et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F

from MMRegCore.ops import gaussian_blur, identity_positions, rotation_matrix
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.noise import smooth_noise, white_noise


@dataclass(frozen=True)
class SynthesisSettings(Settings):
    """How far synthetic contrasts of a label map may go; each image draws its own values up to these."""

    levels: int = setting(12, "Different mean intensities at most; labels may share one.", minimum=2)
    texture: float = setting(0.08, "Standard deviation within a label.", minimum=0, maximum=1)
    texture_voxel: float = setting(2.0, "Correlation length of the texture.", minimum=0)
    blur_voxel: float = setting(1.0, "Blur, which makes partial volumes.", minimum=0, maximum=8)
    bias: float = setting(0.3, "Standard deviation of the logarithm of the bias field.", minimum=0, maximum=2)
    noise: float = setting(0.05, "Standard deviation of the noise.", minimum=0, maximum=1)
    empty_background: float = setting(0.7, "How often label 0 is black.", minimum=0, maximum=1)


@dataclass(frozen=True)
class DeformationSettings(Settings):
    """Random smooth deformations, drawn up to these."""

    rotation_deg: float = setting(15.0, "About each axis, in degrees.", minimum=0, maximum=180)
    scaling: float = setting(0.15, "Along each axis, as a fraction.", minimum=0, maximum=0.9)
    amplitude_voxel: float = setting(3.0, "Standard deviation of the smooth displacement on top.", minimum=0)
    length_voxel: float = setting(12.0, "Its correlation length.", minimum=1)


def synthetic_contrast(
    labels: torch.Tensor, generator: torch.Generator, settings: SynthesisSettings | None = None
) -> torch.Tensor:
    """Render a label map (D, H, W) of integers in a random contrast: (1, D, H, W), float32, in [0, 1].

    A mean for each label, texture, partial volumes, a bias field and noise.
    """
    settings = settings or SynthesisSettings()
    random, shape = _numpy_stream(generator), tuple(labels.shape)
    numbers, index = labels.unique(return_inverse=True)
    level = random.uniform(0, 1, settings.levels)[random.integers(settings.levels, size=len(numbers))]
    level = np.clip(level + 0.05 * random.standard_normal(len(numbers)), 0, 1)
    spread = random.uniform(0, settings.texture, len(numbers))
    if int(numbers[0]) == 0 and random.uniform() < settings.empty_background:
        level[0], spread[0] = 0.0, 0.0
    texture = smooth_noise(shape, (random.uniform(0, settings.texture_voxel),) * 3, random)
    image = torch.from_numpy(level).float()[index] + torch.from_numpy(spread).float()[index] * texture
    image = gaussian_blur(image[None, None], random.uniform(0, settings.blur_voxel))[0, 0]
    # The bias of a coil varies over half a field of view and more.
    length = [random.uniform(0.15, 0.35) * n for n in shape]
    image = image * torch.exp(random.uniform(0, settings.bias) * smooth_noise(shape, length, random))
    image = image + random.uniform(0, settings.noise) * white_noise(shape, random)
    return image.clamp(min=0)[None] / float(image.max().clamp(min=1e-6))


def random_deformation(
    shape: tuple[int, int, int], generator: torch.Generator, settings: DeformationSettings | None = None
) -> torch.Tensor:
    """A random affine motion about the middle, and a smooth displacement on top of it.

    (1, 3, D, H, W), components (d, h, w) in voxels, for a ``shape`` (D, H, W).  Smooth; with amplitudes above about a
    third of the length it may fold.
    """
    settings = settings or DeformationSettings()
    random = _numpy_stream(generator)
    angles = np.radians(settings.rotation_deg) * random.uniform(-1, 1, 3)
    rotation = reduce(np.matmul, map(rotation_matrix, np.diag(angles)))
    matrix = rotation @ np.diag(1 + settings.scaling * random.uniform(-1, 1, 3))
    middle = torch.tensor([(n - 1) / 2 for n in shape]).reshape(3, 1, 1, 1)
    centred = identity_positions(shape)[0] - middle
    affine = torch.einsum("ij,jdhw->idhw", torch.from_numpy(matrix - np.eye(3)).float(), centred)
    # Noise on a coarse grid, interpolated: as smooth as its spacing.  The blur removes the kinks of interpolation.
    coarse = [max(2, math.ceil(n / settings.length_voxel) + 1) for n in shape]
    noise = random.uniform(0, settings.amplitude_voxel) * white_noise((1, 3, *coarse), random)
    smooth = F.interpolate(noise, size=shape, mode="trilinear", align_corners=True)
    return affine[None] + gaussian_blur(smooth, settings.length_voxel / 4)


def _numpy_stream(generator: torch.Generator) -> np.random.Generator:
    """The simulator's noise is drawn by NumPy: a stream seeded from torch's."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
