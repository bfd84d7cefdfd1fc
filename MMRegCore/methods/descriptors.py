"""Which descriptors a method compares: MIND-SSC, or those of MASR-Net."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F

from MMRegCore.config import DnsSettings, McboSettings
from MMRegCore.features.dns import dns
from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network

# From an image (1, 1, D, H, W) and where it is one (1, 1, D, H, W) to descriptors (1, C, D, H, W).
Describe: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def descriptors(settings: DnsSettings | McboSettings, device: torch.device) -> Describe:
    """Make what describes images, as the settings say.

    Returns
    -------
    callable
        From an image and its evidence to descriptors.  Those of MASR-Net are unit vectors, with the image's edge
        carried on outside the evidence; MIND-SSC takes the image as it comes.

    Raises
    ------
    InputError
        When the weights of MASR-Net are wanted and not there or not good; see `load_network`.
    """
    if settings.features == "mind":
        return lambda image, weight: mind_ssc(image, radius=settings.mind_radius, dilation=settings.mind_dilation)
    network = cast(MasrNet, load_network(settings.dns_weights, architecture="masr-net")).to(device)
    return lambda image, weight: dns(image, network, mask=_mask(weight))


def _mask(weight: torch.Tensor) -> torch.Tensor | None:
    """(D, H, W) bool; None where nothing is known of where the image is."""
    mask = weight[0, 0] > 0
    return mask if bool(mask.any()) else None


def gaussian_smoothed(volume: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur (1, C, D, H, W) by a Gaussian of ``sigma`` voxels, the edge carried on outside."""
    if sigma == 0:
        return volume
    reach = max(round(3 * sigma), 1)
    weights = [math.exp(-0.5 * (n / sigma) ** 2) for n in range(-reach, reach + 1)]
    for axis in (2, 3, 4):
        padding = [0] * 6
        padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = reach
        padded, size = F.pad(volume, padding, mode="replicate"), volume.shape[axis]
        volume = torch.zeros_like(volume)
        for shift, weight in enumerate(weights):
            volume.add_(padded.narrow(axis, shift, size), alpha=weight / sum(weights))
    return volume
