"""What a person did to results, and the way back: of Accept, Discard and Apply to; needs no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import slicer

from MMRegSlicerLib.mrml_bridge import belongings
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import REFERENCES, Result, into_folder, references
from MMRegSlicerLib.translation import tr as _


@dataclass(frozen=True)
class _Step:
    title: str
    result: Result
    back: Callable[[], None]


class Undo:
    """Does what changes a result, and remembers how it was before. What was discarded is kept in memory until `forget`.

    Hardening cannot be taken back: it forgets everything that came before it.
    """

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    @property
    def title(self) -> str:
        """What would be taken back; '' when there is nothing."""
        return self._steps[-1].title if self._steps else ""

    @property
    def result(self) -> Result:
        """The result that the last step is about; there must be one."""
        return self._steps[-1].result

    def back(self) -> None:
        """Take the last step back; there must be one."""
        self._steps.pop().back()

    def forget(self) -> None:
        """Nothing can be taken back any more: the scene was closed."""
        self._steps = []

    def accept(self, result: Result, *, harden: bool = False) -> None:
        """As `Result.accept`."""
        result.accept(harden=harden)
        if harden:
            self.forget()
        else:
            self._note(_("Accept"), result, lambda: result.set_accepted(False))

    def apply(self, result: Result, nodes: Sequence[Node]) -> None:
        """Put nodes under the transform."""
        moved = [node for node in nodes if node not in result.under]
        for node in moved:
            result.apply_to(node)
        self._note(_("Put under the transform"), result, lambda: _each(result.take_from, moved))

    def take(self, result: Result, nodes: Sequence[Node]) -> None:
        """Put nodes back to where they were before."""
        moved = [node for node in nodes if node in result.under]
        for node in moved:
            result.take_from(node)
        self._note(_("Put back"), result, lambda: _each(result.apply_to, moved))

    def discard(self, result: Result) -> None:
        """As `Result.discard`."""
        removed = _Removed(result)
        result.discard()
        self._note(_("Discard"), result, removed.restore)

    def _note(self, title: str, result: Result, back: Callable[[], None]) -> None:
        self._steps.append(_Step(title, result, back))


class _Removed:
    """Everything of a result, so that it can be put into the scene again as it was."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._scene = result.transform.GetScene()
        self._nodes = (*result.made, result.transform)
        self._belongings = [each for node in self._nodes for each in belongings(node)]
        self._references = {role: references(result.transform, role) for role in REFERENCES}
        self._moved = tuple(node for node in result.under if node not in result.made)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)
        folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.transform)) if hierarchy else 0
        self._folder = str(hierarchy.GetItemName(folder)) if folder else str(result.transform.GetName())

    def restore(self) -> None:
        """Put it back. A node takes the identifier that it had, and its references to others with it."""
        for node in (*self._belongings, *self._nodes):
            self._scene.AddNode(node)
        transform = self._result.transform
        for role, nodes in self._references.items():
            transform.RemoveNodeReferenceIDs(role)
            for node in nodes:
                if node.GetScene() is not None:
                    transform.AddNodeReferenceID(role, node.GetID())
        into_folder(self._scene, self._folder, (transform, *self._result.made))
        _each(self._result.apply_to, self._moved)


def _each(action: Callable[[Node], None], nodes: Sequence[Node]) -> None:
    """Act on the nodes that are still in the scene."""
    for node in nodes:
        if node.GetScene() is not None:
            action(node)
