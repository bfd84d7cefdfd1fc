"""Target registration error at corresponding landmarks of the scene; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from MMRegCore.errors import InputError
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _


@dataclass(frozen=True)
class LandmarkError:
    """Target registration error (TRE) of one landmark.

    Attributes
    ----------
    label : str
    before_mm, after_mm : float
        TRE before and after the registration, in the MR's own space as for ``mmreg tre``.
    position_ras : (float, float, float)
        Position in the ultrasound, RAS mm of the scene.
    """

    label: str
    before_mm: float
    after_mm: float
    position_ras: tuple[float, float, float]


def landmark_errors(result: Result, fixed: Node, moving: Node) -> tuple[LandmarkError, ...]:
    """Compute the TRE of every pair of landmarks.

    Parameters
    ----------
    result : Result
    fixed, moving : vtkMRMLMarkupsNode
        Corresponding points in the ultrasound and in the MR; paired by label if both have the same unique labels,
        otherwise by order. Those of the MR may be under the registration transform or at their original position.

    Returns
    -------
    tuple of LandmarkError
        The largest error after the registration first.

    Raises
    ------
    InputError
        When there are none, or their numbers differ.
    """
    fixed_labels, moving_labels = _labels(fixed), _labels(moving)
    if not fixed_labels or len(fixed_labels) != len(moving_labels):
        raise InputError(
            _("expected the same landmarks in both lists; got {fixed} in {first} and {moving} in {second}").format(
                fixed=len(fixed_labels), first=fixed.GetName(), moving=len(moving_labels), second=moving.GetName()
            )
        )
    order = list(range(len(fixed_labels)))
    if set(fixed_labels) == set(moving_labels) and len(set(fixed_labels)) == len(fixed_labels):
        order = [moving_labels.index(label) for label in fixed_labels]
    positions_ras = slicer.util.arrayFromMarkupsControlPoints(fixed, world=True)
    moving_points = _in_moving_space(result, moving)[order]
    errors_mm = [
        np.linalg.norm(_transform_points(_from_world(parent), positions_ras) - moving_points, axis=1)
        for parent in (result.original_parent_transform, result.transform)
    ]
    errors = [
        LandmarkError(label, float(before), float(after), tuple(position.tolist()))
        for label, before, after, position in zip(fixed_labels, *errors_mm, positions_ras, strict=True)
    ]
    return tuple(sorted(errors, key=lambda each: -each.after_mm))


def jump_to(landmark: LandmarkError, scene: Node) -> None:
    """Centre every slice view on a landmark."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *landmark.position_ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def _labels(node: Node) -> list[str]:
    return [str(node.GetNthControlPointLabel(index)) for index in range(node.GetNumberOfControlPoints())]


def _in_moving_space(result: Result, node: Node) -> np.ndarray[Any, Any]:
    """(N, 3), RAS mm: landmarks of the MR in the MR's own space."""
    if node.GetTransformNodeID() == result.transform.GetID():
        return np.asarray(slicer.util.arrayFromMarkupsControlPoints(node))
    # Otherwise they are at the original position of the MR in the scene.
    points_ras = slicer.util.arrayFromMarkupsControlPoints(node, world=True)
    return _transform_points(_from_world(result.original_parent_transform), points_ras)


def _from_world(node: Node) -> Any:  # noqa: ANN401 - a vtkGeneralTransform
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node, transform)
    return transform


def _transform_points(transform: Any, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:  # noqa: ANN401
    return np.array([transform.TransformPoint(point) for point in points.tolist()])
