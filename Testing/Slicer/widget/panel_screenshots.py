"""Every section at 400 pixels, nothing cut off; MMREG_SCREENSHOTS names the folder for the screenshots."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from MMRegCore.config import preset_names
from MMRegCore.io.transforms import write_transform
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.result import Result, add_result
from mrml_scene import add_points, add_volume

WIDTH = 400


@pytest.fixture
def keep(opened, tmp_path):
    folder = Path(os.environ.get("MMREG_SCREENSHOTS") or tmp_path)

    def grab(name: str) -> QtGui.QImage:
        settle(opened.holder)
        assert_nothing_cut_off(opened.holder)
        picture = opened.holder.grab()
        assert picture.save(str(folder / f"{name}.png"))
        return picture.toImage()

    return grab


def settle(holder: QtWidgets.QWidget) -> None:
    """Give the panel the height that it asks for, which depends on how its texts are wrapped at this width."""
    for _ in range(5):
        QtWidgets.QApplication.processEvents()
        holder.resize(WIDTH, holder.sizeHint().height())
        holder.layout().activate()
    QtWidgets.QApplication.processEvents()


def assert_nothing_cut_off(holder: QtWidgets.QWidget) -> None:
    """No control is lower than it asks for or reaches beyond the panel, and no text beyond its control."""
    assert holder.width() == WIDTH
    for widget in holder.findChildren(QtWidgets.QWidget):
        if not widget.isVisible() or type(widget).__module__.startswith("PySide6"):
            continue
        right = widget.mapTo(holder, QtCore.QPoint(widget.width(), 0)).x()
        assert right <= WIDTH, f"{widget.objectName()} reaches to {right}"
        lowest = widget.minimumSizeHint().height()
        assert widget.height() >= lowest, f"{widget.objectName()} has {widget.height()} of {lowest} lines"
        needed = needed_width(widget)
        assert needed <= widget.width(), f"{widget.objectName()} needs {needed} of {widget.width()} pixels"


def needed_width(widget: QtWidgets.QWidget) -> int:
    if isinstance(widget, QtWidgets.QLabel):
        words = widget.text().split() if widget.wordWrap() else [widget.text()]
        return max((widget.fontMetrics().horizontalAdvance(word) for word in words), default=0)
    if isinstance(widget, QtWidgets.QAbstractButton):
        return widget.sizeHint().width()
    if isinstance(widget, QtWidgets.QComboBox):
        return widget.fontMetrics().horizontalAdvance(widget.currentText())
    return 0


def colours(image: QtGui.QImage) -> int:
    points = [(x, y) for x in range(0, image.width(), 3) for y in range(0, image.height(), 3)]
    return len({image.pixel(*point) for point in points})


def test_pictures_of_every_section(opened, case, keep, tmp_path):
    ui = opened.ui
    opened.wait(lambda: "PyTorch" in ui.deviceStatus.text())
    ui.logSection.setVisible(False)
    opened.request(changes={"brain_mask": False})
    sizes = [keep("form").height()]
    ui.advancedSection.setProperty("collapsed", False)
    sizes.append(keep("advanced").height())
    ui.advancedSection.setProperty("collapsed", True)
    assert sizes[1] > sizes[0] + 300

    run = opened.register()
    opened.wait(lambda: ui.progressBar.value() > 300)
    running = keep("running")
    assert ui.progressBar.isVisible()
    assert ui.cancelButton.isVisible()
    assert colours(running) > 8

    opened.wait(lambda: not run.is_running)
    result = Result(opened.panel._parameters.result_transform)
    # Balls are no head: what the verdict on them is does not matter here.
    title, colour = {
        "accept": ("No problem detected. Verify visually before use.", "#d9f2d9"),
        "review": ("Review required:", "#fff0c2"),
    }[result.quality.verdict.level]
    assert ui.verdictLabel.text().splitlines()[0] == title
    for section in (ui.inputsSection, ui.settingsSection):
        section.setProperty("collapsed", True)
    add_second_result(opened, result, tmp_path)
    ui.acceptButton.click()
    result_picture = keep("result")
    banner = {QtGui.QColor(result_picture.pixel(60, y)).name() for y in range(result_picture.height())}
    assert colour in banner
    assert ui.resultArea.isVisible()
    assert ui.undoButton.isVisible()

    points = np.array([[0.0, 0, 0], [9.0, 2, 1], [-6.0, 3, 8]])
    ui.fixedLandmarksSelector.setCurrentNode(add_points(slicer.mrmlScene, "Ultrasound landmarks", points))
    moved = add_points(slicer.mrmlScene, "T1 landmarks", points + np.array([3.0, -1.5, 1.5]))
    ui.movingLandmarksSelector.setCurrentNode(moved)
    ui.landmarkSection.setProperty("collapsed", False)
    ui.logSection.setVisible(True)
    ui.logSection.setProperty("collapsed", False)
    opened.panel._on_log("mmreg: log of the registration process")
    assert keep("landmarks").height() > result_picture.height() + 200


@pytest.mark.parametrize("name", preset_names())
def test_no_setting_is_cut_off(opened, name):
    opened.request(preset=name)
    opened.ui.advancedSection.setProperty("collapsed", False)
    settle(opened.holder)
    assert_nothing_cut_off(opened.holder)


def add_second_result(opened, first: Result, folder: Path) -> None:
    """Add a result of an ultrasound after the resection; show the first one again."""
    write_transform(SpatialTransform.identity(), folder / "transform.h5")
    later = add_volume(slicer.mrmlScene, "US after resection", np.ones((4, 4, 4)), np.eye(4))
    add_result(folder, replace(opened.panel.form.request, fixed=later)).show(after=False)
    first.show(after=True)
    opened.panel.result_view.show(first)
