"""Ultrasound and MR laid over each other in the slice views, in the ways that show a misfit; needs no Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.map_style import dress
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _

# A few voxels that are far brighter than the rest must not make the rest dark.
_PERCENTILES = (1, 99)
_WHITE = 255.0


class Overlay:
    """What the slice views show of a result.

    Parameters
    ----------
    result : Result

    Notes
    -----
    Slicer has no checkerboard of its own, so that one, and the difference, are volumes on the ultrasound's grid; there
    is one at a time, hidden from the lists of nodes, and `clear` removes it.
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self._comparison: Node = None

    def blend(self, share: float) -> None:
        """Show the MR, where it is now, over the ultrasound: 0 is the ultrasound alone, 1 the MR alone."""
        self.clear()
        self._lay(self._result.fixed, self._result.moving[0], share)

    def overlay_map(self, node: Node, share: float) -> None:
        """Show one of the quality maps in colours over the ultrasound, with a legend."""
        self.clear()
        self._lay(self._result.fixed, node, share)
        dress(node)  # last: a legend is drawn for what the views show already

    def checkerboard(self, tile_mm: float) -> None:
        """Show ultrasound and registered MR in turns, in cubes of ``tile_mm``: structures go on without a step."""
        fixed, warped = self._both()
        spacing = self._result.fixed.GetSpacing()[::-1]
        number = [np.floor(np.arange(size) * step / tile_mm) for size, step in zip(fixed.shape, spacing, strict=True)]
        odd = (number[0][:, None, None] + number[1][:, None] + number[2]) % 2 == 1
        self._show_comparison(np.where(odd, warped, fixed), (0.0, _WHITE))

    def difference(self) -> None:
        """Show registered MR minus ultrasound, both stretched to the same brightness; grey is no difference."""
        fixed, warped = self._both()
        self._show_comparison(warped - fixed, (-_WHITE, _WHITE))

    def clear(self) -> None:
        """Remove what was made for showing."""
        if self._comparison is not None:
            mrml_bridge.remove(self._comparison)
            self._comparison = None
        for node in self._result.maps:
            legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
            if legend is not None:
                node.GetScene().RemoveNode(legend)

    def _both(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Ultrasound and registered MR, (D, H, W) on the ultrasound's grid, 0 to 255."""
        self.clear()
        # Slicer turns some volumes round when it reads them, so the voxels must be matched by their places.
        logic = slicer.vtkSlicerVolumesLogic()
        logic.SetMRMLScene(self._result.transform.GetScene())
        self._comparison = logic.ResampleVolumeToReferenceVolume(self._result.warped[0], self._result.fixed)
        self._comparison.SetName(_("MMReg comparison"))
        self._comparison.SetHideFromEditors(True)
        self._comparison.SetAndObserveTransformNodeID(self._result.fixed.GetTransformNodeID())
        fixed = slicer.util.arrayFromVolume(self._result.fixed)
        return _stretched(fixed), _stretched(slicer.util.arrayFromVolume(self._comparison))

    def _show_comparison(self, values: np.ndarray[Any, Any], limits: tuple[float, float]) -> None:
        slicer.util.updateVolumeFromArray(self._comparison, values.astype(np.float32))
        if self._comparison.GetDisplayNode() is None:
            self._comparison.CreateDefaultDisplayNodes()
        display = self._comparison.GetDisplayNode()
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(*limits)
        self._lay(self._comparison, None, 0.0)

    def _lay(self, background: Node, foreground: Node, share: float) -> None:
        scene = self._result.transform.GetScene()
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
            composite = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
            composite.SetBackgroundVolumeID(background.GetID())
            composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
            composite.SetForegroundOpacity(share)


def _stretched(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    low, high = np.percentile(values, _PERCENTILES)
    stretched: np.ndarray[Any, Any] = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1) * _WHITE
    return stretched
