"""Seeded random streams and smooth random arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def random_stream(seed: int, name: str) -> np.random.Generator:
    """An independent random stream for each name, so that a change in one part does not alter the others."""
    return np.random.default_rng([seed, *name.encode()])


def white_noise(shape: Sequence[int], random: np.random.Generator) -> torch.Tensor:
    """Independent standard normal values, float32, of any shape."""
    return torch.from_numpy(random.standard_normal(tuple(shape), dtype=np.float32))


def smooth_noise(shape: Sequence[int], sigma_voxel: Sequence[float], random: np.random.Generator) -> torch.Tensor:
    """White noise blurred by a Gaussian of ``sigma_voxel`` on each axis, scaled to zero mean and unit variance.

    The array is periodic: opposite faces continue each other.
    """
    spectrum = torch.fft.rfftn(white_noise(shape, random))
    for axis, (size, sigma) in enumerate(zip(shape, sigma_voxel, strict=True)):
        last = axis == len(shape) - 1
        frequency = torch.fft.rfftfreq(size) if last else torch.fft.fftfreq(size)
        gain = torch.exp(-2 * (np.pi * sigma * frequency) ** 2)
        spectrum = spectrum * gain.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    values: torch.Tensor = torch.fft.irfftn(spectrum, s=tuple(shape))
    values = values - values.mean()
    return values / values.std().clamp(min=1e-12)


def smooth_step(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 below ``low``, 1 above ``high``, a smooth cubic between."""
    fraction = ((values - low) / (high - low)).clamp(0, 1)
    return fraction * fraction * (3 - 2 * fraction)
