"""Target registration error at corresponding landmarks of the scene; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from MMRegCore.errors import InputError
from MMRegCore.evaluate.pairing import pair_by_label
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
        Corresponding points in the ultrasound and in the MR, paired as ``mmreg tre`` does: by label if both have the
        same unique labels, otherwise by order. Those of the MR may be under the registration transform or at their
        original position.

    Returns
    -------
    tuple of LandmarkError
        The largest error after the registration first.

    Raises
    ------
    InputError
        When there are none, one is not placed, their numbers differ, or their labels agree only in part.
    """
    for node in (fixed, moving):
        check_placed(node)
    fixed_labels = labels_of(fixed)
    order = list(pair_by_label(fixed_labels, labels_of(moving)).order)
    positions_ras = slicer.util.arrayFromMarkupsControlPoints(fixed, world=True)
    moving_points = _in_moving_space(result, moving)[order]
    errors_mm = [
        np.linalg.norm(transform_points(from_world(parent), positions_ras) - moving_points, axis=1)
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


def pairing_warning(fixed: Node, moving: Node) -> str:
    """What to look at in how two lists are paired, a sentence; empty where nothing is in doubt."""
    warning = pair_by_label(labels_of(fixed), labels_of(moving)).warning
    return f"{warning[0].upper()}{warning[1:]}." if warning else ""


def check_placed(node: Node) -> None:
    """Raise `InputError` where a point has no position that counts; the coordinates of such a point are stale."""
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) != slicer.vtkMRMLMarkupsNode.PositionDefined:
            raise InputError(
                _("expected every landmark to be placed; got {label} of {list} without a position").format(
                    label=node.GetNthControlPointLabel(index), list=node.GetName()
                )
            )


def labels_of(node: Node) -> list[str]:
    """The labels of a point list."""
    return [str(node.GetNthControlPointLabel(index)) for index in range(node.GetNumberOfControlPoints())]


def _in_moving_space(result: Result, node: Node) -> np.ndarray[Any, Any]:
    """(N, 3), RAS mm: landmarks of the MR in the MR's own space."""
    if node.GetTransformNodeID() == result.transform.GetID():
        return np.asarray(slicer.util.arrayFromMarkupsControlPoints(node))
    # Otherwise they are at the original position of the MR in the scene.
    points_ras = slicer.util.arrayFromMarkupsControlPoints(node, world=True)
    return transform_points(from_world(result.original_parent_transform), points_ras)


def from_world(node: Node) -> Any:  # noqa: ANN401 - a vtkGeneralTransform
    """The way from the scene's space into that under a transform node; None for the scene's own."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node, transform)
    return transform


def transform_points(transform: Any, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:  # noqa: ANN401
    """Take points (N, 3) through a VTK transform."""
    return np.array([transform.TransformPoint(point) for point in points.tolist()])
