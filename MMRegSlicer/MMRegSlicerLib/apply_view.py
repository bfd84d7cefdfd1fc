"""The controls *Apply to* of the section *Result*: other nodes under the registration transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.subject_hierarchy import nodes_in_folder
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.undo import UndoStack


class ApplyView:
    """Applies the registration transform to the selected node, or removes it again.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    undo_stack : UndoStack
    on_applied : callable
        Called after a transform was applied or removed.
    """

    def __init__(self, ui: Any, undo_stack: UndoStack, on_applied: Callable[[], None]) -> None:  # noqa: ANN401
        self._ui = ui
        self._undo_stack = undo_stack
        self._on_applied = on_applied
        self._result: Result | None = None
        ui.applySelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._update())
        ui.applyButton.connect("clicked()", self._on_apply_clicked)

    def show(self, result: Result | None) -> None:
        """Use the transform of a result."""
        self._result = result
        self._update()

    def _update(self) -> None:
        node: Node = self._ui.applySelector.currentNode()
        result = self._result
        self._ui.applyButton.setEnabled(result is not None and result.can_transform(node))
        is_applied = result is not None and node in result.transformed_nodes
        self._ui.applyButton.setText(_("Remove transform") if is_applied else _("Apply transform"))

    def _on_apply_clicked(self) -> None:
        if self._result is None:
            return
        node = self._ui.applySelector.currentNode()
        nodes = self._with_folder(node, self._result) if self._ui.applyFolderCheckBox.checked else (node,)
        if node in self._result.transformed_nodes:
            self._undo_stack.remove_transform(self._result, nodes)
        else:
            self._undo_stack.apply_transform(self._result, nodes)
        self._on_applied()

    @staticmethod
    def _with_folder(node: Node, result: Result) -> tuple[Node, ...]:
        """The node and all others in its folder that can be transformed, other transforms excepted."""
        nodes = (each for each in nodes_in_folder(node) if not each.IsA("vtkMRMLTransformNode"))
        return tuple(each for each in nodes if result.can_transform(each))
