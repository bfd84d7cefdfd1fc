"""Networks from their weights: what a file holds is checked against the card beside it before it is used."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from MMRegCore.errors import InputError
from MMRegCore.networks import find_network
from MMRegCore.networks.protocol import Network
from MMRegCore.records import read_json
from MMRegCore.settings import unknown_name

SUFFIX = ".safetensors"

N = TypeVar("N", bound=Network)


def load_network(name_or_path: str | Path, kind: type[N]) -> N:
    """Make a network and give it its weights.

    ``name_or_path`` is a name of `weights_names`, or a ``.safetensors`` file with its card (``.json``) beside it;
    ``kind`` is what the network must be, `Network` for any.  It comes on the CPU, in evaluation mode, with nothing left
    to learn: ``requires_grad`` is off.

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
    found = find_network(str(card.get("architecture")))
    if not issubclass(found, kind):
        wanted = getattr(kind, "name", "a registration network")
        raise InputError(f"expected weights of {wanted}; got {path.name}, which are of {found.name}")
    network = found(found.settings_class.from_dict(card.get("settings", {})))
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"expected weights of {found.name} with the card's settings; got {path.name}: {reason}"
        ) from error
    return channels_last(network.eval().requires_grad_(False))


def channels_last(network: N) -> N:
    """The same network, in place, with the memory layout in which a CPU convolves and upsamples up to twice as fast."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[no-any-return, call-overload]


def weights_names() -> tuple[str, ...]:
    """Names of the weights that come with MMReg, in alphabetical order."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in _folder().glob(f"*{SUFFIX}")))


def read_card(weights: str | Path) -> dict[str, Any]:
    """Read the card of some weights: architecture, settings, data, steps, scores, licence, SHA-256.

    Raises `InputError` when there are no such weights, or no card that can be read.
    """
    return read_json(_weights_path(weights).with_suffix(".json"), "a card beside the weights")


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
