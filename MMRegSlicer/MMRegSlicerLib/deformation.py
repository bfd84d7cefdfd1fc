"""The transform itself in the slice views: a warped grid, arrows, or lines of equal displacement; needs no Qt."""

from __future__ import annotations

import slicer

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result

# Modes of vtkMRMLTransformDisplayNode by the names that the form uses.
GRID, GLYPHS, CONTOURS = "grid", "glyphs", "contours"
# Coarse enough to see the image through it, fine enough to see a bend of the brain.
_SPACING_MM = 6.0
_RESOLUTION_MM = 1.5


def show_deformation(result: Result, mode: str) -> None:
    """Draw the transform over the box of the ultrasound, in slice views only; with '' take the drawing away.

    Parameters
    ----------
    result : Result
    mode : str
        `GRID`, `GLYPHS`, `CONTOURS` or ''.
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
        # In the 3D view the box would hide everything else.
        display.SetVisibility3D(False)
        display.SetVisibility(True)


def shown_deformation(transform: Node) -> str:
    """Which drawing of a transform is seen; '' when none is."""
    display = transform.GetDisplayNode()
    if display is None or not display.GetVisibility():
        return ""
    kind = slicer.vtkMRMLTransformDisplayNode
    names = {kind.VIS_MODE_GRID: GRID, kind.VIS_MODE_GLYPH: GLYPHS, kind.VIS_MODE_CONTOUR: CONTOURS}
    return names.get(display.GetVisualizationMode(), "")
