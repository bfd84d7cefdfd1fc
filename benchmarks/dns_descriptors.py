"""The descriptors that `benchmarks.dns` compares, all under the same instance optimisation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.peers import PEERS
from benchmarks.subjects import Subject
from MMRegCore import load_preset
from MMRegCore.methods.dns import DnsSettings
from MMRegCore.monitor import Monitor
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.weights import load_network, read_card
from MMRegCore.ops import gaussian_blur
from MMRegCore.optimisation.instance import Level, optimise_levels
from MMRegCore.prepare import Prepared
from MMRegCore.segmentation.field_of_view import replicate_edge
from MMRegCore.similarity.descriptors.dns import dns
from MMRegCore.similarity.descriptors.mind import mind_ssc
from MMRegCore.volume import Channel

Describe = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

MIND_REGULARISATION, MIND_DILATION = (1.2, 1.0, 0.8), 1
# Around the brain, what still shows where its border is.
_RIM_VOXEL = 3


@dataclass(frozen=True)
class Descriptors:
    """One kind of descriptor under instance optimisation.

    Attributes
    ----------
    describe : callable
        From image and weight (1, 1, D, H, W) to descriptors (1, C, D, H, W).
    unit : bool
        Whether they are compared by their direction only.
    settings : DnsSettings
    """

    describe: Describe
    unit: bool
    settings: DnsSettings

    def displacement(self, prepared: Prepared) -> torch.Tensor:
        """(1, 3, D, H, W), voxels: what instance optimisation makes of them."""
        settings = self.settings
        found = [self.smoothed(channel) for channel in (prepared.fixed, *prepared.moving)]
        per_level = (settings.scales, settings.iterations, settings.learning_rate, settings.regularisation)
        return optimise_levels(
            found[0],
            found[1:],
            prepared.weights,
            [Level(*values) for values in zip(*per_level, strict=True)],
            parametrisation=settings.parametrisation,
            unit=self.unit,
            monitor=Monitor(),
        )

    def smoothed(self, channel: Channel) -> torch.Tensor:
        """(1, C, D, H, W): descriptors as they are compared."""
        return gaussian_blur(self.describe(channel.image, channel.weight), self.settings.smoothing_voxel)


def settings_of(kind: str) -> DnsSettings:
    """Those of the preset for MR; MIND has its own regularisation and dilation."""
    preset = cast(DnsSettings, load_preset("dns-mr").options)
    if kind != "MIND":
        return preset
    descriptor = replace(preset.descriptor, name="mind", mind_dilation=MIND_DILATION)
    return replace(preset, descriptor=descriptor, regularisation=MIND_REGULARISATION)


def methods() -> dict[str, Descriptors]:
    """The ablation of the paper, and MIND, in ascending order of what the paper expects."""
    untrained, trained = _untrained(), load_network(settings_of("DNS").descriptor.dns_weights, MasrNet)
    mind = settings_of("MIND")
    radius, dilation = mind.descriptor.mind_radius, mind.descriptor.mind_dilation
    return {
        "CNN, untrained": Descriptors(lambda image, weight: cnn(image, weight, untrained), True, settings_of("CNN")),
        "DNS, untrained": Descriptors(
            lambda image, weight: dns(image, untrained, mask=weight[0, 0] > 0), True, settings_of("DNS")
        ),
        "MIND": Descriptors(lambda image, _: mind_ssc(image, radius=radius, dilation=dilation), False, mind),
        "DNS": Descriptors(lambda image, weight: dns(image, trained, mask=weight[0, 0] > 0), True, settings_of("DNS")),
    }


@cache
def _untrained() -> MasrNet:
    card = read_card(settings_of("DNS").descriptor.dns_weights)
    torch.manual_seed(0)
    return MasrNet(MasrNetSettings.from_dict(card["settings"])).eval().requires_grad_(False)


@torch.no_grad()
def cnn(image: torch.Tensor, weight: torch.Tensor, network: MasrNet) -> torch.Tensor:
    """Features h of the network, before any self-similarity."""
    image = unit_range(replicate_edge(image[0, 0], weight[0, 0] > 0)[None, None])
    return network.features(network.encode_full(image), network.coarse(network.pooled(image)))


def subject_pair(fixed: Subject, moving: Subject, contrast: tuple[str, str]) -> Prepared:
    """Two subjects on the common grid; the foreground is the fixed brain and a rim around it."""
    weight = foreground_around(fixed.labels.data[None] > 0)
    image, other = (getattr(s, c).data[None] for s, c in zip((fixed, moving), contrast, strict=True))
    return Prepared(fixed.labels.grid, Channel(image, weight), (Channel(other, torch.ones_like(weight)),))


def foreground_around(brain: torch.Tensor) -> torch.Tensor:
    """A brain (1, 1, D, H, W), bool, and a rim around it, as a weight."""
    return F.max_pool3d(brain.float(), 2 * _RIM_VOXEL + 1, stride=1, padding=_RIM_VOXEL)


def error_row(error_mm: torch.Tensor, folds: torch.Tensor) -> dict[str, Any]:
    """Numbers of one registration with a known truth; ``error_mm`` (N,) over the voxels that count."""
    return {
        "mean_mm": round(float(error_mm.mean()), 3),
        "p95_mm": round(float(error_mm.kthvalue(round(0.95 * len(error_mm))).values), 3),
        "folds": float(folds),
    }


def error_table(rows: Iterable[dict[str, Any]], order: Sequence[str], unit: str) -> list[dict[str, Any]]:
    """Means of such rows, a line for each method; ``unit`` is what one row was measured on."""
    table = []
    for how in order:
        measured = [row for row in rows if row["method"] == how]
        means = [row["mean_mm"] for row in measured]
        table.append(
            {
                "method": how,
                f"{unit}s": len(measured),
                "mean mm": round(float(np.mean(means)), 2),
                f"worst {unit}'s mean mm": max(means),
                "p95 mm": round(float(np.mean([row["p95_mm"] for row in measured])), 2),
                "folds [%]": round(100 * float(np.mean([row["folds"] for row in measured])), 4),
            }
        )
    return table


@cache
def version_of(how: str) -> str:
    """What a method's rows depend on: settings, and weights where it has them."""
    if how == "start":
        return "start"
    if how == "SyN MI":
        return PEERS[how].version
    settings = settings_of(how)
    digest = hashlib.sha256(json.dumps(settings.to_dict()).encode())
    if how != "MIND":
        digest.update(
            str(read_card(settings.descriptor.dns_weights)["sha256" if how == "DNS" else "settings"]).encode()
        )
    return digest.hexdigest()[:10]
