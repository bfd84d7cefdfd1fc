"""The table of landmarks: target registration error before and after, the largest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer

from MMRegCore.errors import MMRegError
from MMRegSlicerLib.landmarks import LandmarkError, jump_to, landmark_errors, pairing_warning
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _


class LandmarkView:
    """Computes and lists the errors as soon as both point lists are selected.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    """

    def __init__(self, ui: Any) -> None:  # noqa: ANN401
        self._ui = ui
        self._result: Result | None = None
        self._landmarks: tuple[LandmarkError, ...] = ()
        titles = [_("Landmark"), _("Before (mm)"), _("After (mm)")]
        ui.landmarkTable.setColumnCount(len(titles))
        ui.landmarkTable.setHorizontalHeaderLabels(titles)
        ui.landmarkTable.connect("cellClicked(int,int)", lambda row, _column: self._jump_to(row))
        for selector in (ui.fixedLandmarksSelector, ui.movingLandmarksSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._update())
        ui.updateErrorsButton.connect("clicked()", self._update)
        ui.largestErrorButton.connect("clicked()", lambda: self._jump_to(0))  # the first row is the largest

    def show(self, result: Result | None) -> None:
        """Compute the errors of a result; None empties the table."""
        self._result = result
        self._update()

    def _update(self) -> None:
        nodes = [self._ui.fixedLandmarksSelector.currentNode(), self._ui.movingLandmarksSelector.currentNode()]
        self._landmarks, summary = (), _("Select the ultrasound landmarks and the MR landmarks.")
        if self._result is not None and self._result.moving and None not in nodes:
            try:
                self._landmarks = landmark_errors(self._result, *nodes)
                summary = " ".join(
                    filter(
                        None, (_summary(self._landmarks), _guide_warning(self._result, nodes), pairing_warning(*nodes))
                    )
                )
            except MMRegError as error:
                summary = str(error)
        self._ui.landmarkSummary.setText(summary)
        self._update_table()

    def _update_table(self) -> None:
        table = self._ui.landmarkTable
        table.setRowCount(len(self._landmarks))
        self._ui.largestErrorButton.setEnabled(bool(self._landmarks))
        for row, landmark in enumerate(self._landmarks):
            texts = (landmark.label, f"{landmark.before_mm:.2f}", f"{landmark.after_mm:.2f}")
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))

    def _jump_to(self, row: int) -> None:
        if row < len(self._landmarks):
            jump_to(self._landmarks[row], slicer.mrmlScene)


def _guide_warning(result: Result, nodes: list[Any]) -> str:
    guided = any(node in result.guiding_landmarks for node in nodes)
    return _("They guided the registration and do not validate it.") if guided else ""


def _summary(landmarks: tuple[LandmarkError, ...]) -> str:
    before_mm = np.mean([each.before_mm for each in landmarks])
    after_mm = np.mean([each.after_mm for each in landmarks])
    return _("{count} landmarks, mean TRE {before:.2f} mm before and {after:.2f} mm after registration.").format(
        count=len(landmarks), before=before_mm, after=after_mm
    )
