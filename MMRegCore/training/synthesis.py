"""Images that never were: random contrasts of a label map, random smooth deformations.

A network that has seen the same anatomy in every contrast that can be thought of has nothing left to learn from but the
anatomy (Billot et al. 2023, Hoffmann et al. 2022).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from MMRegCore.config.training import DeformationSettings, SynthesisSettings
from MMRegCore.geometry import Array
from MMRegCore.simulate.noise import gaussian_blur, smooth_noise, white_noise


def synthetic_contrast(
    labels: torch.Tensor, generator: torch.Generator, settings: SynthesisSettings | None = None
) -> torch.Tensor:
    """Render a label map in a contrast that is drawn at random.

    Parameters
    ----------
    labels : Tensor, (D, H, W), integer
    generator : torch.Generator
    settings : SynthesisSettings, optional

    Returns
    -------
    Tensor, (1, D, H, W), float32, in [0, 1]
        A mean for each label, texture, partial volumes, a bias field and noise.
    """
    settings = settings or SynthesisSettings()
    random, shape = _numpy_stream(generator), tuple(labels.shape)
    numbers, places = labels.unique(return_inverse=True)
    level = random.uniform(0, 1, settings.levels)[random.integers(settings.levels, size=len(numbers))]
    level = np.clip(level + 0.05 * random.standard_normal(len(numbers)), 0, 1)
    spread = random.uniform(0, settings.texture, len(numbers))
    if int(numbers[0]) == 0 and random.uniform() < settings.empty_background:
        level[0], spread[0] = 0.0, 0.0
    texture = smooth_noise(shape, (random.uniform(0, settings.texture_voxel),) * 3, random)
    image = torch.from_numpy(level).float()[places] + torch.from_numpy(spread).float()[places] * texture
    image = gaussian_blur(image[None], (random.uniform(0, settings.blur_voxel),) * 3)[0]
    # The bias of a coil varies over half a field of view and more.
    length = [random.uniform(0.15, 0.35) * n for n in shape]
    image = image * torch.exp(random.uniform(0, settings.bias) * smooth_noise(shape, length, random))
    image = image + random.uniform(0, settings.noise) * white_noise(shape, random)
    return image.clamp(min=0)[None] / float(image.max().clamp(min=1e-6))


def random_deformation(
    shape: tuple[int, int, int], generator: torch.Generator, settings: DeformationSettings | None = None
) -> torch.Tensor:
    """A random affine motion about the middle, and a smooth displacement on top of it.

    Parameters
    ----------
    shape : tuple of int, (D, H, W)
    generator : torch.Generator
    settings : DeformationSettings, optional

    Returns
    -------
    Tensor, (1, 3, D, H, W)
        displacement_voxel, components (d, h, w).  Smooth; with amplitudes above about a third of the length it may
        fold.
    """
    settings = settings or DeformationSettings()
    random = _numpy_stream(generator)
    matrix = _rotation(np.radians(settings.rotation_deg) * random.uniform(-1, 1, 3))
    matrix = matrix @ np.diag(1 + settings.scaling * random.uniform(-1, 1, 3))
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    moved = torch.einsum("ij,jdhw->idhw", torch.from_numpy(matrix - np.eye(3)).float(), position)
    # Noise on a coarse lattice, interpolated: as smooth as its spacing.
    coarse = [max(2, math.ceil(n / settings.length_voxel) + 1) for n in shape]
    rest = random.uniform(0, settings.amplitude_voxel) * white_noise((1, 3, *coarse), random)
    return moved[None] + _smooth(F.interpolate(rest, size=shape, mode="trilinear", align_corners=True), settings)


def _smooth(field: torch.Tensor, settings: DeformationSettings) -> torch.Tensor:
    """Take off the kinks that linear interpolation leaves."""
    return gaussian_blur(field[0], (settings.length_voxel / 4,) * 3)[None]


def _rotation(angles: Array) -> Array:
    """(3, 3): turns about the three axes, one after the other."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _numpy_stream(generator: torch.Generator) -> np.random.Generator:
    """The simulator's noise is drawn by NumPy: a stream that hangs on torch's."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
