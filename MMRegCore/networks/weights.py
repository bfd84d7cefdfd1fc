"""Networks from their weights: what a file holds is checked against the card beside it before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from MMRegCore.config import networks as settings_of
from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, unknown_name

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class _Architecture:
    """Where a network is defined, and what it is made with."""

    network: str  # module:class in MMRegCore.networks
    settings: type[Settings]

    def make(self, values: dict[str, Any]) -> nn.Module:
        module, _, name = self.network.partition(":")
        maker: Callable[[Settings], nn.Module] = getattr(import_module(f"MMRegCore.networks.{module}"), name)
        return maker(self.settings.from_dict(values))


# By the name that the cards give.
ARCHITECTURES = {
    "masr-net": _Architecture("masrnet:MasrNet", settings_of.MasrNetSettings),
    "multiprop": _Architecture("multiprop:MultiProp", settings_of.MultiPropSettings),
    "gradient-guided": _Architecture("gradient_guided:GradientGuided", settings_of.GradientGuidedSettings),
    "lapirn": _Architecture("lapirn:LapIrn", settings_of.LapIrnSettings),
}


def load_network(name_or_path: str | Path, *, architecture: str | None = None) -> nn.Module:
    """Make a network and give it its weights.

    Parameters
    ----------
    name_or_path : str or Path
        A name of `weights_names`, or a ``.safetensors`` file with its card (``.json``) beside it.
    architecture : str, optional
        What the network must be; whatever the card says when None.

    Returns
    -------
    nn.Module
        On the CPU, in evaluation mode, with nothing left to learn: ``requires_grad`` is off.

    Raises
    ------
    InputError
        When there are no such weights, the card is missing or cannot be read, the file is not the one that the card
        was written for, or it does not hold the weights of that network.
    """
    path = _weights_path(name_or_path)
    card = read_card(path)
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise InputError(
            f"expected {path.name} as its card describes it; got a file that was altered (SHA-256 differs)"
        )
    named = str(card.get("architecture"))
    if named not in ARCHITECTURES:
        raise unknown_name("architecture", named, list(ARCHITECTURES))
    if architecture is not None and named != architecture:
        raise InputError(f"expected weights of {architecture}; got {path.name}, which are of {named}")
    network = ARCHITECTURES[named].make(card.get("settings", {}))
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"expected weights of {named} with the card's settings; got {path.name}: {reason}") from error
    return with_channels_together(network.eval().requires_grad_(False))


def with_channels_together(network: nn.Module) -> nn.Module:
    """The same network, in place, with the memory layout in which a CPU convolves and upsamples up to twice as fast."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[no-any-return, call-overload]


def weights_names() -> tuple[str, ...]:
    """Names of the weights that come with MMReg, in alphabetical order."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in _folder().glob(f"*{SUFFIX}")))


def read_card(weights: str | Path) -> dict[str, Any]:
    """What the card of some weights says: architecture, settings, data, steps, scores, licence, SHA-256.

    Raises
    ------
    InputError
        When there are no such weights, or no card that can be read.
    """
    path = _weights_path(weights).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"expected a card beside the weights, {path.name}; it cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise InputError(f"expected a JSON object in {path.name}; got {type(card).__name__}")
    return card


def _weights_path(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, Path) or name_or_path.endswith(SUFFIX):
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(f"expected weights ({SUFFIX}); got {path}, which does not exist")
        return path
    if name_or_path not in weights_names():
        raise unknown_name("weights", name_or_path, weights_names())
    return _folder() / f"{name_or_path}{SUFFIX}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"expected weights that can be read; got {path}: {error.strerror}") from error


def _folder() -> Path:
    return Path(str(files("MMRegCore").joinpath("weights")))
