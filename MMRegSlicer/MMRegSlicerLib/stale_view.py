"""Tells that the images changed since the shown result, while another module keeps them up to date."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from MMRegSlicerLib.result import Result
from MMRegSlicerLib.staleness import changed_inputs
from MMRegSlicerLib.translation import tr as _

# An image that changes all the time is looked at no oftener.
_DELAY_MS = 500


class StaleView(VTKObservationMixin):  # type: ignore[misc]
    """Fills and shows the label below the verdict.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    """

    def __init__(self, ui: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._ui = ui
        self._result: Result | None = None
        self._is_pending = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.connect("timeout()", self._update)

    def show(self, result: Result | None) -> None:
        """Watch the images of a result; None stops."""
        self.removeObservers()
        self._timer.stop()
        self._result = result
        images = () if result is None else (result.fixed, *result.moving)
        for node in images:
            # Scripts announce new voxels by the former, other modules by the latter.
            for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent):
                if node is not None:
                    self.addObserver(node, event, self._on_changed)
        self._update()

    def _on_changed(self, _caller: object, _event: str) -> None:
        # Not started again: an image that changes all the time would never be looked at.
        if not self._is_pending:
            self._is_pending = True
            self._timer.start()

    def _update(self) -> None:
        self._is_pending = False
        is_there = self._result is not None and not self._result.is_deleted
        names = changed_inputs(self._result) if self._result is not None and is_there else ()
        text = _("{names} changed since this result. Register again.").format(names=", ".join(names))
        self._ui.staleLabel.setText(text if names else "")
        self._ui.staleLabel.setVisible(bool(names))
