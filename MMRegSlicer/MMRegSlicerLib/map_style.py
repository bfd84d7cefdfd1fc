"""How each quality map is called and coloured; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.translation import tr as _

# On a map: the file that it came from, without its suffix.
MAP = "MMReg.map"
# Two of the tables that Slicer makes itself: yellow to red, and red over green, which is the middle, to violet.
_MORE, _AROUND = "vtkMRMLColorTableNodeWarm1", "vtkMRMLColorTableNodeRainbow"
_JACOBIAN_RANGE = (0.5, 1.5)
# Of the expected error: the same in every case and as in the report, so that red always means "do not rely on it".
_EXPECTED_RANGE_MM = (0.0, 4.0)
# The scale of lengths ends where few voxels are above, and not below this, or nothing would look like much.
_PERCENTILE, _LEAST_MM = 99.0, 1.0
# What lies below was not measured: the files hold 0 mm there.
_MEASURED_MM = 1e-6


@dataclass(frozen=True)
class MapStyle:
    """Title of a map and its legend, colour table, limits of the scale, and from which value on it is seen."""

    title: str
    colours: str
    limits: tuple[float, float]
    seen_from: float | None = None


def style_of(node: Node) -> MapStyle:
    """The style of a map by the file that it came from; maps of a later core are shown as lengths without a unit."""
    name = str(node.GetAttribute(MAP) or "")
    if name == "jacobian_determinant":
        return MapStyle(_("Volume change (1 is none)"), _AROUND, _JACOBIAN_RANGE)
    if name == "expected_error":
        return MapStyle(_("Expected error (mm)"), _MORE, _EXPECTED_RANGE_MM, _MEASURED_MM)
    titles = {
        "displacement": _("Displacement (mm)"),
        "inverse_consistency_error": _("Inverse consistency (mm)"),
    }
    largest = float(np.percentile(slicer.util.arrayFromVolume(node), _PERCENTILE))
    title = titles.get(name, name.replace("_", " "))
    return MapStyle(title, _MORE, (0.0, max(_LEAST_MM, largest)), _MEASURED_MM)


def dress(node: Node) -> None:
    """Give a map its colours, its scale and a legend that names them."""
    style, display = style_of(node), node.GetDisplayNode()
    display.SetAndObserveColorNodeID(style.colours)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*style.limits)
    if style.seen_from is not None:
        display.AutoThresholdOff()
        display.SetThreshold(style.seen_from, np.finfo(np.float32).max)
        display.ApplyThresholdOn()
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(display)
    legend.SetTitleText(style.title)
    legend.SetVisibility(True)
