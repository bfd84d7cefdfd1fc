"""Self-test for Slicer's own test runner and for the project's tests; needs a scene and the packages only."""

from __future__ import annotations

import time

import numpy as np
import slicer

from MMRegCore.errors import Cancelled, MMRegError
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.undo import UndoStack

SHIFT_MM = (3.0, -1.5, 1.5)
_SIZE = 32
_SPACING_MM = 1.5
_POLL_S = 0.02


class SelfTestError(MMRegError):
    """A check of the self-test failed."""


def register_and_discard() -> None:
    """Register two synthetic images with a known shift by the default preset; discard the result and undo that."""
    ultrasound, mr = _image("US", np.zeros(3), bright=True), _image("MR", np.array(SHIFT_MM), bright=False)
    volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    result = MMRegSlicerLogic().register(ultrasound, mr, device="cpu")
    found = np.array(result.transform.GetTransformFromParent().TransformPoint((0.0, 0.0, 0.0)))
    error_mm = float(np.linalg.norm(found - SHIFT_MM))
    _check(error_mm < 0.5, f"the error in the centre is {error_mm:.1f} mm")
    _check(result.quality is not None and result.quality.verdict.level != "reject", "a good result is rejected")
    _check(mr.GetTransformNodeID() == result.transform.GetID(), "the transform is not applied to the MR")
    undo_stack = UndoStack()
    undo_stack.discard(result)
    left = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    _check(left == volumes, f"{left - volumes} volumes are left after Discard")
    _check(mr.GetTransformNodeID() is None, "the MR has a parent transform after Discard")
    undo_stack.undo()
    _check(mr.GetTransformNodeID() == result.transform.GetID(), "the transform is not applied to the MR after Undo")


def cancel_leaves_nothing() -> None:
    """Cancel a running registration: no process, folder or node is left, and the MR is not moved."""
    ultrasound, mr = _image("US", np.zeros(3), bright=True), _image("MR", np.array(SHIFT_MM), bright=False)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    events: list[object] = []
    logic = MMRegSlicerLogic()
    run = logic.start(ultrasound, mr, device="cpu", on_progress=events.append, on_failed=events.append)
    while not events and logic.poll():
        time.sleep(_POLL_S)
    logic.cancelAll()
    _check(isinstance(events[-1], Cancelled), f"expected Cancelled; got {events[-1]}")
    _check(not run.folder.exists(), f"{run.folder} is left after Cancel")
    _check(slicer.mrmlScene.GetNumberOfNodes() == nodes, "nodes are left after Cancel")
    _check(mr.GetTransformNodeID() is None, "the MR has a parent transform after Cancel")


CASES = (register_and_discard, cancel_leaves_nothing)


def _check(condition: bool, failure: str) -> None:
    if not condition:
        raise SelfTestError(failure)


def _image(name: str, shift_mm: np.ndarray, *, bright: bool) -> Node:
    """Gaussian blobs at random positions, the same ones in both images."""
    random = np.random.default_rng(4)
    axis = _SPACING_MM * (np.arange(_SIZE) - (_SIZE - 1) / 2)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")[::-1], axis=-1) - shift_mm
    values = np.zeros((_SIZE,) * 3)
    for _ in range(100):
        centre, width, height = random.uniform(-26, 26, 3), random.uniform(1.5, 4), random.uniform(0.3, 1)
        values += height * np.exp(-((points - centre) ** 2).sum(axis=-1) / (2 * width**2))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.float32(100 * (values if bright else np.exp(-values))))
    node.SetSpacing(_SPACING_MM, _SPACING_MM, _SPACING_MM)
    node.SetOrigin(axis[0], axis[0], axis[0])
    return node
