"""The part *Apply to* of the section *Result*: what else moves along with the MR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MMRegSlicerLib.companions import may_move, with_folder
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.undo import Undo


class ApplyView:
    """One button that puts what is chosen under the transform, or back.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    undo : Undo
    moved : callable
        Called after something was moved.
    """

    def __init__(self, ui: Any, undo: Undo, moved: Callable[[], None]) -> None:  # noqa: ANN401
        self._ui = ui
        self._undo = undo
        self._told_moved = moved
        self._result: Result | None = None
        ui.applySelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._refresh())
        ui.applyButton.connect("clicked()", self._apply)

    def show(self, result: Result | None) -> None:
        """Move things with another result."""
        self._result = result
        self._refresh()

    def _refresh(self) -> None:
        node: Node = self._ui.applySelector.currentNode()
        result = self._result
        self._ui.applyButton.setEnabled(result is not None and may_move(node, result))
        moved = result is not None and node in result.under
        self._ui.applyButton.setText(_("Put back") if moved else _("Put under the transform"))

    def _apply(self) -> None:
        if self._result is None:
            return
        node = self._ui.applySelector.currentNode()
        together = with_folder(node, self._result) if self._ui.applyFolderBox.checked else (node,)
        if node in self._result.under:
            self._undo.take(self._result, together)
        else:
            self._undo.apply(self._result, together)
        self._told_moved()
