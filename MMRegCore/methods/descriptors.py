"""Which descriptors a method compares: MIND-SSC, or those of MASR-Net."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import torch

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
