"""The error at corresponding landmarks, before and after, straight from the scene; needs no Qt."""

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
class Landmark:
    """One place in both images.

    Attributes
    ----------
    label : str
    before_mm, after_mm : float
        Target registration error, measured in the MR's own space as ``mmreg tre`` does.
    position : (float, float, float)
        Where it lies in the ultrasound, RAS mm of the scene.
    """

    label: str
    before_mm: float
    after_mm: float
    position: tuple[float, float, float]


def measure(result: Result, in_fixed: Node, in_moving: Node) -> tuple[Landmark, ...]:
    """Measure every pair of landmarks, the one that is worst after the registration first.

    Parameters
    ----------
    result : Result
    in_fixed, in_moving : vtkMRMLMarkupsNode
        The same places as seen in the ultrasound and in the MR; paired by their labels where both hold the same ones,
        each once, otherwise by their order. The MR's landmarks may lie under the transform or where they were before.

    Raises
    ------
    InputError
        When there are none, or not as many in one as in the other.
    """
    fixed_labels, moving_labels = _labels(in_fixed), _labels(in_moving)
    if not fixed_labels or len(fixed_labels) != len(moving_labels):
        raise InputError(
            _("expected the same landmarks in both lists; got {fixed} in {first} and {moving} in {second}").format(
                fixed=len(fixed_labels),
                first=in_fixed.GetName(),
                moving=len(moving_labels),
                second=in_moving.GetName(),
            )
        )
    order = list(range(len(fixed_labels)))
    if set(fixed_labels) == set(moving_labels) and len(set(fixed_labels)) == len(fixed_labels):
        order = [moving_labels.index(label) for label in fixed_labels]
    places = slicer.util.arrayFromMarkupsControlPoints(in_fixed, world=True)
    in_mr = _in_mr_space(result, in_moving)[order]
    errors = [
        np.linalg.norm(_through(_from_world(above), places) - in_mr, axis=1)
        for above in (result.parent_before, result.transform)
    ]
    found = [
        Landmark(label, float(before), float(after), tuple(place.tolist()))
        for label, before, after, place in zip(fixed_labels, *errors, places, strict=True)
    ]
    return tuple(sorted(found, key=lambda each: -each.after_mm))


def go_to(landmark: Landmark, scene: Node) -> None:
    """Centre every slice view on a landmark."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *landmark.position, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def _labels(node: Node) -> list[str]:
    return [str(node.GetNthControlPointLabel(index)) for index in range(node.GetNumberOfControlPoints())]


def _in_mr_space(result: Result, node: Node) -> np.ndarray[Any, Any]:
    """(N, 3): the landmarks of the MR in the MR's own space."""
    if node.GetTransformNodeID() == result.transform.GetID():
        return np.asarray(slicer.util.arrayFromMarkupsControlPoints(node))
    # Everywhere else they are seen where the MR was seen before.
    return _through(_from_world(result.parent_before), slicer.util.arrayFromMarkupsControlPoints(node, world=True))


def _from_world(node: Node) -> Any:  # noqa: ANN401 - a vtkGeneralTransform
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node, transform)
    return transform


def _through(transform: Any, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:  # noqa: ANN401
    return np.array([transform.TransformPoint(point) for point in points.tolist()])
