"""What runs inside the real application: each function is a step and, in test_application.py, a test of its own.

Started by ``Slicer --python-script tour.py FOLDER``; writes the error of each step, or '', to ``FOLDER/steps.json``.
"""

import json
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import qt
import slicer

FOLDER = Path(sys.argv[-1])
SHIFT_MM = np.array([3.0, -1.5, 1.5])
# As in mrml_scene.py, which the application has no use for.
QUICK = {
    "lc2.search.sampling_spacing_mm": "4,2",
    "lc2.search.half_width": "2,2",
    "lc2.search.range_mm": "4",
    "lc2.iterations": "5",
    "model_selection.sampling_spacing_mm": "2",
}


def wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s; status: {panel().ui.statusLabel.text}"
        slicer.app.processEvents()
        time.sleep(0.02)


def panel():
    return slicer.modules.MMRegSlicerWidget.panel


def result():
    from MMRegSlicerLib.result import Result

    return Result(panel()._parameters.result_transform)


def node(name):
    return slicer.util.getFirstNodeByName(name)


def centre_of_the_mr():
    """Where the parent transform of the MR takes the point (0, 0, 0)."""
    transform = node("Tour MR").GetParentTransformNode()
    point = (0.0, 0.0, 0.0)
    return np.array(point if transform is None else transform.GetTransformToParent().TransformPoint(point))


def screenshot(name, section=None):
    """A picture of the main window, with the end of a section of the panel in view."""
    slicer.app.processEvents()
    if section is not None:
        area = section.parent()
        while area is not None and not hasattr(area, "ensureWidgetVisible"):
            area = area.parent()
        area.ensureWidgetVisible(section)
        slicer.app.processEvents()
    slicer.util.mainWindow().grab().save(str(FOLDER / f"{name}.png"))


def module_opens():
    slicer.util.mainWindow().resize(1600, 1100)
    slicer.util.selectModule("MMRegSlicer")
    assert not panel().ui.registerButton.enabled
    assert panel().ui.statusLabel.text == "Select the ultrasound volume."
    screenshot("empty")


def images_are_selected():
    from MMRegSlicerLib.self_test import _image

    ultrasound, mr = _image("Tour US", np.zeros(3), bright=True), _image("Tour MR", SHIFT_MM, bright=False)
    panel().ui.fixedSelector.setCurrentNode(ultrasound)
    panel().form._rows[0]._node.setCurrentNode(mr)
    panel().ui.deviceSelector.setCurrentIndex(panel().ui.deviceSelector.findData("cpu"))
    parameters = panel()._parameters
    parameters.request = replace(parameters.request, changes=QUICK)
    assert panel().ui.registerButton.enabled, panel().ui.statusLabel.text
    screenshot("ready")


def a_deleted_volume_is_not_replaced_by_its_neighbour():
    extra = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "US2")
    ultrasound = panel().ui.fixedSelector.currentNode()
    panel().ui.fixedSelector.setCurrentNode(extra)
    slicer.mrmlScene.RemoveNode(extra)
    slicer.app.processEvents()
    assert panel().ui.fixedSelector.currentNode() is None
    assert not panel().ui.registerButton.enabled
    panel().ui.fixedSelector.setCurrentNode(ultrasound)
    assert panel().ui.registerButton.enabled


def cancel_leaves_nothing():
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel().ui.registerButton.click()
    assert panel()._is_running
    panel().ui.cancelButton.click()
    assert not panel()._is_running
    assert panel().ui.registerButton.visible
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert node("Tour MR").GetParentTransformNode() is None


def register():
    panel().ui.registerButton.click()
    wait(lambda: panel().ui.progressBar.value > 0, 100)
    screenshot("running")
    wait(lambda: not panel()._is_running, 100)
    assert panel().ui.statusLabel.text == "Finished. Check the result before accepting.", panel().ui.statusLabel.text
    assert panel().ui.resultSection.visible
    found = np.array(result().transform.GetTransformFromParent().TransformPoint((0.0, 0.0, 0.0)))
    assert np.linalg.norm(found - SHIFT_MM) < 0.5, found
    screenshot("result", panel().ui.applyArea)


def before_and_after():
    after = centre_of_the_mr()
    assert np.linalg.norm(after + SHIFT_MM) < 0.5, after
    panel().ui.afterCheckBox.click()
    assert np.allclose(centre_of_the_mr(), 0)
    panel().ui.afterCheckBox.click()
    assert np.allclose(centre_of_the_mr(), after)


def every_comparison_is_drawn():
    """The Slicer beside the project, with VTK 9.1, draws no model in the slice views: its contours are not seen."""
    selector = panel().ui.comparisonSelector
    assert selector.count >= 6
    for index in range(selector.count):
        selector.setCurrentIndex(index)
        slicer.app.processEvents()
        if selector.currentText.startswith(("MR contours", "Deformation")):
            end = time.monotonic() + 0.5  # the views are drawn with a delay
            wait(lambda end=end: time.monotonic() > end, 5)
            screenshot(selector.currentText.split()[0])
    screenshot("map")
    selector.setCurrentIndex(0)


def landmarks_are_listed():
    for name, points in (("in US", [[0, 0, 0], [8, 0, 0]]), ("in MR", [SHIFT_MM, SHIFT_MM + np.array([8, 0, 0])])):
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        slicer.util.updateMarkupsControlPointsFromArray(markups, np.array(points, dtype=float))
    panel().ui.landmarkSection.collapsed = False
    panel().ui.fixedLandmarksSelector.setCurrentNode(node("in US"))
    panel().ui.movingLandmarksSelector.setCurrentNode(node("in MR"))
    assert panel().ui.landmarkTable.rowCount == 2
    assert float(panel().ui.landmarkTable.item(0, 1).text()) > 3
    assert float(panel().ui.landmarkTable.item(0, 2).text()) < 0.5
    screenshot("landmarks", panel().ui.landmarkSection)


def accept():
    panel().ui.acceptButton.click()
    assert result().accepted
    assert not panel().ui.acceptButton.enabled
    panel().ui.undoButton.click()
    assert not result().accepted
    panel().ui.acceptButton.click()


def a_changed_ultrasound_is_told_and_registered_again():
    first, ui = result(), panel().ui
    assert not ui.staleLabel.visible
    slicer.util.arrayFromVolume(node("Tour US"))[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(node("Tour US"))
    wait(lambda: ui.staleLabel.visible, 5)
    screenshot("stale", ui.applyArea)
    ui.againButton.click()
    wait(lambda: not panel()._is_running, 100)
    assert result().transform is not first.transform
    assert not ui.staleLabel.visible
    assert np.linalg.norm(centre_of_the_mr() + SHIFT_MM) < 0.5, centre_of_the_mr()


def a_bug_report_names_nobody():
    panel().ui.copyLogButton.click()
    text = slicer.app.clipboard().text()
    assert "Slicer 5" in text
    assert "Tour" not in text


def another_module_keeps_its_views_and_keys():
    slicer.util.selectModule("Data")
    assert not any(shortcut.enabled for shortcut in panel().result_view._shortcuts)
    slicer.util.selectModule("MMRegSlicer")
    assert all(shortcut.enabled for shortcut in panel().result_view._shortcuts)


def a_saved_scene_brings_the_result_back():
    after = centre_of_the_mr()
    path = str(FOLDER / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    assert not panel().ui.resultSection.visible
    slicer.util.loadScene(path)
    slicer.app.processEvents()
    assert panel().ui.fixedSelector.currentNode() is node("Tour US")
    assert panel().ui.resultSection.visible
    assert np.allclose(centre_of_the_mr(), after, atol=1e-3)
    assert node("MMReg comparison") is None
    assert not panel().ui.staleLabel.visible


def the_last_parameter_set_may_be_deleted():
    slicer.mrmlScene.RemoveNode(panel()._parameters.node)
    wait(lambda: panel()._parameters is not None, 5)
    panel().ui.fixedSelector.setCurrentNode(node("Tour US"))
    panel().form._rows[0]._node.setCurrentNode(node("Tour MR"))
    assert panel().ui.registerButton.enabled


STEPS = (
    module_opens,
    images_are_selected,
    a_deleted_volume_is_not_replaced_by_its_neighbour,
    cancel_leaves_nothing,
    register,
    before_and_after,
    every_comparison_is_drawn,
    landmarks_are_listed,
    accept,
    a_changed_ultrasound_is_told_and_registered_again,
    a_bug_report_names_nobody,
    another_module_keeps_its_views_and_keys,
    a_saved_scene_brings_the_result_back,
    the_last_parameter_set_may_be_deleted,
)


def main():
    # A question would wait for ever.
    slicer.util.confirmOkCancelDisplay = lambda *_arguments, **_options: True
    errors, seconds = {}, {}
    raised = []
    sys.excepthook = lambda *error: raised.append("".join(traceback.format_exception(*error)))
    for step in STEPS:
        started, raised[:] = time.monotonic(), []
        try:
            step()
            errors[step.__name__] = "".join(raised)
        except Exception:
            errors[step.__name__] = traceback.format_exc() + "".join(raised)
        seconds[step.__name__] = round(time.monotonic() - started, 1)
        (FOLDER / "steps.json").write_text(json.dumps({"errors": errors, "seconds": seconds}), encoding="utf-8")
    slicer.util.exit(0)


qt.QTimer.singleShot(0, main)
