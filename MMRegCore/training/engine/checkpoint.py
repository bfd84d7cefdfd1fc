"""What a training writes: a checkpoint to resume from, and weights with a card that says how they were made."""

from __future__ import annotations

import hashlib
import json
import pickle
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from MMRegCore.errors import InputError
from MMRegCore.io.files import atomic_path
from MMRegCore.networks.protocol import Network

CHECKPOINT = "checkpoint.pt"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training: tensors, numbers, texts, lists and dictionaries; atomically."""
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def read_checkpoint(path: Path, device: torch.device, parts: Iterable[str] = ()) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; nothing in the file is executed.

    Raises `InputError` when there is no checkpoint, or it is damaged, another kind of file, or of a version without
    some of ``parts``.
    """
    if not path.is_file():
        raise InputError(f"expected a checkpoint to resume from; got {path}, which does not exist")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"expected a checkpoint of a training; got {path}, which cannot be read as one") from error
    missing = sorted(set(parts) - set(state))
    if missing:
        raise InputError(f"expected a checkpoint of this version of MMReg; {path} has no {', '.join(missing)}")
    return state


def write_weights(network: Network, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write weights as ``path`` (.safetensors) and beside it the card (.json), from which `load_network` makes them.

    Weights of floating point become float32.  ``about`` is what the card says besides architecture, settings, number of
    parameters and SHA-256.
    """
    content = save({name: _plain(tensor) for name, tensor in network.state_dict().items()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    card = {
        **(about or {}),
        "architecture": network.name,
        "settings": network.settings.to_dict(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def machine_name(device: torch.device) -> str:
    """Processor and PyTorch version, without the name of the machine."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor
