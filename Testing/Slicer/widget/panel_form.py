"""The parameter set: what the panel shows, what the scene stores, when Register is enabled."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from PySide6 import QtWidgets

from MMRegCore.config import as_text, describe, load_preset, preset_description, preset_names
from MMRegSlicerLib.request import Mask, Moving, Request
from mrml_scene import add_linear, add_points, add_segmentation, add_volume, translation


def combo_boxes(place):
    return place.findChildren(QtWidgets.QComboBox)


def select(box, text):
    """Select an entry as a user does."""
    index = box.findText(text)
    assert index >= 0, [box.itemText(each) for each in range(box.count())]
    box.setCurrentIndex(index)
    box.activated.emit(index)


def select_preset(selector, name):
    """Select a preset by the title that the form shows for it."""
    select(selector, selector.itemText(selector.findData(name)))


@pytest.fixture
def volumes(opened):
    scene = slicer.mrmlScene
    return [add_volume(scene, name, np.ones((4, 5, 6)), np.eye(4)) for name in ("US", "T1", "FLAIR")]


def test_register_says_why_it_cannot_run(opened, volumes):
    ui = opened.ui
    assert (ui.registerButton.isEnabled(), ui.statusLabel.text()) == (False, "Select the ultrasound volume.")
    select(ui.fixedSelector, "US")
    assert ui.statusLabel.text() == "Select at least one MR volume."
    select(combo_boxes(ui.movingFrame)[0], "T1")
    assert (ui.registerButton.isEnabled(), ui.statusLabel.text()) == (True, "")
    slicer.mrmlScene.RemoveNode(volumes[1])
    text = "T1 was deleted and is no longer selected. Select at least one MR volume."
    assert (ui.registerButton.isEnabled(), ui.statusLabel.text()) == (False, text)


def test_guiding_landmarks_are_stored_and_checked(opened, volumes):
    ui, scene = opened.ui, slicer.mrmlScene
    in_us, in_mr = (add_points(scene, name, np.eye(3)) for name in ("in US", "in MR"))
    select(ui.fixedSelector, "US")
    select(combo_boxes(ui.movingFrame)[0], "T1")
    select(ui.guideFixedSelector, "in US")
    assert ui.statusLabel.text() == "Select the guiding landmarks of both images, or of neither."
    select(ui.guideMovingSelector, "in MR")
    ui.guideErrorEdit.setText("3.5")
    ui.guideErrorEdit.editingFinished.emit()
    assert (ui.registerButton.isEnabled(), ui.statusLabel.text()) == (True, "")
    request = opened.panel._parameters.request
    assert (request.fixed_landmarks, request.moving_landmarks, request.landmark_error_mm) == (in_us, in_mr, "3.5")
    slicer.mrmlScene.RemoveNode(in_mr)
    assert opened.panel._parameters.request.moving_landmarks is None
    assert ui.statusLabel.text().startswith("in MR was deleted and is no longer selected.")


def test_selections_are_stored_in_the_scene(opened, volumes):
    ui = opened.ui
    select(ui.fixedSelector, "US")
    select(combo_boxes(ui.movingFrame)[0], "T1")
    select_preset(ui.presetSelector, "mcbo-published")
    ui.nameEdit.setText("after resection")
    ui.nameEdit.editingFinished.emit()
    assert opened.panel._parameters.request == Request(
        volumes[0], (Moving(volumes[1]),), preset="mcbo-published", name="after resection"
    )
    assert ui.presetDescription.text() == preset_description("mcbo-published")


def test_mr_volumes_are_added_and_removed(opened, volumes):
    ui = opened.ui
    ui.addMovingButton.click()
    boxes = [box for box in combo_boxes(ui.movingFrame) if box.findText("T1") >= 0]
    assert len(boxes) == 2
    select(boxes[0], "T1")
    select(boxes[1], "FLAIR")
    assert opened.panel.form.request.moving_nodes == (volumes[1], volumes[2])
    first = next(b for b in ui.movingFrame.findChildren(QtWidgets.QToolButton) if b.isVisible())
    first.click()
    assert opened.panel.form.request.moving_nodes == (volumes[2],)
    assert opened.panel._parameters.request.moving_nodes == (volumes[2],)


def test_masks_are_label_maps_or_segments(opened, volumes):
    segmentation, segment = add_segmentation(slicer.mrmlScene, "Seg", volumes[0], np.ones((4, 5, 6)))
    nodes, segments = combo_boxes(opened.ui.fixedMaskFrame)
    assert segments.isHidden()
    select(nodes, "Seg")
    assert not segments.isHidden()
    assert opened.panel._parameters.request.fixed_mask == Mask(segmentation, segment)
    select(nodes, "None")
    assert segments.isHidden()
    assert opened.panel._parameters.request.fixed_mask is None


def test_segments_that_are_added_renamed_and_removed_are_followed(opened, volumes):
    node, first = add_segmentation(slicer.mrmlScene, "Seg", volumes[0], np.ones((4, 5, 6)))
    segmentation = node.GetSegmentation()
    opened.request(fixed=volumes[0], moving=(Moving(volumes[1]),), fixed_mask=Mask(node, first))
    segments = combo_boxes(opened.ui.fixedMaskFrame)[1]
    second = segmentation.AddEmptySegment("", "tumour")
    segmentation.GetSegment(second).SetName("tumour bed")
    assert [segments.itemText(index) for index in range(segments.count())][1:] == ["tumour bed"]
    assert opened.panel.form.request.fixed_mask == Mask(node, first)
    segmentation.RemoveSegment(first)
    assert opened.panel._parameters.request.fixed_mask == Mask(node, "")
    assert opened.ui.statusLabel.text() == "Select the segment of Seg that is the mask."


def test_a_parameter_set_of_the_scene_is_shown(opened, volumes):
    segmentation, segment = add_segmentation(slicer.mrmlScene, "Seg", volumes[0], np.ones((4, 5, 6)))
    request = Request(
        fixed=volumes[0],
        moving=(Moving(volumes[1], Mask(segmentation, segment)), Moving(volumes[2])),
        fixed_mask=Mask(segmentation, segment),
        initial_transform=add_linear(slicer.mrmlScene, "tracker", translation(1, 0, 0)),
        preset="mcbo-clem",
        changes={"mcbo.half_width": "5", "masked": "true", "mcbo.fusion": "mean"},
        device="cpu",
        name="x",
    )
    opened.panel._parameters.request = request
    assert opened.panel.form.request == request
    assert opened.ui.registerButton.isEnabled()


def editor_of(opened, key):
    return next(editor for editor in opened.panel.form._editors if editor.key == key)


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_has_an_editor_of_its_kind_and_explains_itself(opened, name):
    """Also presets, methods and settings that are added later: the module does not list them."""
    opened.request(preset=name)
    editors, settings = opened.panel.form._editors, list(describe(load_preset(name)))
    assert [editor.key for editor in editors] == [about.key for about in settings if about.key != "method"]
    frames = {"basic": opened.ui.basicFrame, "expert": opened.ui.advancedFrame}
    for editor, about in zip(editors, [about for about in settings if about.key != "method"], strict=True):
        widget = editor.widget
        if about.is_list or about.kind in ("integer", "number", "text"):
            assert isinstance(widget, QtWidgets.QLineEdit)
            assert widget.text() == as_text(about.default)
        elif about.kind == "switch":
            assert isinstance(widget, QtWidgets.QCheckBox)
            assert widget.isChecked() == about.default
        else:
            assert isinstance(widget, QtWidgets.QComboBox)
            assert tuple(widget.itemText(index) for index in range(widget.count())) == about.choices
            assert widget.currentText() == as_text(about.default)
        assert all(text in widget.toolTip() for text in (about.help, about.expected, about.key))
        assert editor.label == (f"{about.label} ({about.unit})" if about.unit else about.label)
        assert widget.parent() is frames[about.tier]
        assert widget.parent().layout().labelForField(widget).text() == editor.label
        assert editor.change() is None


@pytest.mark.parametrize("name", preset_names())
def test_model_selection_is_offered_for_every_method(opened, name):
    opened.request(preset=name)
    enabled = editor_of(opened, "model_selection.enabled").widget
    before = enabled.isChecked()
    enabled.click()
    assert opened.panel.form.request.changes == {"model_selection.enabled": as_text(not before)}
    groups = {editor.key.partition(".")[0] for editor in opened.panel.form._editors if "." in editor.key}
    assert groups == {load_preset(name).method, "model_selection"}


def test_settings_are_grouped_below_headings(opened):
    headings = {
        tier: [label.text() for label in frame.findChildren(QtWidgets.QLabel) if label.text().startswith("<b>")]
        for tier, frame in (("basic", opened.ui.basicFrame), ("expert", opened.ui.advancedFrame))
    }
    assert headings == {
        "basic": ["<b>lc2: search</b>", "<b>model selection</b>"],
        "expert": ["<b>lc2: search</b>", "<b>lc2: search: prior</b>", "<b>lc2</b>", "<b>model selection</b>"],
    }
    assert opened.ui.advancedSection.property("collapsed")
    assert opened.ui.basicFrame.isVisible()


def test_settings_are_changed_checked_and_reset(opened, volumes):
    opened.request(fixed=volumes[0], moving=(Moving(volumes[1]),))
    select(editor_of(opened, "lc2.search.similarity").widget, "mind")
    iterations = editor_of(opened, "lc2.iterations").widget
    iterations.setText("9999")
    iterations.editingFinished.emit()
    changes = {"lc2.search.similarity": "mind", "lc2.iterations": "9999"}
    assert opened.panel.form.request.changes == opened.panel._parameters.request.changes == changes
    assert "lc2.iterations to be at most 500" in opened.ui.statusLabel.text()
    assert not opened.ui.registerButton.isEnabled()
    opened.ui.resetButton.click()
    assert opened.panel.form.request.changes == {}
    assert opened.ui.registerButton.isEnabled()


def test_another_preset_brings_its_own_values(opened):
    for name in sorted(preset_names(), key=lambda each: each == Request().preset):
        line = editor_of(opened, "margin_mm").widget
        line.setFocus()
        line.setText("7")
        select_preset(opened.ui.presetSelector, name)
        assert opened.panel.form.request.changes == {}
        assert opened.panel._parameters.request.preset == name


def test_every_preset_is_offered_with_its_purpose(opened):
    selector = opened.ui.presetSelector
    assert [selector.itemData(index) for index in range(selector.count())] == list(preset_names())
    titles = {selector.itemText(index) for index in range(selector.count())}
    assert len(titles) == selector.count()
    assert not titles & set(preset_names())
    for name in preset_names():
        select_preset(selector, name)
        assert opened.ui.presetDescription.text() == preset_description(name)


def test_several_parameter_sets_in_one_scene(opened, volumes):
    selector, first = opened.ui.parameterSelector, opened.panel._parameters.node
    opened.request(fixed=volumes[0], moving=(Moving(volumes[1]),), name="before resection")
    second = selector.addNode()
    assert second.GetHideFromEditors()
    assert opened.panel.form.request == Request()
    select(opened.ui.fixedSelector, "FLAIR")
    select_preset(opened.ui.presetSelector, "mcbo-clem")
    selector.setCurrentNode(first)
    assert opened.panel.form.request == Request(volumes[0], (Moving(volumes[1]),), name="before resection")
    assert [node.GetID() for node in (first, second)] == [selector.itemData(index) for index in range(selector.count())]
    selector.setCurrentNode(second)
    assert opened.panel.form.request.fixed is volumes[2]
    opened.panel.enter()
    assert opened.panel._parameters.node is second, "the selected parameter set is shown again after switching modules"
    slicer.mrmlScene.RemoveNode(second)
    opened.wait(lambda: opened.panel.form.request.name == "before resection")
    slicer.mrmlScene.RemoveNode(first)
    opened.wait(lambda: opened.panel.form.request == Request())


def test_after_the_last_parameter_set_was_deleted_a_new_one_is_used(opened, volumes):
    for _ in range(2):
        deleted = opened.panel._parameters.node
        slicer.mrmlScene.RemoveNode(deleted)
        opened.wait(lambda: opened.ui.parameterSelector.currentNode() is not None)
        node = opened.panel._parameters.node
        assert node is not deleted
        assert node is opened.ui.parameterSelector.currentNode()
        select(opened.ui.fixedSelector, "US")
        assert node.GetNodeReference("fixed") is volumes[0]


@pytest.mark.parametrize("kind", ["ultrasound", "MR", "mask", "segment", "transform"])
def test_a_deleted_input_is_not_replaced_by_its_neighbour(opened, volumes, kind):
    scene, ui = slicer.mrmlScene, opened.ui
    transforms = [add_linear(scene, name, translation(1, 0, 0)) for name in ("tracker", "another")]
    masks = [scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name) for name in ("mask", "other mask")]
    segmentation, segment = add_segmentation(scene, "Seg", volumes[1], np.ones((4, 5, 6)))
    add_segmentation(scene, "Other Seg", volumes[1], np.ones((4, 5, 6)))
    request = Request(
        volumes[0], (Moving(volumes[1], Mask(segmentation, segment)),), Mask(masks[0]), initial_transform=transforms[0]
    )
    opened.panel._parameters.request = request
    deleted = {"ultrasound": volumes[0], "MR": volumes[1], "mask": masks[0], "segment": segmentation}.get(
        kind, transforms[0]
    )
    expected = request.without(deleted)
    assert expected != request
    scene.RemoveNode(deleted)
    assert opened.panel.form.request == opened.panel._parameters.request == expected
    assert ui.registerButton.isEnabled() == (kind not in ("ultrasound", "MR"))
    text = ui.statusLabel.text()
    assert text.startswith(f"{deleted.GetName()} was deleted and is no longer selected.")
    assert text.endswith(expected.validation_error())


def test_the_parameter_set_that_was_selected_is_restored_with_the_scene(opened, volumes, tmp_path):
    opened.request(fixed=volumes[0], name="one")
    opened.ui.parameterSelector.addNode()
    opened.request(fixed=volumes[2], name="two")
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Clear(0)
    assert opened.panel.form.request == Request()
    slicer.mrmlScene.Connect()
    assert opened.ui.parameterSelector.count() == 2
    assert opened.panel.form.request.name == "two"


def test_an_initial_transform_that_leaves_out_parents_is_a_warning(opened, volumes):
    upper = add_linear(slicer.mrmlScene, "tracker", translation(9, 0, 0))
    lower = add_linear(slicer.mrmlScene, "calibration", translation(1, 0, 0), upper)
    volumes[1].SetAndObserveTransformNodeID(lower.GetID())
    opened.request(fixed=volumes[0], moving=(Moving(volumes[1]),))
    assert opened.ui.initialTransformWarning.isHidden()
    select(opened.ui.initialTransformSelector, "tracker")
    assert not opened.ui.initialTransformWarning.isHidden()
    assert "calibration would be ignored" in opened.ui.initialTransformWarning.text()


def test_devices_are_detected_in_another_process(opened):
    opened.wait(lambda: "PyTorch" in opened.ui.deviceStatus.text())


def test_every_control_has_a_tooltip(opened):
    kinds = (QtWidgets.QAbstractButton, QtWidgets.QComboBox, QtWidgets.QLineEdit, QtWidgets.QPlainTextEdit)
    for kind in kinds:
        for widget in opened.holder.findChildren(kind):
            inner = widget.objectName().startswith("qt_") or type(widget).__module__.startswith("PySide6")
            assert inner or widget.toolTip(), widget.objectName()


def test_a_new_scene_starts_with_a_new_parameter_set(opened, volumes):
    opened.request(fixed=volumes[0], moving=(Moving(volumes[1]),))
    slicer.mrmlScene.Clear(0)
    assert opened.panel.form.request == Request()
    assert opened.ui.statusLabel.text() == "Select the ultrasound volume."


def test_the_panel_opens_without_the_missing_packages(tmp_path):
    """Torch, safetensors, Jinja2 and matplotlib cannot be imported; numpy and SimpleITK are Slicer's own."""
    code = f"""
import sys, os
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors", "jinja2", "matplotlib", "nilearn"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import importlib.util
real = importlib.util.find_spec
gone = ("torch", "safetensors", "jinja2", "matplotlib")
importlib.util.find_spec = lambda name, *rest: None if name in gone else real(name, *rest)
from pathlib import Path
import standin
application = standin.install(Path({str(tmp_path)!r}))
opened = standin.open_module()
opened.holder.show()
text = opened.widget.panel.ui.deviceStatus.text()
sys.stdout.write(text)
sys.stdout.flush()
os._exit(0 if "torch, safetensors, Jinja2 will be installed" in text and "torch" not in sys.modules else 3)
"""
    root = Path(__file__).parents[3]
    finished = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'Testing' / 'Slicer'}"},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
