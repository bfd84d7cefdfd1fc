"""Undo of Accept, Apply transform, Remove transform and Discard, the last one first, restores the scene."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.deformation import GRID, deformation_mode, show_deformation
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import Result, add_result, results_in
from MMRegSlicerLib.undo import UndoStack
from mrml_scene import add_linear, add_points, add_volume, node_ids, points_in_world, snapshot, translation
from result_folder import write_result

POINTS = np.array([[4.0, -6.0, 3.0], [-8.0, 2.0, 7.0]])


@pytest.fixture
def tracker(scene):
    return add_linear(scene, "Tracker", translation(0, 0, 9))


@pytest.fixture
def result(scene, tracker, oblique_grid, smooth_volume, tmp_path) -> Result:
    values = smooth_volume(oblique_grid)
    fixed = add_volume(scene, "US", values.data[0].numpy(), oblique_grid.ras_from_ijk)
    mr = add_volume(scene, "T1", np.ones((4, 4, 4)), np.eye(4))
    fixed.SetAndObserveTransformNodeID(tracker.GetID())
    mr.SetAndObserveTransformNodeID(tracker.GetID())
    write_result(
        tmp_path, SpatialTransform.from_matrix(translation(5, 0, 0)), values, ("expected_error", "displacement")
    )
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return add_result(tmp_path, Request(fixed, (Moving(mr),)))


def state(scene, result) -> tuple[object, ...]:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.transform))
    return (
        sorted(node_ids(scene)),
        [snapshot(node) for node in (*result.warped, *result.maps, result.moving[0], result.fixed)],
        (result.report, result.is_shown_after, result.accepted, result.transform.GetTransformNodeID()),
        [node.GetID() for node in (*result.transformed_nodes, *result.output_nodes)],
        (hierarchy.GetItemName(folder), hierarchy.GetNumberOfItemChildren(folder)),
    )


def test_discard_is_undone_completely(scene, result, tracker):
    points = add_points(scene, "plan", POINTS)
    result.apply_transform(points)
    show_deformation(result, GRID)
    before, seen = state(scene, result), points_in_world(points)
    undo_stack = UndoStack()
    undo_stack.discard(result)
    assert (undo_stack.undo_text, results_in(scene)) == ("Discard", ())
    assert points.GetTransformNodeID() is None

    assert undo_stack.result is result
    undo_stack.undo()
    assert state(scene, result) == before
    assert deformation_mode(result.transform) == GRID
    np.testing.assert_allclose(points_in_world(points), seen, atol=1e-9)
    assert [each.transform for each in results_in(scene)] == [result.transform]
    # It can be discarded again, and all parents are restored.
    result.discard()
    assert result.transform.GetScene() is None
    assert scene.GetFirstNodeByName("T1").GetTransformNodeID() == tracker.GetID()


def test_commands_are_undone_one_after_the_other(scene, result):
    first, second = (add_points(scene, name, POINTS) for name in ("one", "two"))
    undo_stack = UndoStack()
    assert undo_stack.undo_text == ""
    undo_stack.apply_transform(result, [first, second])
    undo_stack.remove_transform(result, [first])
    undo_stack.accept(result)
    assert (undo_stack.undo_text, result.accepted) == ("Accept", True)
    assert first not in result.transformed_nodes
    undo_stack.undo()
    assert (undo_stack.undo_text, result.accepted) == ("Remove transform", False)
    undo_stack.undo()
    assert {first, second} <= set(result.transformed_nodes)
    undo_stack.undo()
    assert not {first, second} & set(result.transformed_nodes)
    assert undo_stack.undo_text == ""


def test_only_nodes_that_changed_are_restored(scene, result):
    """The transform was applied to the MR before, so undo leaves it applied."""
    undo_stack, points = UndoStack(), add_points(scene, "plan", POINTS)
    undo_stack.apply_transform(result, [points, result.moving[0]])
    undo_stack.undo()
    assert result.is_shown_after
    assert points not in result.transformed_nodes


def test_nodes_that_were_deleted_meanwhile_are_skipped(scene, result):
    points = add_points(scene, "plan", POINTS)
    undo_stack = UndoStack()
    undo_stack.apply_transform(result, [points])
    undo_stack.discard(result)
    scene.RemoveNode(points)
    undo_stack.undo()
    undo_stack.undo()
    assert result.is_shown_after


def test_hardening_clears_the_stack(scene, result):
    points = add_points(scene, "plan", POINTS)
    undo_stack = UndoStack()
    undo_stack.apply_transform(result, [points])
    seen = points_in_world(points)
    undo_stack.accept(result, harden=True)
    assert (undo_stack.undo_text, points.GetTransformNodeID()) == ("", None)
    np.testing.assert_allclose(slicer.util.arrayFromMarkupsControlPoints(points), seen, atol=1e-6)
