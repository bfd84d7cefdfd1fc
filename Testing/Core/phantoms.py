"""Images that look like ultrasound: a cone of texture on a constant background."""

import numpy as np
import torch

from MMRegCore.geometry import Grid
from MMRegCore.volume import Volume


def cone(size: int = 40) -> torch.Tensor:
    """(D, H, W) bool: a cone with its tip near one face, all of it away from the border."""
    d, h, w = np.meshgrid(*(np.arange(size),) * 3, indexing="ij")
    radius = np.hypot(h - size / 2, w - size / 2)
    return torch.from_numpy((d > 4) & (d < size - 4) & (radius < 3 + 0.35 * d))


def textured(mask: torch.Tensor, background: float, seed: int = 0) -> torch.Tensor:
    """(D, H, W): noise from 1 to 100 in the mask, ``background`` elsewhere."""
    noise = torch.from_numpy(np.random.default_rng(seed).uniform(1, 100, tuple(mask.shape))).float()
    return torch.where(mask, noise, torch.tensor(float(background)))


def volume_of(data: torch.Tensor, spacing: float = 1.0, mask: torch.Tensor | None = None, name: str = "us") -> Volume:
    """An image (D, H, W) on an isotropic grid along RAS."""
    return Volume(data[None], Grid(tuple(data.shape), np.diag([spacing] * 3 + [1.0])), mask, name)
