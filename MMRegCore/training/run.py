"""A whole training by name: from settings and a folder of data to weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from MMRegCore.config.training import RecipeSettings
from MMRegCore.errors import InputError
from MMRegCore.io import atomic_path
from MMRegCore.monitor import Monitor
from MMRegCore.networks.weights import load_network, read_card
from MMRegCore.settings import describe
from MMRegCore.training.checkpoint import CHECKPOINT
from MMRegCore.training.data import read_training_data
from MMRegCore.training.distributed import Place, place_of_training
from MMRegCore.training.loop import train
from MMRegCore.training.recipe import Recipe
from MMRegCore.training.registry import find_training

SETTINGS = "settings.json"
# A run may go on for longer, or tell more often; anything else would make another training of it.
_MAY_CHANGE = ("training.steps", "training.validate_every")


def run_training(
    name: str,
    settings: RecipeSettings,
    data: Path,
    output: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    monitor: Monitor | None = None,
) -> dict[str, float]:
    """Train a network.

    Parameters
    ----------
    name : str
        One of `TRAININGS`.
    settings : RecipeSettings
        Of the kind that this training has.
    data : Path
        As `read_training_data` finds subjects in.
    output : Path
        Folder for checkpoint, curves, weights, cards and ``settings.json``; made where it does not exist.
    device : str
        'auto', 'cpu', 'cuda' or 'cuda:N'; started by ``torchrun``, every process trains on its own part.
    resume : bool
        Go on from the checkpoint in ``output``.
    monitor : Monitor, optional

    Returns
    -------
    dict
        The last scores on the validation split.

    Raises
    ------
    InputError
        When data, settings or ``output`` do not fit; see `read_training_data` and `train`.
    DeviceError
        When the device is not there.
    Cancelled
        When the monitor says so; a checkpoint was written.
    """
    training = find_training(name)
    if not isinstance(settings, training.settings):
        raise InputError(f"expected {training.settings.__name__} for {name}; got {type(settings).__name__}")
    found = read_training_data(data)
    with place_of_training(device, settings.training.precision) as place:
        _open_output(output, settings, place, resume)
        with torch.random.fork_rng(devices=[place.device] if place.device.type == "cuda" else []):
            # The same first weights in every process.
            torch.manual_seed(settings.training.seed)
            recipe, batches = training.make(settings, found, place)
        about = {
            "name": name,
            "data": f"{found.name}: {', '.join(found.training.names)}",
            "validated_on": ", ".join(found.validation.names),
            "training_settings": settings.to_dict(),
        }
        if settings.start:
            about["started_from_sha256"] = _take_weights(recipe, settings.start)
        return train(
            recipe, batches, settings.training, output, place=place, monitor=monitor, resume=resume, about=about
        )


def _take_weights(recipe: Recipe, start: str) -> str:
    """Give the recipe's network the weights of another training; gives their SHA-256."""
    card = read_card(start)
    begun = load_network(start, architecture=recipe.architecture).state_dict()
    try:
        recipe.network.load_state_dict(begun)
    except RuntimeError as error:
        made = json.dumps(card.get("settings"))
        raise InputError(f"expected network settings of the weights to begin with, {made}; they do not fit") from error
    return str(card["sha256"])


def _open_output(output: Path, settings: RecipeSettings, place: Place, resume: bool) -> None:
    if not resume and (output / CHECKPOINT).exists():
        raise InputError(f"expected an output folder without a checkpoint, or --resume; got {output}")
    if resume:
        _check_same(output / SETTINGS, settings)
    if place.first:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"expected --output to be a folder; got {output}: {error.strerror}") from error
        with atomic_path(output / SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings.to_dict(), indent=2) + "\n", encoding="utf-8")


def _check_same(path: Path, settings: RecipeSettings) -> None:
    try:
        before = type(settings).from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"expected {SETTINGS} of the training to go on with; got {path}: {error}") from error
    for old, new in zip(describe(before), describe(settings), strict=True):
        if old.value != new.value and old.key not in _MAY_CHANGE:
            raise InputError(f"expected the settings of the checkpoint; got {new.key} = {new.value}, was {old.value}")
