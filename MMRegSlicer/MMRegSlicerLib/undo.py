"""Undo of Accept, Discard, Apply transform and Remove transform; needs no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from MMRegSlicerLib.mrml_bridge import attached_nodes
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import REFERENCES, Result, referenced_nodes
from MMRegSlicerLib.subject_hierarchy import add_to_folder, folder_name
from MMRegSlicerLib.translation import tr as _


@dataclass(frozen=True)
class _Command:
    text: str
    result: Result
    undo: Callable[[], None]


class UndoStack:
    """Modifies results and undoes it, the last command first. Discarded nodes are kept in memory until `clear`.

    Hardening cannot be undone and clears the stack.
    """

    def __init__(self) -> None:
        self._commands: list[_Command] = []

    @property
    def undo_text(self) -> str:
        """The name of the last command; '' when there is none."""
        return self._commands[-1].text if self._commands else ""

    @property
    def result(self) -> Result:
        """The result that the last command modified; there must be one."""
        return self._commands[-1].result

    def undo(self) -> None:
        """Undo the last command; there must be one."""
        self._commands.pop().undo()

    def clear(self) -> None:
        """Remove all commands."""
        self._commands = []

    def accept(self, result: Result, *, harden: bool = False) -> None:
        """As `Result.accept`."""
        result.accept(harden=harden)
        if harden:
            self.clear()
        else:
            self._push(_("Accept"), result, lambda: result.set_accepted(False))

    def apply_transform(self, result: Result, nodes: Sequence[Node]) -> None:
        """Apply the transform to those of the nodes that are not under it."""
        changed = [node for node in nodes if node not in result.transformed_nodes]
        for node in changed:
            result.apply_transform(node)
        self._push(_("Apply transform"), result, lambda: _for_each_in_scene(result.remove_transform, changed))

    def remove_transform(self, result: Result, nodes: Sequence[Node]) -> None:
        """Restore the original parent transform of those of the nodes that are under the transform."""
        changed = [node for node in nodes if node in result.transformed_nodes]
        for node in changed:
            result.remove_transform(node)
        self._push(_("Remove transform"), result, lambda: _for_each_in_scene(result.apply_transform, changed))

    def discard(self, result: Result) -> None:
        """As `Result.discard`."""
        snapshot = _Snapshot(result)
        result.discard()
        self._push(_("Discard"), result, snapshot.restore)

    def _push(self, text: str, result: Result, undo: Callable[[], None]) -> None:
        self._commands.append(_Command(text, result, undo))


class _Snapshot:
    """All nodes and references of a result, to restore them after it was discarded."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._scene = result.transform.GetScene()
        self._nodes = (*result.output_nodes, result.transform)
        self._attached = [each for node in self._nodes for each in attached_nodes(node)]
        self._references = {role: referenced_nodes(result.transform, role) for role in REFERENCES}
        self._transformed = tuple(node for node in result.transformed_nodes if node not in result.output_nodes)
        self._folder = folder_name(result.transform)

    def restore(self) -> None:
        """Add the nodes again. A node keeps its identifier, and so its references to other nodes."""
        for node in (*self._attached, *self._nodes):
            if node.GetScene() is None:  # colours that others share are still there
                self._scene.AddNode(node)
        transform = self._result.transform
        for role, nodes in self._references.items():
            transform.RemoveNodeReferenceIDs(role)
            for node in nodes:
                if node.GetScene() is not None:
                    transform.AddNodeReferenceID(role, node.GetID())
        add_to_folder(self._scene, self._folder, (transform, *self._result.output_nodes))
        _for_each_in_scene(self._result.apply_transform, self._transformed)


def _for_each_in_scene(action: Callable[[Node], None], nodes: Sequence[Node]) -> None:
    """Act on the nodes that are still in the scene."""
    for node in nodes:
        if node.GetScene() is not None:
            action(node)
