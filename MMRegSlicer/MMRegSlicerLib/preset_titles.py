"""The names under which the form offers the presets."""

from __future__ import annotations

from MMRegSlicerLib.translation import tr as _


def preset_title(name: str) -> str:
    """The title of a preset; its name where there is none.

    Parameters
    ----------
    name : str
        As ``mmreg --preset`` takes it.
    """
    titles = {
        "lc2": _("MR to ultrasound (recommended)"),
        "mcbo": _("MR to ultrasound, by structure"),
        "dns": _("MR to ultrasound, learned"),
        "dns-mr": _("MR to MR, learned"),
        "mcbo-published": _("MCBO as published"),
        "mcbo-clem": _("Electron to light microscopy"),
        "multiprop": _("MultiPropReg (own weights)"),
        "gradient-guided": _("Gradient guidance (own weights)"),
        "lapirn": _("LapIRN (own weights)"),
    }
    return titles.get(name, name)
