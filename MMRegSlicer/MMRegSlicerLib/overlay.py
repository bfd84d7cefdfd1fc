"""Comparison of ultrasound and MR in the slice views; needs no Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.contours import MrContours
from MMRegSlicerLib.interpolation import InterpolatedMr
from MMRegSlicerLib.map_style import TITLE
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _

# Grey values are rescaled between these, because of outliers.
_PERCENTILES = (1, 99)
_WHITE = 255.0


class Overlay:
    """The layers of all slice views for a result.

    Parameters
    ----------
    result : Result

    Notes
    -----
    Slicer has no checkerboard of its own. Checkerboard, difference and deformation are temporary volumes on the
    ultrasound's grid: one at a time, hidden from the node selectors, removed by `clear`; so are the contours. The
    interpolation between the positions keeps no node.
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self._comparison: Node = None
        self._interpolated_mr: tuple[bool, InterpolatedMr] | None = None
        self._contours: MrContours | None = None

    def blend(self, opacity: float) -> None:
        """Show the MR at its current position over the ultrasound, with an opacity of 0 to 1."""
        self.clear()
        self._set_layers(self._result.fixed, self._result.moving[0], opacity)

    def overlay_map(self, node: Node, opacity: float) -> None:
        """Show a quality map over the ultrasound in colours, with a legend."""
        self.clear()
        self._set_layers(self._result.fixed, node, opacity)
        # Last: a legend is drawn only for volumes that the views show already.
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node.GetDisplayNode())
        legend.SetTitleText(node.GetAttribute(TITLE).replace(" (", "\n("))  # a small view has no room for one line
        legend.SetLabelFormat("%.3g")
        legend.SetVisibility(True)

    def checkerboard(self, tile_mm: float) -> None:
        """Alternate ultrasound and registered MR in cubes of ``tile_mm``."""
        fixed, warped = self._rescaled_pair()
        spacing = self._result.fixed.GetSpacing()[::-1]
        tiles = [np.floor(np.arange(size) * step / tile_mm) for size, step in zip(fixed.shape, spacing, strict=True)]
        is_odd = (tiles[0][:, None, None] + tiles[1][:, None] + tiles[2]) % 2 == 1
        self._show_comparison(np.where(is_odd, warped, fixed), (0.0, _WHITE))

    def difference(self) -> None:
        """Show registered MR minus ultrasound, both rescaled to the same range; grey is no difference."""
        fixed, warped = self._rescaled_pair()
        self._show_comparison(warped - fixed, (-_WHITE, _WHITE))

    def deformation(self, fraction: float) -> None:
        """Show the MR over the ultrasound between the initial (0) and the registered position (1)."""
        if self._comparison is None:
            self.clear()
            self._new_comparison()
        self._comparison.SetAndObserveImageData(self._mr_between().image(fraction))
        self._set_display(_display_range(self._result.moving[0]))
        self._set_layers(self._result.fixed, self._comparison, 0.5)

    def contours(self, level: float) -> None:
        """Show contours of the MR before and after over the ultrasound; ``level`` is 0 to 1, see `MrContours`."""
        if self._contours is None:
            self.clear()
            self._contours = MrContours(self._mr_between(), self._result.fixed)
        self._contours.update(level)
        self._set_layers(self._result.fixed, None, 0.0)

    def clear(self) -> None:
        """Remove the temporary nodes and the legends."""
        if self._contours is not None:
            self._contours.clear()
            self._contours = None
        self._interpolated_mr = None
        if self._comparison is not None:
            mrml_bridge.remove_node(self._comparison)
            self._comparison = None
        for node in self._result.maps:
            legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
            if legend is not None:
                node.GetScene().RemoveNode(legend)

    def _rescaled_pair(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Ultrasound and registered MR, (D, H, W) on the ultrasound's grid, 0 to 255."""
        self.clear()
        # Slicer reorders the slices of some volumes when it reads them, so the MR must be resampled.
        logic = slicer.vtkSlicerVolumesLogic()
        logic.SetMRMLScene(self._result.transform.GetScene())
        self._comparison = logic.ResampleVolumeToReferenceVolume(self._result.warped[0], self._result.fixed)
        self._hide_comparison()
        fixed = slicer.util.arrayFromVolume(self._result.fixed)
        return _rescale(fixed), _rescale(slicer.util.arrayFromVolume(self._comparison))

    def _mr_between(self) -> InterpolatedMr:
        # Hardening changes the positions.
        key = self._result.can_be_shown_before
        if self._interpolated_mr is None or self._interpolated_mr[0] != key:
            self._interpolated_mr = key, InterpolatedMr(self._result)
        return self._interpolated_mr[1]

    def _new_comparison(self) -> None:
        """An empty volume on the grid of the ultrasound."""
        matrix = vtk.vtkMatrix4x4()
        self._result.fixed.GetIJKToRASMatrix(matrix)
        self._comparison = self._result.fixed.GetScene().AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        self._comparison.SetIJKToRASMatrix(matrix)
        self._hide_comparison()

    def _hide_comparison(self) -> None:
        self._comparison.SetName(_("MMReg comparison"))
        self._comparison.SetHideFromEditors(True)
        self._comparison.SetSaveWithScene(False)
        self._comparison.SetAndObserveTransformNodeID(self._result.fixed.GetTransformNodeID())

    def _show_comparison(self, values: np.ndarray[Any, Any], display_range: tuple[float, float]) -> None:
        slicer.util.updateVolumeFromArray(self._comparison, values.astype(np.float32))
        self._set_display(display_range)
        self._set_layers(self._comparison, None, 0.0)

    def _set_display(self, display_range: tuple[float, float]) -> None:
        if self._comparison.GetDisplayNode() is None:
            self._comparison.CreateDefaultDisplayNodes()
        display = self._comparison.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(*display_range)

    def _set_layers(self, background: Node, foreground: Node, opacity: float) -> None:
        for composite in mrml_bridge.nodes_of_class(self._result.transform.GetScene(), "vtkMRMLSliceCompositeNode"):
            composite.SetBackgroundVolumeID(background.GetID())
            composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
            composite.SetForegroundOpacity(opacity)


def fit_slice_views(application: Node, volume: Node) -> None:
    """Centre all slice views on a volume, at a size that shows all of it.

    Parameters
    ----------
    application : vtkMRMLApplicationLogic
        Has the views.
    volume : node
    """
    logics = application.GetSliceLogics()
    for index in range(0 if logics is None else logics.GetNumberOfItems()):
        logic = logics.GetItemAsObject(index)
        logic.FitSliceToVolume(volume, *logic.GetSliceNode().GetDimensions()[:2])


def _display_range(volume: Node) -> tuple[float, float]:
    """Those grey values that are shown as black and white."""
    display = volume.GetDisplayNode()
    if display is None:
        low, high = volume.GetImageData().GetScalarRange()
        return float(low), float(high)
    return float(display.GetWindowLevelMin()), float(display.GetWindowLevelMax())


def _rescale(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    low, high = np.percentile(values, _PERCENTILES)
    rescaled: np.ndarray[Any, Any] = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1) * _WHITE
    return rescaled
