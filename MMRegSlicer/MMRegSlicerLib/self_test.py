"""What Slicer's own test runner and the project's tests both run: needs nothing but a scene and the packages."""

from __future__ import annotations

import time

import numpy as np
import slicer

from MMRegCore.errors import Cancelled, MMRegError
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.undo import Undo

SHIFT_MM = (3.0, -1.5, 1.5)
# The fine levels alone suffice for a small image.
_QUICK = {"mcbo.strides": "1,2", "mcbo.weights": "1/2,1/2"}
_SIZE = 32
_SPACING_MM = 1.5
_POLL_S = 0.02


class SelfTestError(MMRegError):
    """The module does not do what it should."""


def register_and_discard() -> None:
    """Register two made-up images whose shift is known, then take everything back."""
    ultrasound, mr = _image("US", np.zeros(3), bright=True), _image("MR", np.array(SHIFT_MM), bright=False)
    volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    result = MMRegSlicerLogic().register(ultrasound, mr, preset="mcbo", changes=_QUICK, device="cpu")
    found = np.array(result.transform.GetTransformFromParent().TransformPoint((0.0, 0.0, 0.0)))
    error_mm = float(np.linalg.norm(found - SHIFT_MM))
    _check(error_mm < 0.4 * np.linalg.norm(SHIFT_MM), f"an error of {error_mm:.1f} mm is left in the middle")
    _check(mr.GetTransformNodeID() == result.transform.GetID(), "the MR does not lie under the transform")
    undo = Undo()
    undo.discard(result)
    left = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    _check(left == volumes, f"{left - volumes} volumes are left after Discard")
    _check(mr.GetTransformNodeID() is None, "the MR lies under a transform after Discard")
    undo.back()
    _check(mr.GetTransformNodeID() == result.transform.GetID(), "the MR does not lie under the transform after Undo")


def cancel_leaves_nothing() -> None:
    """Cancel in the middle: no process, no folder, no node, and the MR where it was."""
    ultrasound, mr = _image("US", np.zeros(3), bright=True), _image("MR", np.array(SHIFT_MM), bright=False)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    told: list[object] = []
    logic = MMRegSlicerLogic()
    registration = logic.start(ultrasound, mr, device="cpu", progress=told.append, failed=told.append)
    while not told and logic.poll():
        time.sleep(_POLL_S)
    logic.cancelAll()
    _check(isinstance(told[-1], Cancelled), f"expected to be cancelled; got {told[-1]}")
    _check(not registration.folder.exists(), f"{registration.folder} is left")
    _check(slicer.mrmlScene.GetNumberOfNodes() == nodes, "nodes are left after Cancel")
    _check(mr.GetTransformNodeID() is None, "the MR lies under a transform after Cancel")


CASES = (register_and_discard, cancel_leaves_nothing)


def _check(good: bool, problem: str) -> None:
    if not good:
        raise SelfTestError(problem)


def _image(name: str, shift_mm: np.ndarray, *, bright: bool) -> Node:
    """Blobs at random places, the same ones in both images."""
    random = np.random.default_rng(4)
    axis = _SPACING_MM * (np.arange(_SIZE) - (_SIZE - 1) / 2)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")[::-1], axis=-1) - shift_mm
    values = np.zeros((_SIZE,) * 3)
    for _ in range(100):
        middle, width, height = random.uniform(-26, 26, 3), random.uniform(1.5, 4), random.uniform(0.3, 1)
        values += height * np.exp(-((points - middle) ** 2).sum(axis=-1) / (2 * width**2))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.float32(100 * (values if bright else np.exp(-values))))
    node.SetSpacing(_SPACING_MM, _SPACING_MM, _SPACING_MM)
    node.SetOrigin(axis[0], axis[0], axis[0])
    return node
