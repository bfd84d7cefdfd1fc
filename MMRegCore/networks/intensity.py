"""The input of networks: intensities from 0 to 1, in training and in use."""

from __future__ import annotations

import torch

# A few voxels that are much darker or brighter than the rest (vessels, ringing, burnt-in marks) decide nothing.
_DARKEST, _BRIGHTEST = 0.001, 0.995
# Quantiles of more voxels than this are taken from an even selection.
_MOST_SORTED = 1_000_000


def unit_range(image: torch.Tensor) -> torch.Tensor:
    """Scale one image (..., D, H, W) of finite values to [0, 1] by its robust range, and clamp: float32.

    0 is the 0.1 % quantile of all voxels, 1 the 99.5 % quantile of those above it, so that it matters little how much
    background there is.  A constant image becomes 0.
    """
    image = image.float()
    values = image.detach().flatten()
    values = values[:: max(1, values.numel() // _MOST_SORTED)]
    low = _quantile(values, _DARKEST)
    above = values[values > low]
    high = _quantile(above, _BRIGHTEST) if above.numel() else low
    return ((image - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(image)


def _quantile(values: torch.Tensor, fraction: float) -> float:
    return float(values.kthvalue(1 + round(fraction * (values.numel() - 1))).values)
