"""Random and smooth arrays that the simulator is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


def random_stream(seed: int, name: str) -> np.random.Generator:
    """An independent random stream for each use, so that a change in one part leaves the others as they were."""
    return np.random.default_rng([seed, *name.encode()])


def white_noise(shape: Sequence[int], random: np.random.Generator) -> torch.Tensor:
    """Independent normal values, float32, of any shape."""
    return torch.from_numpy(random.standard_normal(tuple(shape), dtype=np.float32))


def smooth_noise(shape: Sequence[int], sigma_voxel: Sequence[float], random: np.random.Generator) -> torch.Tensor:
    """Normal values, zero mean and unit variance, correlated over a Gaussian of ``sigma_voxel`` on each axis.

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


def gaussian_blur(image: torch.Tensor, sigma_voxel: Sequence[float]) -> torch.Tensor:
    """Blur (C, D, H, W) by a Gaussian of ``sigma_voxel`` on (d, h, w); the edge is carried on outside."""
    blurred = image[:, None]
    for axis, sigma in enumerate(sigma_voxel):
        if sigma <= 0:
            continue
        radius = max(1, round(3 * sigma))
        offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = -1
        pad = [0] * 6
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        blurred = F.conv3d(F.pad(blurred, pad, mode="replicate"), (kernel / kernel.sum()).reshape(shape))
    return blurred[:, 0]


def smooth_step(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 below ``low``, 1 above ``high``, a smooth cubic between."""
    share = ((values - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)
