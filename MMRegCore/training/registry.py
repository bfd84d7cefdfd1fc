"""The trainings that there are: names, their settings, and what makes them; imports no torch by itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from MMRegCore.config.pair_training import GradientGuidedTraining, LapIrnTraining, MultiPropTraining
from MMRegCore.config.training import MasrNetTraining, RecipeSettings
from MMRegCore.errors import InputError
from MMRegCore.settings import unknown_name

if TYPE_CHECKING:
    from MMRegCore.training.data import TrainingData
    from MMRegCore.training.distributed import Place
    from MMRegCore.training.recipe import Batches, Recipe


@dataclass(frozen=True)
class Training:
    """One entry of the registry.

    Attributes
    ----------
    settings : type of RecipeSettings
    maker : str
        ``module:function`` of ``make(settings, data, place) -> (Recipe, Batches)``.
    help : str
        What it trains, in a few words.
    """

    settings: type[RecipeSettings]
    maker: str
    help: str

    def make(self, settings: RecipeSettings, data: TrainingData, place: Place) -> tuple[Recipe, Batches]:
        """Make the recipe and its batches; raises `InputError` where the data does not hold what it needs."""
        module, _, function = self.maker.partition(":")
        made: tuple[Recipe, Batches] = getattr(import_module(module), function)(settings, data, place)
        return made


TRAININGS: dict[str, Training] = {
    "masr-net": Training(
        MasrNetTraining, "MMRegCore.training.masrnet:make_masrnet", "descriptors that are alike in all contrasts"
    ),
    "multiprop": Training(
        MultiPropTraining, "MMRegCore.training.multiprop:make_multiprop", "registration by multi-scale propagation"
    ),
    "gradient-guided": Training(
        GradientGuidedTraining,
        "MMRegCore.training.gradient_guided:make_gradient_guided",
        "registration by images and their gradient maps",
    ),
    "lapirn": Training(
        LapIrnTraining, "MMRegCore.training.lapirn:make_lapirn", "registration on a Laplacian pyramid, with MIND or DNS"
    ),
}


def find_training(name: str) -> Training:
    """The training of that name; `InputError` with the nearest one when there is none."""
    if name not in TRAININGS:
        raise unknown_name("training", name, list(TRAININGS))
    return TRAININGS[name]


def read_settings(training: Training, path: Path | None) -> RecipeSettings:
    """Settings from a JSON file, the defaults where there is none.

    Raises
    ------
    InputError
        When the file cannot be read, is no JSON, or names a setting that is not known or not in its range.
    """
    if path is None:
        return training.settings()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"expected a configuration in JSON; got {path}: {error}") from error
    return training.settings.from_dict(values)
