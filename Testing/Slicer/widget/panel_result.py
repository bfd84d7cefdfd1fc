"""The result: verdict, before and after, what moves along, report, accept, discard."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import torch
import vtk
from PySide6 import QtCore, QtTest, QtWidgets

from MMRegCore.geometry import Grid
from MMRegCore.io import write_transform, write_volume
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from MMRegSlicerLib.deformation import CONTOURS, GLYPHS, GRID, show_deformation, shown_deformation
from MMRegSlicerLib.result import Result, add_result
from mrml_scene import (
    add_linear,
    add_points,
    add_segmentation,
    add_volume,
    node_ids,
    points_in_world,
    snapshot,
    translation,
)

VERDICT = {"level": "review", "reasons": ["The deformation reaches 12 mm.", "The MR covers 60 % of the ultrasound."]}


def slicer_matrix(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.fixture
def shown(opened, case, tmp_path, monkeypatch):
    """A result in the panel, as if a registration had just ended."""
    folder = tmp_path / "result"
    folder.mkdir()
    write_transform(SpatialTransform.from_matrix(translation(5, 0, 0)), folder / "transform.h5")
    (folder / "result.json").write_text(json.dumps({"qa": {"verdict": VERDICT}}), encoding="utf-8")
    grid = Grid((32, 32, 32), slicer_matrix(case.ultrasound))
    for name in ("warped_T1", "expected_error"):
        write_volume(Volume(torch.rand(1, 32, 32, 32), grid), folder / f"{name}.nii.gz")
    (folder / "report.html").write_text("<html>the report</html>", encoding="utf-8")
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    before = node_ids(slicer.mrmlScene), snapshot(case.mr)
    opened.panel._done(add_result(folder, opened.panel.form.request))
    answers = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: answers.append(text) or True)
    result = Result(opened.panel._parameters.result_transform)
    return SimpleNamespace(result=result, composite=composite, before=before, answers=answers)


def test_the_verdict_comes_with_its_reasons(opened, shown):
    text = opened.ui.verdictLabel.text()
    assert text.splitlines() == ["Review this result with care:", *(f"• {reason}" for reason in VERDICT["reasons"])]
    assert "#fff0c2" in opened.ui.verdictLabel.styleSheet()
    assert opened.ui.statusLabel.text() == "Done. Look at the images before you believe it."


@pytest.mark.parametrize(
    ("numbers", "first"),
    [
        ({"verdict": {"level": "accept", "reasons": []}}, "Nothing speaks against this result."),
        ({"verdict": {"level": "reject", "reasons": ["It folds."]}}, "Do not use this result:"),
        ({"notes": ["Nothing moved."]}, "No verdict was made; judge by the images."),
        ({}, "No verdict was made; judge by the images."),
    ],
)
def test_every_kind_of_verdict_and_none(opened, shown, numbers, first):
    shown.result.transform.SetAttribute("MMReg.numbers", json.dumps(numbers))
    opened.panel.result_view.show(shown.result)
    assert opened.ui.verdictLabel.text().startswith(first)


def test_the_slice_views_show_the_mr_over_the_ultrasound(shown, case):
    assert shown.composite.GetBackgroundVolumeID() == case.ultrasound.GetID()
    assert shown.composite.GetForegroundVolumeID() == case.mr.GetID()
    assert shown.composite.GetForegroundOpacity() == 0.5


def choose(ui, title):
    ui.viewSelector.setCurrentIndex(ui.viewSelector.findText(title))


def test_ways_of_comparing(opened, shown, case):
    ui, composite, scene = opened.ui, shown.composite, slicer.mrmlScene
    titles = [ui.viewSelector.itemText(index) for index in range(ui.viewSelector.count())]
    assert titles == ["Blend", "Flicker", "Checkerboard (after)", "Difference (after)", "Expected error (mm)"]
    ui.viewSlider.setValue(20)
    assert composite.GetForegroundOpacity() == pytest.approx(0.2)

    choose(ui, "Checkerboard (after)")
    board = scene.GetNodeByID(composite.GetBackgroundVolumeID())
    assert board.GetName() == "MMReg comparison"
    first = slicer.util.arrayFromVolume(board).copy()
    ui.viewSlider.setValue(90)
    assert board.GetScene() is None
    board = scene.GetNodeByID(composite.GetBackgroundVolumeID())
    assert (slicer.util.arrayFromVolume(board) != first).any()

    choose(ui, "Difference (after)")
    assert not ui.viewSlider.isVisible()
    choose(ui, "Expected error (mm)")
    assert composite.GetForegroundVolumeID() == shown.result.maps[0].GetID()
    assert scene.GetFirstNodeByName("MMReg comparison") is None


def test_flicker_shows_one_then_the_other(opened, shown):
    seen = set()
    choose(opened.ui, "Flicker")
    opened.ui.viewSlider.setValue(100)
    opened.wait(lambda: seen.add(shown.composite.GetForegroundOpacity()) or seen == {0.0, 1.0}, seconds=5)
    choose(opened.ui, "Blend")
    assert shown.composite.GetForegroundOpacity() == 0.5


@pytest.mark.parametrize("title", ["Flicker", "Checkerboard (after)", "Expected error (mm)"])
def test_discard_takes_the_comparison_along(opened, shown, case, title):
    choose(opened.ui, title)
    opened.ui.discardButton.click()
    assert (node_ids(slicer.mrmlScene), snapshot(case.mr)) == shown.before


def test_landmarks_worst_first_and_a_click_goes_there(opened, shown):
    scene, ui = slicer.mrmlScene, opened.ui
    in_us = add_points(scene, "in US", np.array([[0.0, 0, 0], [10.0, 0, 0]]))
    in_mr = add_points(scene, "in MR", np.array([[5.0, 0, 1], [15.0, 0, 3]]))
    slice_node = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    ui.landmarkSection.setProperty("collapsed", False)
    assert ui.landmarkSummary.text() == "Choose the landmarks in the ultrasound and in the MR."
    ui.fixedLandmarksSelector.setCurrentNode(in_us)
    ui.movingLandmarksSelector.setCurrentNode(in_mr)
    table = ui.landmarkTable
    assert [table.item(row, 2).text() for row in range(table.rowCount())] == ["3.00", "1.00"]
    assert table.item(0, 1).text() == "5.83"
    assert ui.landmarkSummary.text() == "2 landmarks: 5.46 mm before, 2.00 mm after on average."
    table.cellClicked.emit(0, 0)
    matrix = slice_node.GetSliceToRAS()
    np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], [10.0, 0, 0])
    table.cellClicked.emit(1, 0)
    np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], [0.0, 0, 0])
    ui.worstButton.click()
    np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], [10.0, 0, 0])
    scene.RemoveNode(in_mr)
    assert table.rowCount() == 0
    assert not ui.worstButton.isEnabled()


def test_before_and_after_by_click_and_by_key(opened, shown, case):
    ui = opened.ui
    assert ui.afterBox.isChecked()
    ui.afterBox.click()
    assert snapshot(case.mr) == shown.before[1]
    opened.holder.activateWindow()
    opened.wait(opened.holder.isActiveWindow)
    opened.module.widget.exit()
    QtTest.QTest.keyClick(opened.holder, QtCore.Qt.Key.Key_B)
    assert not ui.afterBox.isChecked()  # another module has the key
    opened.module.widget.enter()
    QtTest.QTest.keyClick(opened.holder, QtCore.Qt.Key.Key_B)
    assert ui.afterBox.isChecked()
    assert case.mr.GetTransformNodeID() == shown.result.transform.GetID()


def test_what_belongs_to_the_mr_moves_along_and_comes_back(opened, shown):
    plan = add_points(slicer.mrmlScene, "plan", np.array([[10.0, 0, 0]]))
    ui = opened.ui
    assert not ui.applyButton.isEnabled()
    ui.applySelector.setCurrentNode(plan)
    ui.applyButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[5.0, 0, 0]])
    assert ui.applyButton.text() == "Put back"
    ui.applyButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[10.0, 0, 0]])
    assert ui.applyButton.text() == "Put under the transform"
    ui.applyButton.click()
    ui.discardButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[10.0, 0, 0]])


def test_every_kind_of_plan_can_be_chosen_and_moves(opened, shown, case):
    """Fibre bundles of the extension SlicerDMRI are a kind of model."""
    scene, ui = slicer.mrmlScene, opened.ui
    segmentation, _ = add_segmentation(scene, "tumour", case.mr, np.ones((32, 32, 32)))
    ball = vtk.vtkSphereSource()
    ball.Update()
    model = scene.AddNewNodeByClass("vtkMRMLModelNode", "tract")
    model.SetAndObserveMesh(ball.GetOutput())
    plans = [segmentation, model]
    for kind in ("Fiducial", "Line", "Curve", "Plane", "ROI"):
        plans.append(scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node", kind))
    for plan in plans:
        ui.applySelector.setCurrentNode(plan)
        assert ui.applySelector.currentNode() is plan
        ui.applyButton.click()
        assert plan.GetTransformNodeID() == shown.result.transform.GetID()
    bounds = [0.0] * 6
    model.GetRASBounds(bounds)
    np.testing.assert_allclose((bounds[0] + bounds[1]) / 2, -5.0, atol=1e-3)
    ui.discardButton.click()
    assert {plan.GetTransformNodeID() for plan in plans} == {None}


def test_a_whole_folder_moves_along_and_comes_back(opened, shown, case):
    scene, ui = slicer.mrmlScene, opened.ui
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    outer = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "plan")
    inner = hierarchy.CreateFolderItem(outer, "tracts")
    start = add_linear(scene, "start", translation(0, 0, 2))
    points = [add_points(scene, name, np.array([[10.0, 0, 0]])) for name in ("entry", "target", "elsewhere")]
    points[1].SetAndObserveTransformNodeID(start.GetID())
    places = (outer, inner, hierarchy.GetSceneItemID())
    for node, place in zip((*points, start, case.ultrasound), (*places, outer, outer), strict=True):
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(place, node), place)
    ui.applySelector.setCurrentNode(points[0])
    ui.applyFolderBox.click()
    ui.applyButton.click()
    parents = [node.GetTransformNodeID() for node in points]
    assert parents == [shown.result.transform.GetID(), shown.result.transform.GetID(), None]
    assert case.ultrasound.GetTransformNodeID() is None
    assert start.GetTransformNodeID() is None
    ui.applyButton.click()
    assert [node.GetTransformNodeID() for node in points] == [None, start.GetID(), None]


def test_the_ultrasound_and_the_results_are_not_moved(opened, shown, case):
    for node in (case.ultrasound, shown.result.warped[0]):
        opened.ui.applySelector.setCurrentNode(node)
        assert opened.ui.applySelector.currentNode() is node
        assert not opened.ui.applyButton.isEnabled()


def test_discard_asks_then_removes_exactly_what_was_made(opened, shown, case):
    opened.ui.discardButton.click()
    assert len(shown.answers) == 1
    assert (node_ids(slicer.mrmlScene), snapshot(case.mr)) == shown.before
    assert not opened.ui.resultSection.isVisible()
    assert opened.ui.statusLabel.text() == "Discarded. Everything is where it was before."


def test_results_of_several_ultrasound_volumes_are_stepped_through(opened, shown, case, tmp_path):
    ui, first = opened.ui, shown.result
    assert ui.resultArea.isHidden()
    first.show(after=False)
    later = add_volume(slicer.mrmlScene, "US after resection", np.ones((4, 4, 4)), np.eye(4))
    opened.request(fixed=later)
    opened.panel._done(add_result(tmp_path / "result", opened.panel.form.request))
    second = Result(opened.panel._parameters.result_transform)
    names = [ui.resultSelector.itemText(index) for index in range(ui.resultSelector.count())]
    assert names == ["T1 to Ultrasound", "T1 to US after resection"]
    assert ui.resultSelector.currentText() == names[1]
    assert shown.composite.GetBackgroundVolumeID() == later.GetID()

    ui.resultSelector.setCurrentIndex(0)
    assert case.mr.GetTransformNodeID() == first.transform.GetID()
    assert shown.composite.GetBackgroundVolumeID() == case.ultrasound.GetID()
    ui.afterBox.click()
    assert case.mr.GetTransformNodeID() is None

    ui.discardButton.click()
    assert opened.panel._parameters.result_transform is second.transform
    assert ui.resultArea.isHidden()
    assert shown.composite.GetBackgroundVolumeID() == later.GetID()
    ui.discardButton.click()
    assert ui.resultSection.isHidden()
    assert snapshot(case.mr) == shown.before[1]


def test_discard_can_be_refused(opened, shown, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: False)
    opened.ui.discardButton.click()
    assert opened.ui.resultSection.isVisible()
    assert shown.result.is_shown_after


def test_accept_keeps_everything_and_hardens_nothing(opened, shown, case):
    opened.ui.acceptButton.click()
    assert not opened.ui.acceptButton.isEnabled()
    assert opened.ui.verdictLabel.text().endswith("Accepted.")
    assert case.mr.GetTransformNodeID() == shown.result.transform.GetID()


def test_the_report_is_saved_as_it_was_written(opened, shown, tmp_path, monkeypatch):
    path = tmp_path / "saved.html"
    monkeypatch.setattr(QtWidgets.QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    opened.ui.reportButton.click()
    assert path.read_text(encoding="utf-8") == "<html>the report</html>"


def test_deleting_the_transform_by_hand_takes_the_section_away(opened, shown):
    slicer.mrmlScene.RemoveNode(shown.result.transform)
    assert not opened.ui.resultSection.isVisible()


@pytest.fixture
def two(opened, shown, case, tmp_path):
    """A second ultrasound with a result of its own, which is shown."""
    shown.result.show(after=False)
    later = add_volume(slicer.mrmlScene, "US after resection", np.ones((4, 4, 4)), np.eye(4))
    opened.request(fixed=later)
    opened.panel._done(add_result(tmp_path / "result", opened.panel.form.request))
    return SimpleNamespace(first=shown.result, second=Result(opened.panel._parameters.result_transform))


def test_buttons_and_keys_step_through_the_results_and_round_again(opened, two, case):
    ui, keys = opened.ui, QtCore.Qt.Key
    opened.holder.activateWindow()
    opened.wait(opened.holder.isActiveWindow)
    ui.previousButton.click()
    assert case.mr.GetTransformNodeID() == two.first.transform.GetID()
    ui.nextButton.click()
    assert case.mr.GetTransformNodeID() == two.second.transform.GetID()
    for key, result in ((keys.Key_Right, two.first), (keys.Key_Left, two.second), (keys.Key_Left, two.first)):
        QtTest.QTest.keyClick(opened.holder, key, QtCore.Qt.KeyboardModifier.ControlModifier)
        assert case.mr.GetTransformNodeID() == result.transform.GetID()
        assert ui.resultSelector.currentText() == result.transform.GetName()


def test_the_drawing_of_the_transform_goes_with_the_result_that_is_shown(opened, two):
    ui = opened.ui
    assert [ui.deformationSelector.itemText(index) for index in range(ui.deformationSelector.count())] == [
        "Not drawn",
        "Warped grid",
        "Arrows",
        "Lines of equal displacement",
    ]
    drawn = lambda: [shown_deformation(each.transform) for each in (two.first, two.second)]  # noqa: E731
    for index, name in enumerate(["", GRID, GLYPHS, CONTOURS]):
        ui.deformationSelector.setCurrentIndex(index)
        assert drawn() == ["", name]
    ui.previousButton.click()
    assert drawn() == [CONTOURS, ""]
    ui.deformationSelector.setCurrentIndex(0)
    assert drawn() == ["", ""]


def test_a_scene_that_shows_a_drawing_says_so_in_the_form(opened, shown):
    show_deformation(shown.result, GLYPHS)
    opened.panel.result_view._qa._result = None  # as if the scene had just been loaded
    opened.panel.result_view._qa.show(shown.result)
    assert opened.ui.deformationSelector.currentText() == "Arrows"


def test_every_step_can_be_undone_from_the_panel(opened, shown, case):
    ui, scene = opened.ui, slicer.mrmlScene
    assert ui.undoButton.isHidden()
    plan = add_points(scene, "plan", np.array([[10.0, 0, 0]]))
    ui.applySelector.setCurrentNode(plan)
    ui.applyButton.click()
    ui.acceptButton.click()
    assert ui.undoButton.text() == "Undo: Accept"
    ui.undoButton.click()
    assert ui.acceptButton.isEnabled()
    assert not shown.result.accepted
    before = sorted(node_ids(scene))
    ui.discardButton.click()
    assert (ui.resultSection.isVisible(), ui.undoButton.text()) == (False, "Undo: Discard")
    ui.undoButton.click()
    assert ui.resultSection.isVisible()
    assert sorted(node_ids(scene)) == before
    assert case.mr.GetTransformNodeID() == plan.GetTransformNodeID() == shown.result.transform.GetID()
    assert opened.panel._parameters.result_transform is shown.result.transform
    assert shown.composite.GetForegroundVolumeID() == case.mr.GetID()
    assert ui.undoButton.text() == "Undo: Put under the transform"
    ui.undoButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[10.0, 0, 0]])
    assert ui.undoButton.isHidden()


def test_undo_of_another_result_goes_to_that_result(opened, two, case):
    opened.ui.previousButton.click()
    opened.ui.discardButton.click()
    assert opened.ui.resultSelector.currentText() == two.second.transform.GetName()
    two.second.show(after=True)
    opened.ui.undoButton.click()
    assert opened.ui.resultSelector.currentText() == two.first.transform.GetName()
    assert case.mr.GetTransformNodeID() == two.first.transform.GetID()
    assert two.first.parent_before is None


def test_closing_the_scene_forgets_what_could_be_undone(opened, shown):
    opened.ui.acceptButton.click()
    slicer.mrmlScene.Clear(0)
    assert opened.ui.undoButton.isHidden()


def test_accept_hardens_only_when_asked_and_after_a_question(opened, shown, case, monkeypatch):
    ui = opened.ui
    plan = add_points(slicer.mrmlScene, "plan", np.array([[10.0, 0, 0]]))
    shown.result.apply_to(plan)
    ui.hardenBox.click()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: shown.answers.append(text))
    ui.acceptButton.click()
    assert (len(shown.answers), shown.result.accepted) == (1, False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: True)
    ui.acceptButton.click()
    assert shown.result.accepted
    assert plan.GetTransformNodeID() is None
    np.testing.assert_allclose(slicer.util.arrayFromMarkupsControlPoints(plan), [[5.0, 0, 0]])
    assert ui.undoButton.isHidden()
