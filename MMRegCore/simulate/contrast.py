"""MR contrasts rendered from the tissue maps of an anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from MMRegCore.errors import InputError
from MMRegCore.simulate.anatomy import TISSUES, Anatomy
from MMRegCore.simulate.mr import Contrast
from MMRegCore.simulate.noise import random_stream, smooth_noise, white_noise
from MMRegCore.volume import Volume

# Intensity of each of `TISSUES` and of a tumour, relative to the brightest.
_INTENSITY: dict[str, dict[str, float]] = {
    "t1": {"white": 1.0, "grey": 0.72, "sulci": 0.25, "ventricles": 0.22, "falx": 0.3, "tumour": 0.55},
    "t1c": {"white": 0.9, "grey": 0.66, "sulci": 0.3, "ventricles": 0.2, "falx": 0.7, "tumour": 1.0},
    "t2": {"white": 0.42, "grey": 0.56, "sulci": 0.92, "ventricles": 1.0, "falx": 0.5, "tumour": 0.85},
    "flair": {"white": 0.55, "grey": 0.7, "sulci": 0.22, "ventricles": 0.15, "falx": 0.4, "tumour": 1.0},
}
_BRIGHTEST = 1000.0
# Standard deviation of the texture within a tissue, of the logarithm of the bias field, of the noise.
_TEXTURE, _TEXTURE_MM = 0.04, 1.5
_BIAS, _BIAS_MM = 0.08, 45.0
_NOISE = 0.015


def render_contrast(anatomy: Anatomy, contrast: Contrast, *, seed: int = 0) -> Volume:
    """An MR image: the mixture of the tissue maps with mild texture, bias field and noise; 0 outside the brain.

    (1, D, H, W) on the grid of the tissue maps, named as the contrast in capitals.  Texture, bias field and noise
    differ between seeds and between contrasts.  Raises `InputError` when the contrast is not known.
    """
    if contrast not in _INTENSITY:
        raise InputError(f"expected a contrast among {', '.join(_INTENSITY)}; got '{contrast}'")
    grid = anatomy.tissues.grid

    def smooth(name: str, sigma_mm: float) -> torch.Tensor:
        return smooth_noise(
            grid.shape, (sigma_mm / grid.spacing_mm[::-1]).tolist(), random_stream(seed, f"{contrast} {name}")
        )

    image = mixture(anatomy, contrast) * torch.exp(
        _TEXTURE * smooth("texture", _TEXTURE_MM) + _BIAS * smooth("bias", _BIAS_MM)
    )
    image = image + _NOISE * white_noise(grid.shape, random_stream(seed, f"{contrast} noise"))
    inside = anatomy.brain.data > 0.05
    return Volume((_BRIGHTEST * image[None]).clamp(min=1) * inside, grid, name=contrast.upper())


def mixture(anatomy: Anatomy, contrast: Contrast) -> torch.Tensor:
    """(D, H, W): what the tissue fractions mix to in a contrast, relative to its brightest tissue."""
    level = _INTENSITY[contrast]
    mixed = torch.zeros(anatomy.tissues.grid.shape)
    for name, fraction in zip(TISSUES, anatomy.tissues.data, strict=True):
        mixed = mixed + level[name] * fraction
    return mixed if anatomy.tumour is None else mixed + level["tumour"] * anatomy.tumour.data[0]


def with_contrasts(anatomy: Anatomy, contrasts: Sequence[Contrast], *, seed: int = 0) -> Anatomy:
    """The anatomy with rendered images of ``contrasts`` appended; see `render_contrast`."""
    rendered = tuple(render_contrast(anatomy, contrast, seed=seed) for contrast in contrasts)
    return replace(anatomy, images=(*anatomy.images, *rendered))
