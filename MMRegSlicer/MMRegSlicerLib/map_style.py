"""Name, colours and range of every quality map; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.translation import tr as _

# Attribute of a map: the name of its file without the suffix.
MAP = "MMReg.map"
# Two of Slicer's own colour tables: yellow to red, and red over green in the middle to violet.
_SEQUENTIAL, _DIVERGING = "vtkMRMLColorTableNodeWarm1", "vtkMRMLColorTableNodeRainbow"
_JACOBIAN_RANGE = (0.5, 1.5)
# Of the expected error: the same in every case and as in the report, so that colours can be compared between cases.
_EXPECTED_RANGE_MM = (0.0, 4.0)
# The upper limit of a range of lengths: a percentile, because of outliers, but not below the minimum.
_PERCENTILE, _MINIMUM_MM = 99.0, 1.0
# The files hold 0 mm outside the field of view.
_THRESHOLD_MM = 1e-6


@dataclass(frozen=True)
class MapStyle:
    """Title of a map and its legend, colour table, display range, and the lower threshold of what is displayed."""

    title: str
    colour_table: str
    display_range: tuple[float, float]
    threshold: float | None = None


def map_style(node: Node) -> MapStyle:
    """The display style of a map by its file name; unknown maps are displayed as lengths without a unit."""
    name = str(node.GetAttribute(MAP) or "")
    if name == "jacobian_determinant":
        return MapStyle(_("Jacobian determinant"), _DIVERGING, _JACOBIAN_RANGE)
    if name == "expected_error":
        return MapStyle(_("Expected error (mm)"), _SEQUENTIAL, _EXPECTED_RANGE_MM, _THRESHOLD_MM)
    titles = {
        "displacement": _("Displacement (mm)"),
        "inverse_consistency_error": _("Inverse consistency error (mm)"),
    }
    upper = float(np.percentile(slicer.util.arrayFromVolume(node), _PERCENTILE))
    title = titles.get(name, name.replace("_", " "))
    return MapStyle(title, _SEQUENTIAL, (0.0, max(_MINIMUM_MM, upper)), _THRESHOLD_MM)


def apply_map_style(node: Node) -> None:
    """Set the colour table, the range and the legend of a map."""
    style, display = map_style(node), node.GetDisplayNode()
    display.SetAndObserveColorNodeID(style.colour_table)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*style.display_range)
    if style.threshold is not None:
        display.AutoThresholdOff()
        display.SetThreshold(style.threshold, np.finfo(np.float32).max)
        display.ApplyThresholdOn()
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(display)
    legend.SetTitleText(style.title)
    legend.SetVisibility(True)
