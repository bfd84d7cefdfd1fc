"""The result: verdict, comparison, Apply to, landmarks, report, Accept, Discard, Undo."""

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk
from PySide6 import QtCore, QtTest, QtWidgets

from MMRegCore.assessment.quality import Verdict
from MMRegCore.io.transforms import write_transform
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.deformation import CONTOURS, GLYPHS, GRID, deformation_mode, show_deformation
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
from result_folder import result_json


@pytest.fixture
def shown(opened, case, result_files, tmp_path, monkeypatch):
    """A result in the panel, as if a registration had just ended; its transform is replaced by a known one."""
    folder = shutil.copytree(result_files, tmp_path / "result")
    write_transform(SpatialTransform.from_matrix(translation(5, 0, 0)), folder / "transform.h5")
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    before = node_ids(slicer.mrmlScene), snapshot(case.mr)
    opened.panel._on_finished(add_result(folder, opened.panel.form.request))
    answers = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: answers.append(text) or True)
    result = Result(opened.panel._parameters.result_transform)
    return SimpleNamespace(result=result, composite=composite, before=before, answers=answers)


def test_the_verdict_is_shown_with_its_reasons(opened, shown):
    text = opened.ui.verdictLabel.text()
    verdict = shown.result.quality.verdict
    assert (verdict.level, len(verdict.reasons)) == ("review", 2)
    doubt = "Ultrasound: no background was found around it"
    assert text.splitlines()[:-1] == ["Review required:", *(f"• {reason}" for reason in verdict.reasons)]
    assert text.splitlines()[-1].startswith(f"• {doubt}")
    assert "#fff0c2" in opened.ui.verdictLabel.styleSheet()
    assert opened.ui.statusLabel.text() == "Finished. Check the result before accepting."


@pytest.mark.parametrize(
    ("text", "banner", "colour"),
    [
        (
            result_json(Verdict("accept", ("The expected error is 1.1 mm.",), 1.1)),
            "No problem detected. Verify visually before use.\n• The expected error is 1.1 mm.",
            "#d9f2d9",
        ),
        (result_json(Verdict("reject", ("It folds.",), None)), "Rejected:\n• It folds.", "#f8d0d0"),
        ("", "Not assessed. Verify visually before use.", ""),
        (
            '{"schema_version": 0}',
            "Not assessed. Verify visually before use.\n• expected a result.json of schema version 1; got 0",
            "",
        ),
    ],
)
def test_other_verdicts_and_none(opened, shown, text, banner, colour):
    """Levels that a small case cannot give, and scenes of another version of MMReg."""
    node = next(each for each in shown.result.output_nodes if each.GetAttribute("MMReg.kind") == "result")
    node.SetText(text)
    opened.panel.result_view.show(shown.result)
    assert opened.ui.verdictLabel.text() == banner
    assert colour in opened.ui.verdictLabel.styleSheet()
    assert bool(colour) == bool(opened.ui.verdictLabel.styleSheet())


def test_the_slice_views_show_the_mr_over_the_ultrasound(shown, case):
    assert shown.composite.GetBackgroundVolumeID() == case.ultrasound.GetID()
    assert shown.composite.GetForegroundVolumeID() == case.mr.GetID()
    assert shown.composite.GetForegroundOpacity() == 0.5


def select(ui, title):
    ui.comparisonSelector.setCurrentIndex(ui.comparisonSelector.findText(title))


def test_comparison_modes(opened, shown, case):
    ui, composite, scene = opened.ui, shown.composite, slicer.mrmlScene
    titles = [ui.comparisonSelector.itemText(index) for index in range(ui.comparisonSelector.count())]
    maps = ["Expected error (mm)", "Displacement (mm)", "Volume change (Jacobian determinant)"]
    assert titles == [
        "Blend",
        "Flicker",
        "MR contours (before, after)",
        "Deformation 0–100 %",
        "Checkerboard (after)",
        "Difference (after)",
        *maps,
    ]
    ui.comparisonSlider.setValue(20)
    assert composite.GetForegroundOpacity() == pytest.approx(0.2)

    select(ui, "Checkerboard (after)")
    board = scene.GetNodeByID(composite.GetBackgroundVolumeID())
    assert board.GetName() == "MMReg comparison"
    first = slicer.util.arrayFromVolume(board).copy()
    ui.comparisonSlider.setValue(90)
    assert board.GetScene() is None
    board = scene.GetNodeByID(composite.GetBackgroundVolumeID())
    assert (slicer.util.arrayFromVolume(board) != first).any()

    select(ui, "Difference (after)")
    assert not ui.comparisonSlider.isVisible()
    assert ui.mapSentence.isHidden()
    select(ui, "Expected error (mm)")
    assert ui.mapSentence.text() == shown.result.quality.maps[0].sentence
    assert not ui.mapSentence.isHidden()
    assert composite.GetForegroundVolumeID() == shown.result.maps[0].GetID()
    assert scene.GetFirstNodeByName("MMReg comparison") is None


def test_flicker_shows_one_then_the_other(opened, shown):
    seen = set()
    select(opened.ui, "Flicker")
    opened.ui.comparisonSlider.setValue(100)
    opened.wait(lambda: seen.add(shown.composite.GetForegroundOpacity()) or seen == {0.0, 1.0}, seconds=5)
    select(opened.ui, "Blend")
    assert shown.composite.GetForegroundOpacity() == 0.5


@pytest.mark.parametrize(
    "title",
    ["Flicker", "MR contours (before, after)", "Deformation 0–100 %", "Checkerboard (after)", "Expected error (mm)"],
)
def test_discard_removes_the_comparison(opened, shown, case, title):
    select(opened.ui, title)
    opened.ui.discardButton.click()
    assert (node_ids(slicer.mrmlScene), snapshot(case.mr)) == shown.before


def test_landmarks_are_listed_largest_error_first_and_a_click_jumps_there(opened, shown):
    scene, ui = slicer.mrmlScene, opened.ui
    in_us = add_points(scene, "in US", np.array([[0.0, 0, 0], [10.0, 0, 0]]))
    in_mr = add_points(scene, "in MR", np.array([[5.0, 0, 1], [15.0, 0, 3]]))
    slice_node = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    ui.landmarkSection.setProperty("collapsed", False)
    assert ui.landmarkSummary.text() == "Select the ultrasound landmarks and the MR landmarks."
    ui.fixedLandmarksSelector.setCurrentNode(in_us)
    ui.movingLandmarksSelector.setCurrentNode(in_mr)
    table = ui.landmarkTable
    assert [table.item(row, 2).text() for row in range(table.rowCount())] == ["3.00", "1.00"]
    assert table.item(0, 1).text() == "5.83"
    assert ui.landmarkSummary.text() == (
        "2 landmarks, mean TRE 5.46 mm before and 2.00 mm after registration. "
        "The labels of the landmarks differ or repeat: they were paired by their order."
    )
    table.cellClicked.emit(0, 0)
    matrix = slice_node.GetSliceToRAS()
    np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], [10.0, 0, 0])
    table.cellClicked.emit(1, 0)
    np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], [0.0, 0, 0])
    ui.largestErrorButton.click()
    np.testing.assert_allclose([matrix.GetElement(row, 3) for row in range(3)], [10.0, 0, 0])
    scene.RemoveNode(in_mr)
    assert table.rowCount() == 0
    assert not ui.largestErrorButton.isEnabled()


def test_before_and_after_by_click_and_by_key(opened, shown, case):
    ui = opened.ui
    assert ui.afterCheckBox.isChecked()
    ui.afterCheckBox.click()
    assert snapshot(case.mr) == shown.before[1]
    opened.holder.activateWindow()
    opened.wait(opened.holder.isActiveWindow)
    opened.module.widget.exit()
    QtTest.QTest.keyClick(opened.holder, QtCore.Qt.Key.Key_B, QtCore.Qt.KeyboardModifier.ControlModifier)
    assert not ui.afterCheckBox.isChecked()  # another module has the key
    opened.module.widget.enter()
    QtTest.QTest.keyClick(opened.holder, QtCore.Qt.Key.Key_B, QtCore.Qt.KeyboardModifier.ControlModifier)
    assert ui.afterCheckBox.isChecked()
    assert case.mr.GetTransformNodeID() == shown.result.transform.GetID()


def test_the_transform_is_applied_to_a_node_and_removed(opened, shown):
    plan = add_points(slicer.mrmlScene, "plan", np.array([[10.0, 0, 0]]))
    ui = opened.ui
    assert not ui.applyButton.isEnabled()
    ui.applySelector.setCurrentNode(plan)
    ui.applyButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[5.0, 0, 0]])
    assert ui.applyButton.text() == "Remove transform"
    ui.applyButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[10.0, 0, 0]])
    assert ui.applyButton.text() == "Apply transform"
    ui.applyButton.click()
    ui.discardButton.click()
    np.testing.assert_allclose(points_in_world(plan), [[10.0, 0, 0]])


def test_the_transform_is_applied_to_every_kind_of_node(opened, shown, case):
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


def test_the_transform_is_applied_to_a_whole_folder_and_removed(opened, shown, case):
    scene, ui = slicer.mrmlScene, opened.ui
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    outer = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "plan")
    inner = hierarchy.CreateFolderItem(outer, "tracts")
    initial = add_linear(scene, "initial", translation(0, 0, 2))
    points = [add_points(scene, name, np.array([[10.0, 0, 0]])) for name in ("entry", "target", "elsewhere")]
    points[1].SetAndObserveTransformNodeID(initial.GetID())
    places = (outer, inner, hierarchy.GetSceneItemID())
    for node, place in zip((*points, initial, case.ultrasound), (*places, outer, outer), strict=True):
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(place, node), place)
    ui.applySelector.setCurrentNode(points[0])
    ui.applyFolderCheckBox.click()
    ui.applyButton.click()
    parents = [node.GetTransformNodeID() for node in points]
    assert parents == [shown.result.transform.GetID(), shown.result.transform.GetID(), None]
    assert case.ultrasound.GetTransformNodeID() is None
    assert initial.GetTransformNodeID() is None
    ui.applyButton.click()
    assert [node.GetTransformNodeID() for node in points] == [None, initial.GetID(), None]


def test_the_transform_is_not_applied_to_the_ultrasound_or_to_outputs(opened, shown, case):
    for node in (case.ultrasound, shown.result.warped[0]):
        opened.ui.applySelector.setCurrentNode(node)
        assert opened.ui.applySelector.currentNode() is node
        assert not opened.ui.applyButton.isEnabled()


def test_discard_asks_then_removes_exactly_what_was_created(opened, shown, case):
    opened.ui.discardButton.click()
    assert len(shown.answers) == 1
    assert (node_ids(slicer.mrmlScene), snapshot(case.mr)) == shown.before
    assert not opened.ui.resultSection.isVisible()
    assert opened.ui.statusLabel.text() == "Result discarded. The original parent transforms were restored."


def test_results_of_several_ultrasound_volumes_are_stepped_through(opened, shown, case, tmp_path):
    ui, first = opened.ui, shown.result
    assert ui.resultArea.isHidden()
    first.show(after=False)
    later = add_volume(slicer.mrmlScene, "US after resection", np.ones((4, 4, 4)), np.eye(4))
    opened.request(fixed=later)
    opened.panel._on_finished(add_result(tmp_path / "result", opened.panel.form.request))
    second = Result(opened.panel._parameters.result_transform)
    names = [ui.resultSelector.itemText(index) for index in range(ui.resultSelector.count())]
    assert names == ["T1 to Ultrasound", "T1 to US after resection"]
    assert ui.resultSelector.currentText() == names[1]
    assert shown.composite.GetBackgroundVolumeID() == later.GetID()

    ui.resultSelector.setCurrentIndex(0)
    assert case.mr.GetTransformNodeID() == first.transform.GetID()
    assert shown.composite.GetBackgroundVolumeID() == case.ultrasound.GetID()
    ui.afterCheckBox.click()
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


def test_the_report_is_saved_as_it_was_written(opened, shown, result_files, tmp_path, monkeypatch):
    path = tmp_path / "saved.html"
    monkeypatch.setattr(QtWidgets.QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    opened.ui.reportButton.click()
    assert path.read_text(encoding="utf-8") == (result_files / "report.html").read_text(encoding="utf-8")


def test_deleting_the_transform_by_hand_hides_the_section(opened, shown):
    slicer.mrmlScene.RemoveNode(shown.result.transform)
    assert not opened.ui.resultSection.isVisible()


@pytest.fixture
def two(opened, shown, case, tmp_path):
    """A second ultrasound with a result of its own, which is shown."""
    shown.result.show(after=False)
    later = add_volume(slicer.mrmlScene, "US after resection", np.ones((4, 4, 4)), np.eye(4))
    opened.request(fixed=later)
    opened.panel._on_finished(add_result(tmp_path / "result", opened.panel.form.request))
    return SimpleNamespace(first=shown.result, second=Result(opened.panel._parameters.result_transform))


def test_buttons_and_keys_step_through_the_results_and_round_again(opened, two, case):
    ui, keys = opened.ui, QtCore.Qt.Key
    opened.holder.activateWindow()
    opened.wait(opened.holder.isActiveWindow)
    ui.previousButton.click()
    assert case.mr.GetTransformNodeID() == two.first.transform.GetID()
    ui.nextButton.click()
    assert case.mr.GetTransformNodeID() == two.second.transform.GetID()
    for key, result in ((keys.Key_PageDown, two.first), (keys.Key_PageUp, two.second), (keys.Key_PageUp, two.first)):
        QtTest.QTest.keyClick(opened.holder, key, QtCore.Qt.KeyboardModifier.ControlModifier)
        assert case.mr.GetTransformNodeID() == result.transform.GetID()
        assert ui.resultSelector.currentText() == result.transform.GetName()


def test_the_deformation_is_displayed_for_the_selected_result_only(opened, two):
    ui = opened.ui
    assert [ui.deformationSelector.itemText(index) for index in range(ui.deformationSelector.count())] == [
        "None",
        "Warped grid",
        "Glyphs",
        "Contours",
    ]
    modes = lambda: [deformation_mode(each.transform) for each in (two.first, two.second)]  # noqa: E731
    for index, name in enumerate(["", GRID, GLYPHS, CONTOURS]):
        ui.deformationSelector.setCurrentIndex(index)
        assert modes() == ["", name]
    ui.previousButton.click()
    assert modes() == [CONTOURS, ""]
    ui.deformationSelector.setCurrentIndex(0)
    assert modes() == ["", ""]


def test_the_displayed_deformation_of_a_loaded_scene_is_selected(opened, shown):
    show_deformation(shown.result, GLYPHS)
    opened.panel.result_view._qa._result = None  # as if the scene had just been loaded
    opened.panel.result_view._qa.show(shown.result)
    assert opened.ui.deformationSelector.currentText() == "Glyphs"


def test_every_command_can_be_undone_from_the_panel(opened, shown, case):
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
    assert ui.undoButton.text() == "Undo: Apply transform"
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
    assert two.first.original_parent_transform is None


def test_closing_the_scene_clears_the_undo_stack(opened, shown):
    opened.ui.acceptButton.click()
    slicer.mrmlScene.Clear(0)
    assert opened.ui.undoButton.isHidden()


def test_accept_hardens_only_when_asked_and_after_a_question(opened, shown, case, monkeypatch):
    ui = opened.ui
    plan = add_points(slicer.mrmlScene, "plan", np.array([[10.0, 0, 0]]))
    shown.result.apply_transform(plan)
    ui.hardenCheckBox.click()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: shown.answers.append(text))
    ui.acceptButton.click()
    assert (len(shown.answers), shown.result.accepted) == (1, False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: True)
    ui.acceptButton.click()
    assert shown.result.accepted
    assert plan.GetTransformNodeID() is None
    np.testing.assert_allclose(slicer.util.arrayFromMarkupsControlPoints(plan), [[5.0, 0, 0]])
    assert ui.undoButton.isHidden()


def test_before_and_after_do_not_move_a_hardened_mr_again(opened, shown, case, two):
    """Nor does another result of the same MR, which was computed at its old position."""
    ui, volume = opened.ui, case.mr
    ui.previousButton.click()
    ui.hardenCheckBox.click()
    ui.acceptButton.click()

    def place():
        return volume.GetTransformNodeID(), volume.GetOrigin()

    hardened = place()
    assert hardened[0] is None
    assert (ui.afterCheckBox.isChecked(), ui.afterCheckBox.isEnabled()) == (True, False)
    for act in (
        opened.panel.result_view._toggle_after,
        lambda: ui.afterCheckBox.toggled.emit(False),
        lambda: ui.afterCheckBox.toggled.emit(True),
        ui.nextButton.click,
        ui.previousButton.click,
    ):
        act()
        assert place() == hardened
    ui.applySelector.setCurrentNode(volume)
    assert not ui.applyButton.isEnabled()
    ui.discardButton.click()
    ui.undoButton.click()
    assert place() == hardened
    assert not ui.afterCheckBox.isEnabled()


# Of the main window of Slicer 5.8 and of its slice views.
SLICER_KEYS = {
    *("B", "F", "R", "V", "G", "T", "Left", "Right", "Up", "Down"),
    *(f"Ctrl+{key}" for key in (*"0123456CGHOSVWXYZ", "Left", "Right", "Shift+A", "Shift+Space", "Shift+T")),
}


def test_keys_of_slicer_are_left_alone(opened):
    ours = {each.key().toString() for each in opened.panel.result_view._shortcuts}
    assert len(ours) == 3
    assert not ours & SLICER_KEYS
    assert "(Ctrl+B)" in opened.ui.afterCheckBox.text()
    assert "(Ctrl+PgUp)" in opened.ui.previousButton.toolTip()
    assert "(Ctrl+PgDown)" in opened.ui.nextButton.toolTip()


def test_flicker_pauses_while_another_module_is_shown(opened, shown):
    select(opened.ui, "Flicker")
    opened.ui.comparisonSlider.setValue(100)
    opened.module.widget.exit()
    shown.composite.SetForegroundOpacity(0.25)
    deadline = time.monotonic() + 0.5
    opened.wait(lambda: time.monotonic() > deadline)
    assert shown.composite.GetForegroundOpacity() == 0.25
    opened.module.widget.enter()
    opened.wait(lambda: shown.composite.GetForegroundOpacity() != 0.25, seconds=5)


def test_a_scene_that_is_loaded_while_another_module_is_shown_keeps_its_slice_views(opened, shown, case, tmp_path):
    scene = slicer.mrmlScene
    shown.composite.SetBackgroundVolumeID(None)
    shown.composite.SetForegroundVolumeID(case.ultrasound.GetID())
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    opened.module.widget.exit()
    scene.Clear(0)
    scene.Connect()
    composite = scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetBackgroundVolumeID() is None
    opened.module.widget.enter()
    assert composite.GetBackgroundVolumeID() == Result(opened.panel._parameters.result_transform).fixed.GetID()


def test_a_long_verdict_wraps(opened, shown):
    before = opened.ui.resultSection.minimumSizeHint().width()
    opened.ui.verdictLabel.setText("• " + "Averyveryverylongreason" * 8)
    assert opened.ui.resultSection.minimumSizeHint().width() == before
    assert opened.ui.verdictLabel.wordWrap()


def test_the_landmark_table_has_room_for_eight_rows(opened, shown):
    opened.ui.landmarkSection.setProperty("collapsed", False)
    table = opened.ui.landmarkTable
    table.setRowCount(8)
    QtWidgets.QApplication.processEvents()
    assert table.viewport().height() >= 8 * table.rowHeight(0)


def test_a_map_that_was_deleted_by_hand_is_no_longer_offered(opened, shown, case):
    select(opened.ui, "Expected error (mm)")
    slicer.mrmlScene.RemoveNode(shown.result.maps[0])
    opened.ui.comparisonSlider.setValue(20)
    assert opened.ui.comparisonSelector.findText("Expected error (mm)") == -1
    assert opened.ui.comparisonSelector.currentText() == "Blend"
    assert shown.composite.GetForegroundVolumeID() == case.mr.GetID()


def test_the_report_is_html_whatever_the_user_typed(opened, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(QtWidgets.QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "report"), ""))
    opened.ui.reportButton.click()
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == shown.result.report


def test_cleanup_twice(opened):
    opened.module.widget.cleanup()
    opened.module.widget.cleanup()


def test_a_changed_image_is_told_and_registered_again_from_the_accepted_result(opened, shown, case, monkeypatch):
    from MMRegSlicerLib.staleness import checksums, store_checksums

    store_checksums(shown.result, checksums((case.ultrasound, case.mr)))
    assert opened.ui.staleLabel.isHidden()
    slicer.util.arrayFromVolume(case.ultrasound)[2, 2, 2] += 1
    slicer.util.arrayFromVolumeModified(case.ultrasound)
    opened.wait(lambda: not opened.ui.staleLabel.isHidden(), seconds=5)
    expected = f"{case.ultrasound.GetName()} changed since this result. Register again."
    assert opened.ui.staleLabel.text() == expected

    opened.ui.acceptButton.click()
    shown.result.show(after=False)
    started = []
    monkeypatch.setattr(opened.panel.logic, "startRequest", lambda request, _callbacks: started.append(request))
    opened.request(initial_transform=add_linear(slicer.mrmlScene, "navigation", translation(9, 0, 0)))
    opened.ui.againButton.click()
    (request,) = started
    assert request.initial_transform is None
    assert (request.changes, request.preset) == (opened.panel.form.request.changes, "lc2")
    assert case.mr.GetParentTransformNode() is shown.result.transform
    opened.panel._set_running(False)


def test_copy_for_bug_report(opened, shown, case):
    case.mr.SetName("Smith")
    opened.panel._on_log("Smith: 3 levels")
    opened.ui.copyLogButton.click()
    text = QtWidgets.QApplication.clipboard().text()
    assert "<name>: 3 levels" in text
    assert '"preset": "lc2"' in text
