"""How each network is trained: its settings and its recipe in each file, found by the network's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from MMRegCore.records import read_json
from MMRegCore.settings import named, plugins_of

if TYPE_CHECKING:
    from MMRegCore.training.engine.recipe import Recipe
    from MMRegCore.training.settings import RecipeSettings


def recipes() -> dict[str, type[Recipe]]:
    """Every recipe by the name of its network."""
    return {recipe.network_class.name: recipe for recipe in plugins_of(__name__, "RECIPE")}


def find_recipe(name: str) -> type[Recipe]:
    """The recipe of the network of that name; `InputError` with the nearest one when there is none."""
    return named("training", name, recipes())


def read_settings(recipe: type[Recipe], path: Path | None) -> RecipeSettings:
    """Settings from a JSON file, the defaults where there is none.

    Raises `InputError` when the file cannot be read, is no JSON, or names a setting that is not known or in its range.
    """
    return recipe.settings_class.from_dict(read_json(path, "a configuration in JSON") if path else {})
