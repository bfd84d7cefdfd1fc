"""The settings of a registration, and the presets that come with MMReg; needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from MMRegCore.methods import find_method, method_names, settings_class
from MMRegCore.methods.protocol import Extension
from MMRegCore.search.settings import ModelSelectionSettings
from MMRegCore.settings import SettingInfo, Settings, as_text, describe, named, setting, variant, with_changes

__all__ = [
    "DEFAULT_PRESET",
    "ModelSelectionSettings",
    "RegistrationSettings",
    "SettingInfo",
    "as_text",
    "describe",
    "load_preset",
    "preset_description",
    "preset_names",
    "presets_as_json",
    "with_changes",
]

DEFAULT_PRESET = "lc2"


@dataclass(frozen=True)
class RegistrationSettings(Settings):
    """Everything that decides the result of a registration, but for the inputs, the device and the seed.

    Attributes
    ----------
    options : Settings
        Of the method; in JSON and on the command line under the method's name.
    """

    method: str = setting("lc2", "How the deformation is found.", choices=method_names)
    working_spacing_mm: float | Literal["native", "auto"] = setting(
        "auto",
        "Voxel size of the isotropic grid that the work happens on; 'native' keeps the fixed image's own grid, "
        "'auto' chooses by size and memory.",
        label="Working grid spacing",
        minimum=1e-4,
        maximum=100,
        tier="basic",
    )
    masked: bool = setting(
        True, "Whether masks and the field of view count; the published MCBO leaves them out.", label="Use masks"
    )
    brain_mask: bool = setting(
        True,
        "Whether the brain is found in MR that come without a mask, and all else left out of the search; for images "
        "of heads.",
        tier="basic",
    )
    margin_mm: float = setting(
        20.0, "Moving image around the field of view that the search may use.", minimum=0, maximum=150
    )
    options: Settings = variant("method", settings_class)
    model_selection: ModelSelectionSettings = ModelSelectionSettings()

    def extension(self) -> Extension | None:
        """The method's second search, which looks further; None where there is none."""
        return find_method(self.method).extended(self.options) if self.model_selection.enabled else None

    def extended(self) -> RegistrationSettings | None:
        """Settings of the second search; None where there is none."""
        extension = self.extension()
        if extension is None:
            return None
        values = {name: getattr(self, name) for name in ("method", "working_spacing_mm", "masked", "model_selection")}
        margin_mm = self.margin_mm + extension.further_mm
        return RegistrationSettings(**values, margin_mm=margin_mm, options=extension.settings)


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with MMReg, in alphabetical order."""
    return tuple(_files())


def load_preset(name: str) -> RegistrationSettings:
    """Read a preset; `InputError` with the nearest name when there is none of that name."""
    return RegistrationSettings.from_dict(_content(name)["settings"])


def preset_description(name: str) -> str:
    """Say in one sentence what a preset is for; `InputError` when there is none of that name."""
    return str(_content(name)["description"])


def presets_as_json() -> dict[str, Any]:
    """Every preset and its settings, as a form is built from them: kind, choices, unit, label, tier, range, default."""
    presets = [
        {
            "name": name,
            "description": preset_description(name),
            "settings": [about.to_dict() for about in describe(load_preset(name))],
        }
        for name in preset_names()
    ]
    return {"default": DEFAULT_PRESET, "presets": presets}


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(named("preset", name, _files()).read_text(encoding="utf-8"))
    return content


def _files() -> dict[str, Any]:  # Traversable moved between modules after Python 3.10
    folder = files("MMRegCore").joinpath("presets")
    found = {item.name.removesuffix(".json"): item for item in folder.iterdir() if item.name.endswith(".json")}
    return dict(sorted(found.items()))
