"""The table of landmarks: error before and after, worst first; a click goes there."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer

from MMRegCore.errors import MMRegError
from MMRegSlicerLib.landmarks import Landmark, go_to, measure
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _


class LandmarkView:
    """Measures when two lists are chosen.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    """

    def __init__(self, ui: Any) -> None:  # noqa: ANN401
        self._ui = ui
        self._result: Result | None = None
        self._landmarks: tuple[Landmark, ...] = ()
        titles = [_("Landmark"), _("Before (mm)"), _("After (mm)")]
        ui.landmarkTable.setColumnCount(len(titles))
        ui.landmarkTable.setHorizontalHeaderLabels(titles)
        ui.landmarkTable.connect("cellClicked(int,int)", lambda row, _column: self._go_to(row))
        for selector in (ui.fixedLandmarksSelector, ui.movingLandmarksSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._measure())
        ui.measureButton.connect("clicked()", self._measure)
        ui.worstButton.connect("clicked()", lambda: self._go_to(0))  # the worst stands first

    def show(self, result: Result | None) -> None:
        """Measure with another result; with None the table is empty."""
        self._result = result
        self._measure()

    def _measure(self) -> None:
        chosen = [self._ui.fixedLandmarksSelector.currentNode(), self._ui.movingLandmarksSelector.currentNode()]
        self._landmarks, summary = (), _("Choose the landmarks in the ultrasound and in the MR.")
        if self._result is not None and self._result.moving and None not in chosen:
            try:
                self._landmarks = measure(self._result, *chosen)
                summary = _summary(self._landmarks)
            except MMRegError as error:
                summary = str(error)
        self._ui.landmarkSummary.setText(summary)
        self._fill()

    def _fill(self) -> None:
        table = self._ui.landmarkTable
        table.setRowCount(len(self._landmarks))
        self._ui.worstButton.setEnabled(bool(self._landmarks))
        for row, landmark in enumerate(self._landmarks):
            texts = (landmark.label, f"{landmark.before_mm:.2f}", f"{landmark.after_mm:.2f}")
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))

    def _go_to(self, row: int) -> None:
        if row < len(self._landmarks):
            go_to(self._landmarks[row], slicer.mrmlScene)


def _summary(landmarks: tuple[Landmark, ...]) -> str:
    before = np.mean([each.before_mm for each in landmarks])
    after = np.mean([each.after_mm for each in landmarks])
    return _("{count} landmarks: {before:.2f} mm before, {after:.2f} mm after on average.").format(
        count=len(landmarks), before=before, after=after
    )
