"""Display of the quality maps, as ``result.json`` describes it; needs no Qt."""

from __future__ import annotations

import numpy as np

from MMRegCore.assessment.quality import MapSummary
from MMRegSlicerLib.request import Node

# Attributes of a map: the title of its legend, and what a reader should know about the colours.
TITLE, SENTENCE = "MMReg.title", "MMReg.sentence"
# Begin of the name of every colour node of a map.
COLOURS = "MMReg colours"
# Slicer displays the lower limit of a range with the first of so many colours, the upper one with the last.
_COUNT = 256


def set_map_style(node: Node, summary: MapSummary) -> None:
    """Set the title, the colours and the display range of a map; the scene stores all of them."""
    node.SetAttribute(TITLE, f"{summary.title} ({summary.unit})" if summary.unit else summary.title)
    node.SetAttribute(SENTENCE, summary.sentence)
    display, (low, high) = node.GetDisplayNode(), summary.limits
    background = round((_COUNT - 1) * (summary.background - low) / (high - low))
    display.SetAndObserveColorNodeID(_colour_node(node.GetScene(), summary.colours, background).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)


def _colour_node(scene: Node, colours: tuple[str, ...], background: int) -> Node:
    """The colour table of the scene for '#rrggbb' at even steps; maps share it by its name.

    The entry of the background is transparent, which a threshold could do only at an end of the range.
    """
    name = f"{COLOURS} {' '.join(colour[1:] for colour in colours)} without {background}"
    node = scene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
        node.SetTypeToUser()
        node.SetNumberOfColors(_COUNT)
        stops = [[int(colour[begin : begin + 2], 16) / 255 for begin in (1, 3, 5)] for colour in colours]
        positions, entries = np.linspace(0, _COUNT - 1, len(colours)), np.arange(_COUNT)
        channels = [np.interp(entries, positions, channel) for channel in zip(*stops, strict=True)]
        # With its neighbours, because Slicer rounds.
        channels.append(np.abs(entries - background) > 1)
        for entry, rgba in enumerate(np.transpose(channels).tolist()):
            node.SetColor(entry, *rgba)
    return node
