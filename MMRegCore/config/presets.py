"""The presets that come with MMReg."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from MMRegCore.config.registration import RegistrationSettings
from MMRegCore.settings import unknown_name

DEFAULT_PRESET = "lc2"


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with MMReg, in alphabetical order."""
    return tuple(sorted(item.name.removesuffix(".json") for item in _folder().iterdir() if item.name.endswith(".json")))


def load_preset(name: str) -> RegistrationSettings:
    """Read a preset.

    Raises
    ------
    InputError
        When there is no preset of that name; the nearest one is suggested.
    """
    return RegistrationSettings.from_dict(_content(name)["settings"])


def preset_description(name: str) -> str:
    """Say in one sentence what a preset is for; `InputError` when there is none of that name."""
    return str(_content(name)["description"])


def _content(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise unknown_name("preset", name, preset_names())
    content: dict[str, Any] = json.loads(_folder().joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return content


def _folder() -> Any:  # noqa: ANN401 - Traversable moved between modules after Python 3.10
    return files("MMRegCore").joinpath("presets")
