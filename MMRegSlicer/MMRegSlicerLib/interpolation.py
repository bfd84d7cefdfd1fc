"""The MR between its positions before and after the registration, on the grid of the ultrasound; needs no Qt."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from vtk.util import numpy_support

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result

# Between the points at which the transforms are evaluated; a deformation of the brain is smooth.
_STEP_MM = 4.0


class InterpolatedMr:
    """Resamples the MR by a transform between the initial (0) and the registered one (1).

    Parameters
    ----------
    result : Result
        Its ultrasound and its MR must be in the scene.

    Notes
    -----
    Both transforms are evaluated once, on a coarse grid. They are interpolated linearly, point by point: displacements
    in millimetres, not rotation and deformation separately. The nodes of the scene are not moved.
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self._image = result.fixed.GetImageData()
        self._points, self._size, self._step = self._coarse_grid()
        current = result.moving[0].GetParentTransformNode()
        before, after = (
            (result.original_parent_transform, result.transform) if result.can_be_shown_before else (current, current)
        )
        self._displacements = (self._displacement(before), self._displacement(after))

    def image(self, fraction: float) -> Any:  # noqa: ANN401 - vtkImageData
        """The MR on the voxels of the ultrasound, as ``vtkImageData``; 0 outside the MR.

        Parameters
        ----------
        fraction : float
            0 is the position before the registration, 1 that after it.
        """
        before, after = self._displacements
        grid = vtk.vtkImageData()
        grid.SetDimensions(*self._size)
        grid.SetSpacing(*self._step)
        values = numpy_support.numpy_to_vtk((1 - fraction) * before + fraction * after, deep=True)
        grid.GetPointData().SetScalars(values)
        transform = vtk.vtkGridTransform()
        transform.SetDisplacementGridData(grid)
        transform.SetInterpolationModeToCubic()
        reslice = vtk.vtkImageReslice()
        reslice.SetInputData(self._result.moving[0].GetImageData())
        reslice.SetResliceTransform(transform)
        reslice.SetInterpolationModeToLinear()
        reslice.SetOutputExtent(self._image.GetExtent())
        reslice.SetOutputOrigin(0, 0, 0)
        reslice.SetOutputSpacing(1, 1, 1)
        reslice.Update()
        return reslice.GetOutput()

    def _displacement(self, parent: Node) -> Any:  # noqa: ANN401 - (N, 3)
        """From voxels of the ultrasound to those of the MR under a parent transform."""
        fixed, between = self._result.fixed, vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(fixed.GetParentTransformNode(), parent, between)
        transform, moved = vtk.vtkGeneralTransform(), vtk.vtkPoints()
        transform.PostMultiply()
        transform.Concatenate(_matrix(fixed, "GetIJKToRASMatrix"))
        transform.Concatenate(between)
        transform.Concatenate(_matrix(self._result.moving[0], "GetRASToIJKMatrix"))
        moved.SetDataTypeToDouble()
        transform.TransformPoints(self._points, moved)
        return _array(moved) - _array(self._points)

    def _coarse_grid(self) -> tuple[Any, list[int], list[float]]:
        """Points (in voxels of the ultrasound), number along each axis, and step in voxels."""
        sizes, spacing = self._image.GetDimensions(), self._result.fixed.GetSpacing()
        counts = [max(2, round((size - 1) * each / _STEP_MM) + 1) for size, each in zip(sizes, spacing, strict=True)]
        steps = [max(size - 1, 1) / (count - 1) for size, count in zip(sizes, counts, strict=True)]
        grid = vtk.vtkImageData()
        grid.SetDimensions(*counts)
        grid.SetSpacing(*steps)
        points = vtk.vtkPoints()
        points.SetDataTypeToDouble()
        points.SetNumberOfPoints(grid.GetNumberOfPoints())
        for index in range(grid.GetNumberOfPoints()):
            points.SetPoint(index, grid.GetPoint(index))
        return points, counts, steps


def _matrix(volume: Node, name: str) -> Any:  # noqa: ANN401 - vtkMatrix4x4
    matrix = vtk.vtkMatrix4x4()
    getattr(volume, name)(matrix)
    return matrix


def _array(points: Any) -> Any:  # noqa: ANN401 - (N, 3)
    return numpy_support.vtk_to_numpy(points.GetData())
