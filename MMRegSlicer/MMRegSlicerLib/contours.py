"""Contours of the MR over the ultrasound: before the registration in blue, after it in yellow; needs no Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.interpolation import InterpolatedMr
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.translation import tr as _

# Of the position: fraction, colour. Blue and yellow differ for the colour-blind, and from the grey of the images.
_POSITIONS = ((0.0, (0.25, 0.6, 1.0)), (1.0, (1.0, 0.85, 0.1)))
_PERCENTILES = (2, 98)
# Noise would make contours of its own.
_SMOOTHING_VOXEL = 1.0
_LINE_WIDTH = 2


class MrContours:
    """Two temporary models on the ultrasound, drawn in the slice views only; removed by `clear`.

    Parameters
    ----------
    mr : InterpolatedMr
    fixed : node
        The ultrasound.
    """

    def __init__(self, mr: InterpolatedMr, fixed: Node) -> None:
        self._fixed = fixed
        self._images = [_smoothed(mr.image(fraction)) for fraction, _colour in _POSITIONS]
        self._nodes = [self._new_node(colour) for _fraction, colour in _POSITIONS]

    def update(self, level: float) -> None:
        """Draw the contours of one grey value.

        Parameters
        ----------
        level : float
            0 to 1: from the darkest to the brightest grey value of the MR, without outliers.
        """
        values = numpy_support.vtk_to_numpy(self._images[-1].GetPointData().GetScalars())
        low, high = np.percentile(values[values != 0] if values.any() else values, _PERCENTILES)
        for image, node in zip(self._images, self._nodes, strict=True):
            node.SetAndObservePolyData(self._surface(image, float(low + level * (high - low))))

    def clear(self) -> None:
        """Remove the models."""
        for node in self._nodes:
            mrml_bridge.remove_node(node)
        self._nodes = []

    def _surface(self, image: Any, value: float) -> Any:  # noqa: ANN401 - vtkImageData, vtkPolyData
        surface, matrix = vtk.vtkFlyingEdges3D(), vtk.vtkMatrix4x4()
        surface.SetInputData(image)
        surface.SetValue(0, value)
        surface.ComputeNormalsOff()
        self._fixed.GetIJKToRASMatrix(matrix)
        transform, to_ras = vtk.vtkTransform(), vtk.vtkTransformPolyDataFilter()
        transform.SetMatrix(matrix)
        to_ras.SetTransform(transform)
        to_ras.SetInputConnection(surface.GetOutputPort())
        to_ras.Update()
        return to_ras.GetOutput()

    def _new_node(self, colour: tuple[float, float, float]) -> Node:
        node = self._fixed.GetScene().AddNewNodeByClass("vtkMRMLModelNode", _("MMReg contours"))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetColor(*colour)
        display.SetVisibility2D(True)
        display.SetVisibility3D(False)
        display.SetSliceIntersectionThickness(_LINE_WIDTH)
        node.SetAndObserveTransformNodeID(self._fixed.GetTransformNodeID())
        return node


def _smoothed(image: Any) -> Any:  # noqa: ANN401 - vtkImageData
    smooth = vtk.vtkImageGaussianSmooth()
    smooth.SetInputData(image)
    smooth.SetStandardDeviation(_SMOOTHING_VOXEL)
    smooth.Update()
    return smooth.GetOutput()
