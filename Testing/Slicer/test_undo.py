"""Accept, Apply to and Discard are taken back, the last one first, and leave the scene as it was."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.io import write_transform, write_volume
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.deformation import GRID, show_deformation, shown_deformation
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import Result, add_result, results_in
from MMRegSlicerLib.undo import Undo
from mrml_scene import add_linear, add_points, add_volume, node_ids, points_in_world, snapshot, translation

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
    write_transform(SpatialTransform.from_matrix(translation(5, 0, 0)), tmp_path / "transform.h5")
    for name in ("warped_T1", "displacement"):
        write_volume(values, tmp_path / f"{name}.nii.gz")
    (tmp_path / "report.html").write_text("<html>the report</html>", encoding="utf-8")
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return add_result(tmp_path, Request(fixed, (Moving(mr),)))


def state(scene, result) -> tuple[object, ...]:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.transform))
    return (
        sorted(node_ids(scene)),
        [snapshot(node) for node in (*result.warped, *result.maps, result.moving[0], result.fixed)],
        (result.report, result.is_shown_after, result.accepted, result.transform.GetTransformNodeID()),
        [node.GetID() for node in (*result.under, *result.made)],
        (hierarchy.GetItemName(folder), hierarchy.GetNumberOfItemChildren(folder)),
    )


def test_discard_is_taken_back_whole(scene, result, tracker):
    points = add_points(scene, "plan", POINTS)
    result.apply_to(points)
    show_deformation(result, GRID)
    before, seen = state(scene, result), points_in_world(points)
    undo = Undo()
    undo.discard(result)
    assert (undo.title, results_in(scene)) == ("Discard", ())
    assert points.GetTransformNodeID() is None

    assert undo.result is result
    undo.back()
    assert state(scene, result) == before
    assert shown_deformation(result.transform) == GRID
    np.testing.assert_allclose(points_in_world(points), seen, atol=1e-9)
    assert [each.transform for each in results_in(scene)] == [result.transform]
    # It can be discarded as ever, and everything goes to where it was.
    result.discard()
    assert result.transform.GetScene() is None
    assert scene.GetFirstNodeByName("T1").GetTransformNodeID() == tracker.GetID()


def test_steps_are_taken_back_one_after_the_other(scene, result):
    first, second = (add_points(scene, name, POINTS) for name in ("one", "two"))
    undo = Undo()
    assert undo.title == ""
    undo.apply(result, [first, second])
    undo.take(result, [first])
    undo.accept(result)
    assert (undo.title, result.accepted) == ("Accept", True)
    assert first not in result.under
    undo.back()
    assert (undo.title, result.accepted) == ("Put back", False)
    undo.back()
    assert {first, second} <= set(result.under)
    undo.back()
    assert not {first, second} & set(result.under)
    assert undo.title == ""


def test_only_what_was_moved_is_moved_back(scene, result):
    """The MR was under the transform before, so taking the step back leaves it there."""
    undo, points = Undo(), add_points(scene, "plan", POINTS)
    undo.apply(result, [points, result.moving[0]])
    undo.back()
    assert result.is_shown_after
    assert points not in result.under


def test_what_was_deleted_meanwhile_does_not_matter(scene, result):
    points = add_points(scene, "plan", POINTS)
    undo = Undo()
    undo.apply(result, [points])
    undo.discard(result)
    scene.RemoveNode(points)
    undo.back()
    undo.back()
    assert result.is_shown_after


def test_hardening_cannot_be_taken_back_and_says_so(scene, result):
    points = add_points(scene, "plan", POINTS)
    undo = Undo()
    undo.apply(result, [points])
    seen = points_in_world(points)
    undo.accept(result, harden=True)
    assert (undo.title, points.GetTransformNodeID()) == ("", None)
    np.testing.assert_allclose(slicer.util.arrayFromMarkupsControlPoints(points), seen, atol=1e-6)
