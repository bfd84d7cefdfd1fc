"""What MMReg can be told: the settings, and the presets that come with it; needs no torch."""

from MMRegCore.config.presets import DEFAULT_PRESET, load_preset, preset_description, preset_names
from MMRegCore.config.registration import (
    ChoiceSettings,
    DnsSettings,
    InstanceSettings,
    Lc2Settings,
    LearnedSettings,
    McboSettings,
    MotionSettings,
    RegistrationSettings,
)
from MMRegCore.settings import Described, as_text, describe, with_changes

__all__ = [
    "DEFAULT_PRESET",
    "ChoiceSettings",
    "Described",
    "DnsSettings",
    "InstanceSettings",
    "Lc2Settings",
    "LearnedSettings",
    "McboSettings",
    "MotionSettings",
    "RegistrationSettings",
    "as_text",
    "describe",
    "load_preset",
    "preset_description",
    "preset_names",
    "with_changes",
]
