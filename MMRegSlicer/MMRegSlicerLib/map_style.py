"""Display of the quality maps, as ``result.json`` describes it; needs no Qt."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from MMRegCore.assessment.quality import MapSummary
from MMRegSlicerLib.request import Node

# Attributes of a map: the title of its legend, and what a reader should know about the colours.
TITLE, SENTENCE = "MMReg.title", "MMReg.sentence"
# Volumes are displayed with the colours from 0 (lower limit of the display range) to this (upper limit).
_LAST = 255.0
# Values this close to the background, as a fraction of the display range, are transparent.
_TOLERANCE = 1e-6


def set_map_style(node: Node, summary: MapSummary) -> None:
    """Set title, colours, display range and threshold of a map; the scene stores all of them."""
    node.SetAttribute(TITLE, f"{summary.title} ({summary.unit})" if summary.unit else summary.title)
    node.SetAttribute(SENTENCE, summary.sentence)
    display, (low, high), background = node.GetDisplayNode(), summary.limits, summary.background
    display.SetAndObserveColorNodeID(_colour_node(node.GetScene(), summary.colours).GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    # A threshold cannot cut a background out of the middle of the range.
    if not low < background < high:
        margin, largest = _TOLERANCE * (high - low), np.finfo(np.float32).max
        visible = (background + margin, largest) if background <= low else (-largest, background - margin)
        display.AutoThresholdOff()
        display.SetThreshold(*visible)
        display.ApplyThresholdOn()


def _colour_node(scene: Node, colours: tuple[str, ...]) -> Node:
    """The colour node of the scene for these colours ('#rrggbb', at even steps); all maps share it by its name."""
    name = " ".join(["MMReg", *(colour.removeprefix("#") for colour in colours)])
    node = scene.GetFirstNode(name, "vtkMRMLProceduralColorNode")
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLProceduralColorNode", name)
        for position, colour in zip(np.linspace(0, _LAST, len(colours)), colours, strict=True):
            channels = [int(colour[begin:end], 16) / 255 for begin, end in pairwise((1, 3, 5, 7))]
            node.GetColorTransferFunction().AddRGBPoint(position, *channels)
    return node
