"""A run: progress, result, and everything that can go wrong."""

import os

import numpy as np
import slicer

from MMRegCore.config import DEFAULT_PRESET
from MMRegSlicerLib import dependencies
from MMRegSlicerLib.request import Request
from MMRegSlicerLib.result import Result
from mrml_scene import QUICK, node_ids, snapshot

SHIFT_MM = (3.0, -1.5, 1.5)


def test_registers_without_blocking_the_application(opened, case):
    ui = opened.ui
    ticks, texts, values = [0], set(), [0]

    def live():
        ticks[0] += 1
        texts.add(ui.statusLabel.text())
        values.append(ui.progressBar.value())
        return ui.registerButton.isVisible()

    opened.register()
    assert (ui.cancelButton.isVisible(), ui.registerButton.isVisible()) == (True, False)
    assert not ui.inputsSection.isEnabled()
    opened.wait(live)
    assert ticks[0] > 100
    assert len(texts) > 3
    stages = ui.logView.toPlainText().splitlines()
    assert len(stages) == len(set(stages)) > 2
    assert any("remaining" in text for text in texts)
    assert max(values) > 800
    opened.assert_nothing_left()
    assert (ui.cancelButton.isVisible(), ui.registerButton.isVisible()) == (False, True)
    assert ui.inputsSection.isEnabled()
    assert case.mr.GetParentTransformNode().GetName() == "T1 to Ultrasound"


def test_the_default_preset_with_model_selection_ends_in_a_verdict(opened, case):
    """Nothing is made by hand here: the process decides, and the panel shows what it decided."""
    assert (opened.panel.form.request.preset, opened.panel.form.request.changes) == (DEFAULT_PRESET, QUICK)
    opened.register()
    opened.wait(opened.ui.registerButton.isVisible)
    result = Result(opened.panel._parameters.result_transform)
    selection, verdict = result.quality.model_selection, result.quality.verdict
    assert [candidate.name for candidate in selection.candidates] == ["initial", "rigid", "deformed"]
    assert selection.selected in ("rigid", "deformed")
    found = result.transform.GetTransformFromParent().TransformPoint((0.0, 0.0, 0.0))
    np.testing.assert_allclose(found, SHIFT_MM, atol=0.3)
    assert verdict.level in ("accept", "review")
    assert verdict.expected_error_mm < 1
    *reasons, doubt = opened.ui.verdictLabel.text().splitlines()[1:]
    assert reasons == [f"• {reason}" for reason in verdict.reasons]
    assert doubt.startswith("• Ultrasound: no background was found around it")
    assert len(result.maps) == len(result.quality.maps) == 3


def test_closing_the_scene_in_the_middle(opened, case):
    opened.register()
    opened.wait(lambda: opened.ui.progressBar.value() > 0)
    slicer.mrmlScene.Clear(0)
    opened.assert_nothing_left()
    assert not opened.ui.registerButton.isEnabled()
    assert not opened.ui.cancelButton.isVisible()
    # No event of the process is handled later.
    opened.panel._poll()
    assert opened.panel.form.request == Request()
    for kind in ("vtkMRMLVolumeNode", "vtkMRMLTransformNode", "vtkMRMLTextNode"):
        assert slicer.mrmlScene.GetNumberOfNodesByClass(kind) == 0


def test_deleting_an_input_in_the_middle(opened, case):
    before, ultrasound = node_ids(slicer.mrmlScene), snapshot(case.ultrasound)
    opened.register()
    opened.wait(lambda: opened.ui.progressBar.value() > 0)
    slicer.mrmlScene.RemoveNode(case.mr)
    assert snapshot(case.ultrasound) == ultrasound
    opened.assert_nothing_left()
    assert opened.ui.logView.toPlainText().splitlines()[-1] == "Registration cancelled: T1 was deleted."
    text = "Registration cancelled: T1 was deleted. Select at least one MR volume."
    assert opened.ui.statusLabel.text() == text
    assert not opened.ui.registerButton.isEnabled()
    assert set(node_ids(slicer.mrmlScene)) <= set(before)
    assert not opened.ui.cancelButton.isVisible()


def test_reloading_the_module_in_the_middle(opened, case):
    opened.register()
    opened.wait(lambda: opened.ui.progressBar.value() > 0)
    opened.module.widget.cleanup()
    opened.assert_nothing_left()
    assert case.unchanged()


def test_an_error_of_the_process_is_shown_and_the_panel_is_enabled_again(opened, case):
    case.mr.SetOrigin(900, 0, 0)
    before = node_ids(slicer.mrmlScene), snapshot(case.ultrasound), snapshot(case.mr)
    opened.register()
    opened.wait(opened.ui.registerButton.isVisible)
    assert (node_ids(slicer.mrmlScene), snapshot(case.ultrasound), snapshot(case.mr)) == before
    assert "expected the fields of view" in opened.ui.statusLabel.text()
    assert "expected the fields of view" in opened.ui.logView.toPlainText()
    assert opened.ui.inputsSection.isEnabled()
    opened.assert_nothing_left()


def test_a_process_that_is_killed_is_an_error(opened, case):
    run = opened.register()
    opened.wait(lambda: opened.ui.progressBar.value() > 0)
    os.kill(run.process_id, 9)
    opened.wait(opened.ui.registerButton.isVisible)
    assert "ended unexpectedly (code -9)" in opened.ui.statusLabel.text()
    assert case.unchanged()
    opened.assert_nothing_left()


def test_a_gpu_that_is_not_there_is_explained(opened, case):
    opened.request(device="cuda")
    before = node_ids(slicer.mrmlScene), snapshot(case.ultrasound), snapshot(case.mr)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        opened.register()
        opened.wait(opened.ui.registerButton.isVisible)
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    assert "expected the device 'cuda' to be there" in opened.ui.statusLabel.text()
    assert "no CUDA device (only cpu)" in opened.ui.statusLabel.text()
    assert (node_ids(slicer.mrmlScene), snapshot(case.ultrasound), snapshot(case.mr)) == before
    opened.assert_nothing_left()


def test_a_result_that_cannot_be_loaded_leaves_nothing(opened, case, monkeypatch):
    """The last moment at which something can fail: half of the nodes are there already."""

    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr("MMRegSlicerLib.result.set_map_style", fail)
    opened.register()
    opened.wait(opened.ui.registerButton.isVisible)
    assert "the disk is gone" in opened.ui.statusLabel.text()
    assert case.unchanged()
    opened.assert_nothing_left()


def test_installing_torch_is_confirmed_and_a_refusal_explained(opened, case, monkeypatch):
    asked = []
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None if name == "torch" else object())
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: asked.append(text))
    opened.ui.registerButton.click()
    assert len(asked) == 1
    assert "torch>=" in asked[0]
    assert "Registration requires torch" in opened.ui.statusLabel.text()
    assert case.unchanged()
    opened.assert_nothing_left()
    assert opened.ui.registerButton.isEnabled()


def test_the_verdict_is_shown_while_the_quality_is_still_being_measured(opened, case):
    ui = opened.ui
    opened.register()
    opened.wait(ui.resultSection.isVisible)
    transform = case.mr.GetParentTransformNode()
    assert ui.verdictLabel.text().splitlines()[-1] == "The quality is still being measured."
    assert len(ui.verdictLabel.text().splitlines()) > 2
    assert (ui.cancelButton.isVisible(), ui.resultSection.isEnabled()) == (True, False)
    opened.panel.enter()
    assert "still being measured" in ui.verdictLabel.text()
    opened.wait(ui.registerButton.isVisible)
    assert "still being measured" not in ui.verdictLabel.text()
    assert case.mr.GetParentTransformNode() is transform
    assert ui.resultSection.isEnabled()
    assert ui.comparisonSelector.count() > 3


def test_a_cancel_after_the_transform_shows_the_result_from_before(opened, case):
    ui = opened.ui
    opened.register()
    opened.wait(ui.registerButton.isVisible)
    first, text = opened.panel._parameters.result_transform, ui.verdictLabel.text()
    before = node_ids(slicer.mrmlScene), snapshot(case.mr)
    opened.register()
    opened.wait(lambda: opened.panel._parameters.result_transform is not first)
    assert "still being measured" in ui.verdictLabel.text()
    ui.cancelButton.click()
    assert opened.panel._parameters.result_transform is first
    assert (ui.verdictLabel.text(), ui.resultSection.isVisible()) == (text, True)
    assert (node_ids(slicer.mrmlScene), snapshot(case.mr)) == before
    opened.assert_nothing_left()


def test_the_process_that_waits_is_replaced_after_an_installation(opened, case, monkeypatch):
    waiting = opened.panel.logic._warm._idle
    assert waiting.is_alive
    monkeypatch.setattr(dependencies, "ensure_installed", lambda _confirm: True)
    run = opened.register()
    assert run.process_id != waiting.process_id
    assert not waiting.is_alive
