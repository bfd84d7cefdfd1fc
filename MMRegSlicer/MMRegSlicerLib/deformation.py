"""Display of the registration transform in the slice views: warped grid, glyphs or contours; needs no Qt."""

from __future__ import annotations

import slicer

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result

# Visualization modes of vtkMRMLTransformDisplayNode.
GRID, GLYPHS, CONTOURS = "grid", "glyphs", "contours"
# Coarse enough to see the image between the lines, fine enough to show the deformation of a brain.
_SPACING_MM = 6.0
_RESOLUTION_MM = 1.5


def show_deformation(result: Result, mode: str) -> None:
    """Display the transform over the extent of the ultrasound, in the slice views only.

    Parameters
    ----------
    result : Result
    mode : str
        `GRID`, `GLYPHS`, `CONTOURS`, or '' to hide it.
    """
    transform = result.transform
    if transform.GetScene() is None:
        return
    display = transform.GetDisplayNode()
    if not mode:
        if display is not None and display.GetVisibility():
            display.SetVisibility(False)
        return
    if display is None:
        transform.CreateDefaultDisplayNodes()
        display = transform.GetDisplayNode()
    kind = slicer.vtkMRMLTransformDisplayNode
    modes = {GRID: kind.VIS_MODE_GRID, GLYPHS: kind.VIS_MODE_GLYPH, CONTOURS: kind.VIS_MODE_CONTOUR}
    with slicer.util.NodeModify(display):
        display.SetVisualizationMode(modes[mode])
        display.SetAndObserveRegionNode(result.fixed)
        display.SetGridSpacingMm(_SPACING_MM)
        display.SetGridResolutionMm(_RESOLUTION_MM)
        display.SetGlyphSpacingMm(_SPACING_MM)
        display.SetContourResolutionMm(_RESOLUTION_MM)
        display.SetVisibility2D(True)
        # In the 3D view it would hide everything else.
        display.SetVisibility3D(False)
        display.SetVisibility(True)


def deformation_mode(transform: Node) -> str:
    """The mode in which a transform is displayed; '' when it is hidden."""
    display = transform.GetDisplayNode()
    if display is None or not display.GetVisibility():
        return ""
    kind = slicer.vtkMRMLTransformDisplayNode
    modes = {kind.VIS_MODE_GRID: GRID, kind.VIS_MODE_GLYPH: GLYPHS, kind.VIS_MODE_CONTOUR: CONTOURS}
    return modes.get(display.GetVisualizationMode(), "")
