"""What a registration left in the scene: shown, taken back, applied to more."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer

from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.map_style import MAP
from MMRegSlicerLib.request import Node, Request
from MMRegSlicerLib.translation import tr as _

# On the transform node: the nodes that were made, the MR, the ultrasound, the numbers.
_MADE, _MOVING, _FIXED, _NUMBERS, _ACCEPTED = (
    f"MMReg.{word}" for word in ("made", "moving", "fixed", "numbers", "accepted")
)
# The roles by which the transform refers to other nodes.
REFERENCES = (_MADE, _MOVING, _FIXED)
# On the transform node: what its references on other nodes are called by. Identifiers of nodes change when a scene is
# added to another one, this does not.
_KEY = "MMReg.key"


class Result:
    """A result, found through its transform node alone; so a saved scene brings it back.

    Parameters
    ----------
    transform : node
        As `add_result` made it.
    """

    def __init__(self, transform: Node) -> None:
        self.transform = transform

    @property
    def made(self) -> tuple[Node, ...]:
        """Everything that the registration made but the transform."""
        return references(self.transform, _MADE)

    @property
    def warped(self) -> tuple[Node, ...]:
        """The MR volumes on the grid of the ultrasound."""
        return tuple(node for node in self.made if node.GetAttribute("MMReg.kind") == "warped")

    @property
    def maps(self) -> tuple[Node, ...]:
        """Volumes that tell how far to believe the result."""
        return tuple(node for node in self.made if node.GetAttribute("MMReg.kind") == "map")

    @property
    def moving(self) -> tuple[Node, ...]:
        """The MR volumes that were registered."""
        return references(self.transform, _MOVING)

    @property
    def fixed(self) -> Node:
        """The ultrasound; None when it was deleted."""
        return self.transform.GetNodeReference(_FIXED)

    @property
    def numbers(self) -> dict[str, Any]:
        """The quality numbers of ``result.json``."""
        numbers: dict[str, Any] = json.loads(self.transform.GetAttribute(_NUMBERS) or "{}")
        return numbers

    @property
    def report(self) -> str:
        """The report as HTML; empty when there is none."""
        texts = [node for node in self.made if node.GetAttribute("MMReg.kind") == "report"]
        return str(texts[0].GetText()) if texts else ""

    @property
    def accepted(self) -> bool:
        """Whether a person accepted it."""
        return bool(self.transform.GetAttribute(_ACCEPTED) == "true")

    @property
    def under(self) -> tuple[Node, ...]:
        """Everything that lies directly under the transform."""
        scene, found = self.transform.GetScene(), []
        if scene is None:  # the transform was deleted
            return ()
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLTransformableNode")):
            node = scene.GetNthNodeByClass(index, "vtkMRMLTransformableNode")
            if node.GetTransformNodeID() == self.transform.GetID():
                found.append(node)
        return tuple(found)

    def apply_to(self, node: Node) -> None:
        """Put a node of the MR's space (segmentation, model, markups, fibres) under the transform.

        The transform contains the start, so it takes the place of the one that the node was under.
        """
        if node.GetTransformNodeID() == self.transform.GetID():
            return
        node.SetNodeReferenceID(self._before, node.GetTransformNodeID())
        node.SetAndObserveTransformNodeID(self.transform.GetID())

    def take_from(self, node: Node) -> None:
        """Put a node back to where it was before `apply_to`."""
        before = node.GetNodeReference(self._before)
        node.SetAndObserveTransformNodeID(None if before is None else before.GetID())
        node.RemoveNodeReferenceIDs(self._before)

    def show(self, *, after: bool) -> None:
        """Show the MR where the registration puts it, or where it was before."""
        for node in self.moving:
            if after:
                self.apply_to(node)
            elif node in self.under:
                self.take_from(node)

    @property
    def parent_before(self) -> Node:
        """The transform that the MR was under before; None when there was none."""
        node = self.moving[0]
        return node.GetNodeReference(self._before) if node in self.under else node.GetParentTransformNode()

    @property
    def is_shown_after(self) -> bool:
        """Whether the MR lies where the registration puts it."""
        return any(node in self.under for node in self.moving)

    def set_accepted(self, accepted: bool) -> None:
        """Note what a person decided; see `accept`."""
        self.transform.SetAttribute(_ACCEPTED, "true" if accepted else None)

    def accept(self, *, harden: bool = False) -> None:
        """Keep it.

        Parameters
        ----------
        harden : bool
            Write the movement into everything that lies under the transform, the transforms above the ultrasound
            included, as Slicer hardens; these nodes stay where they are and cannot be taken back.
        """
        self.set_accepted(True)
        for node in self.under if harden else ():
            node.HardenTransform()
            node.RemoveNodeReferenceIDs(self._before)

    def discard(self) -> None:
        """Remove exactly what the registration made; everything under the transform goes back to where it was."""
        for node in self.under:
            if node not in self.made:
                self.take_from(node)
        scene = self.transform.GetScene()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(self.transform)) if hierarchy else 0
        for node in (*self.made, self.transform):
            if hierarchy and hierarchy.GetItemByDataNode(node):
                hierarchy.RemoveItem(hierarchy.GetItemByDataNode(node), False, False)
            mrml_bridge.remove(node)
        if folder and not hierarchy.GetItemDataNode(folder) and not hierarchy.GetNumberOfItemChildren(folder):
            hierarchy.RemoveItem(folder)

    @property
    def _before(self) -> str:
        """The role by which a node under the transform refers to what it was under before."""
        return f"MMReg.before.{self.transform.GetAttribute(_KEY)}"


def results_in(scene: Node) -> tuple[Result, ...]:
    """Every result of a scene, the oldest first: of several ultrasound volumes, or of several tries."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLTransformNode")
    nodes = (scene.GetNthNodeByClass(index, "vtkMRMLTransformNode") for index in range(count))
    return tuple(Result(node) for node in nodes if node.GetAttribute(_KEY))


def add_result(folder: Path, request: Request) -> Result:
    """Load what the registration wrote into one folder of the subject hierarchy, and put the MR under the transform.

    Parameters
    ----------
    folder : Path
        ``transform.h5`` and what else there is: ``warped_*.nii.gz``, other volumes (quality maps), ``result.json``,
        ``report.html``.
    request : Request
        What was registered; its nodes must still be in the scene.

    Raises
    ------
    InputError
        When a file cannot be read; the scene is then as before.
    """
    scene = request.fixed.GetScene()
    transform = mrml_bridge.read_transform(folder / "transform.h5", scene, request.result_name)
    name = str(transform.GetName())
    transform.SetAttribute(_KEY, uuid.uuid4().hex)
    result = Result(transform)
    try:
        for path in sorted(folder.glob("*.nii.gz")):
            _add_volume(path, result, request)
        for path, kind, title in (
            (folder / "report.html", "report", _("report (HTML)")),
            (folder / "result.json", "provenance", _("provenance (JSON)")),
        ):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                _keep(mrml_bridge.add_text(text, scene, f"{name}: {title}"), kind, transform)
        transform.SetAttribute(_NUMBERS, _numbers(folder / "result.json"))
        # Everything was found in the ultrasound's own space: what moves the ultrasound moves the result.
        for node in (transform, *result.warped, *result.maps):
            node.SetAndObserveTransformNodeID(request.fixed.GetTransformNodeID())
        transform.SetNodeReferenceID(_FIXED, request.fixed.GetID())
        for node in request.moving_nodes:
            transform.AddNodeReferenceID(_MOVING, node.GetID())
        into_folder(scene, name, [transform, *result.made])
        result.show(after=True)
    except BaseException:
        result.discard()
        raise
    return result


def _add_volume(path: Path, result: Result, request: Request) -> None:
    stem = path.name.removesuffix(".nii.gz")
    warped = stem.startswith("warped_")
    title = f"{stem.removeprefix('warped_')} {_('registered')}" if warped else stem.replace("_", " ")
    node = mrml_bridge.read_volume(path, request.fixed.GetScene(), f"{result.transform.GetName()}: {title}")
    _keep(node, "warped" if warped else "map", result.transform)
    if not warped:
        node.SetAttribute(MAP, stem)


def _keep(node: Node, kind: str, transform: Node) -> None:
    node.SetAttribute("MMReg.kind", kind)
    transform.AddNodeReferenceID(_MADE, node.GetID())


def _numbers(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return json.dumps(content.get("qa", {}))


def into_folder(scene: Node, name: str, nodes: Sequence[Node]) -> None:
    """Put nodes into a new folder of the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    for node in nodes:
        # The application has made items already; a bare scene has not.
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(folder, node)
        hierarchy.SetItemParent(item, folder)


def references(node: Node, role: str) -> tuple[Node, ...]:
    """The nodes that a node refers to by a role, those that are in the scene."""
    nodes = (node.GetNthNodeReference(role, index) for index in range(node.GetNumberOfNodeReferences(role)))
    return tuple(each for each in nodes if each is not None)
