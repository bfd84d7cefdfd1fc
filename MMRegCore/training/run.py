"""A whole training by name: from settings and a folder of data to weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from MMRegCore.errors import InputError
from MMRegCore.io.files import atomic_path
from MMRegCore.monitor import Monitor
from MMRegCore.networks.weights import load_network, read_card
from MMRegCore.records import read_json
from MMRegCore.settings import describe
from MMRegCore.training.data.subjects import TrainingData, read_training_data
from MMRegCore.training.engine.checkpoint import CHECKPOINT
from MMRegCore.training.engine.distributed import ProcessContext, process_context
from MMRegCore.training.engine.loop import train
from MMRegCore.training.engine.recipe import Recipe
from MMRegCore.training.recipes import find_recipe
from MMRegCore.training.settings import RecipeSettings

SETTINGS = "settings.json"
# A run may be prolonged, or validate more often; anything else would make another training of it.
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
    """Train the network ``name``, or ``resume`` its training, and give its last scores on the validation split.

    Parameters
    ----------
    data, output : Path
        Folders of the subjects (`read_training_data`); for checkpoint, curves, weights, cards and ``settings.json``.
    device : str
        'auto', 'cpu', 'cuda' or 'cuda:N'; started by ``torchrun``, every process trains on its own part.

    Raises
    ------
    InputError, DeviceError, Cancelled
        When data, settings or ``output`` do not fit (see `read_training_data` and `train`); the device is not there;
        the monitor is cancelled, after a checkpoint was written.
    """
    recipe_class = find_recipe(name)
    if not isinstance(settings, recipe_class.settings_class):
        raise InputError(f"expected {recipe_class.settings_class.__name__} for {name}; got {type(settings).__name__}")
    subjects = read_training_data(data)
    with process_context(device, settings.training.precision) as context:
        _open_output(output, settings, context, resume)
        with torch.random.fork_rng(devices=context.fork_devices):
            # The same initial weights in every process.
            torch.manual_seed(settings.training.seed)
            recipe = recipe_class(settings, subjects, context)
        about = _about(name, settings, subjects)
        if settings.initial_weights:
            about["initial_weights_sha256"] = _load_weights(recipe, settings.initial_weights)
        return train(recipe, settings.training, output, context=context, monitor=monitor, resume=resume, about=about)


def _about(name: str, settings: RecipeSettings, data: TrainingData) -> dict[str, Any]:
    """What the cards of the weights say."""
    return {
        "name": name,
        "data": f"{data.name}: {', '.join(data.training.names)}",
        "validated_on": ", ".join(data.validation.names),
        # Folders are this machine's own.
        "training_settings": replace(settings, initial_weights=Path(settings.initial_weights).name).to_dict(),
    }


def _load_weights(recipe: Recipe, weights: str) -> str:
    """Give the recipe's network the weights of another training; returns their SHA-256."""
    card = read_card(weights)
    loaded = load_network(weights, recipe.network_class).state_dict()
    try:
        recipe.network.load_state_dict(loaded)
    except RuntimeError as error:
        expected = json.dumps(card.get("settings"))
        raise InputError(
            f"expected the network settings of the initial weights, {expected}; they do not fit"
        ) from error
    return str(card["sha256"])


def _open_output(output: Path, settings: RecipeSettings, context: ProcessContext, resume: bool) -> None:
    if not resume and (output / CHECKPOINT).exists():
        raise InputError(f"expected an output folder without a checkpoint, or --resume; got {output}")
    if resume:
        _check_same(output / SETTINGS, settings)
    if context.is_main:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"expected --output to be a folder; got {output}: {error.strerror}") from error
        with atomic_path(output / SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings.to_dict(), indent=2) + "\n", encoding="utf-8")


def _check_same(path: Path, settings: RecipeSettings) -> None:
    before = type(settings).from_dict(read_json(path, f"{SETTINGS} of the training to resume"))
    for old, new in zip(describe(before), describe(settings), strict=True):
        if old.default != new.default and old.key not in _MAY_CHANGE:
            raise InputError(
                f"expected the settings of the checkpoint; got {new.key} = {new.default}, was {old.default}"
            )
