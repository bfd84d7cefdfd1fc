"""The result of a registration in the scene: displayed, applied to other nodes, accepted, discarded."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MMRegCore.assessment.quality import Quality, Verdict, read_quality
from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.map_style import set_map_style
from MMRegSlicerLib.request import Node, Request
from MMRegSlicerLib.subject_hierarchy import add_to_folder, remove_with_folder
from MMRegSlicerLib.translation import tr as _

# Reference roles and attributes of the transform node.
_OUTPUT, _MOVING, _FIXED, _ACCEPTED = (f"MMReg.{word}" for word in ("output", "moving", "fixed", "accepted"))
# The nodes that lie where they are for good: this or another result of the same MR was hardened on them.
_HARDENED = "MMReg.hardened"
# The point lists that guided the registration: ultrasound, then MR.
_GUIDE = "MMReg.guide"
REFERENCES = (_OUTPUT, _MOVING, _FIXED, _HARDENED, _GUIDE)
# Attribute of the transform node: part of the name of its references on other nodes. Identifiers of nodes change when a
# scene is added to another one, this does not.
_KEY = "MMReg.key"
# Attribute of the transform node while the quality is still being measured: the verdict as JSON.
_PRELIMINARY = "MMReg.preliminary"
# Attribute of an output node.
_KIND = "MMReg.kind"


class Result:
    """A result; everything is stored in its transform node, so that a saved scene restores it.

    Parameters
    ----------
    transform : node
        As `add_result` made it.
    """

    def __init__(self, transform: Node) -> None:
        self.transform = transform

    @property
    def output_nodes(self) -> tuple[Node, ...]:
        """All nodes that the registration created, except the transform."""
        return referenced_nodes(self.transform, _OUTPUT)

    @property
    def warped(self) -> tuple[Node, ...]:
        """The MR volumes resampled on the grid of the ultrasound."""
        return self._outputs_of_kind("warped")

    @property
    def maps(self) -> tuple[Node, ...]:
        """The quality maps."""
        return self._outputs_of_kind("map")

    @property
    def moving(self) -> tuple[Node, ...]:
        """The MR volumes that were registered."""
        return referenced_nodes(self.transform, _MOVING)

    @property
    def fixed(self) -> Node:
        """The ultrasound; None when it was deleted."""
        return self.transform.GetNodeReference(_FIXED)

    @property
    def guiding_landmarks(self) -> tuple[Node, ...]:
        """The point lists that guided the registration, ultrasound and MR; empty where none did."""
        return referenced_nodes(self.transform, _GUIDE)

    @property
    def quality(self) -> Quality | None:
        """The quality numbers and the verdict of ``result.json``; None when there is none.

        Raises
        ------
        InputError
            When it is of another schema version.
        """
        text = self._text("result")
        return read_quality(text) if text else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the readers of the images could not be sure of, each after the name of its image."""
        text = self._text("result")
        content = json.loads(text) if text else {}
        provenance = content.get("provenance", {}) if isinstance(content, dict) else {}
        # The ultrasound's file was named by us.
        images = [{**provenance.get("fixed", {}), "name": _("Ultrasound")}, *provenance.get("moving", [])]
        read = [image for image in images if image.get("reading")]
        return tuple(f"{image['name']}: {warning}" for image in read for warning in image["reading"]["warnings"])

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, which comes before the other numbers; None when there is none.

        Raises
        ------
        InputError
            As `quality`.
        """
        if self.is_preliminary:
            return Verdict(**json.loads(self.transform.GetAttribute(_PRELIMINARY)))
        return None if self.quality is None else self.quality.verdict

    @property
    def is_preliminary(self) -> bool:
        """Whether there are transform and verdict only, while the quality is still being measured."""
        return self.transform.GetAttribute(_PRELIMINARY) is not None

    @property
    def is_deleted(self) -> bool:
        """Whether its transform is no longer in the scene."""
        return self.transform.GetScene() is None

    @property
    def report(self) -> str:
        """The report as HTML; empty when there is none."""
        return self._text("report")

    @property
    def accepted(self) -> bool:
        """Whether a user accepted it."""
        return bool(self.transform.GetAttribute(_ACCEPTED) == "true")

    @property
    def transformed_nodes(self) -> tuple[Node, ...]:
        """All nodes whose parent is the transform."""
        scene = self.transform.GetScene()  # None after the transform was deleted
        nodes = [] if scene is None else mrml_bridge.nodes_of_class(scene, "vtkMRMLTransformableNode")
        return tuple(node for node in nodes if node.GetTransformNodeID() == self.transform.GetID())

    def can_transform(self, node: Node) -> bool:
        """Whether the transform can be applied to a node: not to the ultrasound, nor to outputs of the registration."""
        excluded = (self.transform, self.fixed, *self.output_nodes, *self.hardened_nodes)
        return node is not None and node.IsA("vtkMRMLTransformableNode") and node not in excluded

    def apply_transform(self, node: Node) -> None:
        """Make the transform the parent of a node in the MR's space (segmentation, model, markups, fibre bundle).

        The transform includes the initial transform, so it replaces the node's original parent. A hardened node is left
        as it is: it would be moved a second time.
        """
        if node.GetTransformNodeID() == self.transform.GetID() or node in self.hardened_nodes:
            return
        node.SetNodeReferenceID(self._parent_role, node.GetTransformNodeID())
        node.SetAndObserveTransformNodeID(self.transform.GetID())

    def remove_transform(self, node: Node) -> None:
        """Restore the original parent transform of a node."""
        parent = node.GetNodeReference(self._parent_role)
        node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
        node.RemoveNodeReferenceIDs(self._parent_role)

    def show(self, *, after: bool) -> None:
        """Show the MR, and the landmarks in it that guided the registration, after or before the registration."""
        # Landmarks go with the MR as long as they have the same parent.
        parent = self.moving[0].GetTransformNodeID() if self.moving else None
        guide = [node for node in self.guiding_landmarks[1:] if node.GetTransformNodeID() == parent]
        for node in (*self.moving, *guide):
            if after:
                self.apply_transform(node)
            elif node in self.transformed_nodes:
                self.remove_transform(node)

    @property
    def is_shown_after(self) -> bool:
        """Whether the MR is at its position after the registration."""
        return any(node in (*self.transformed_nodes, *self.hardened_nodes) for node in self.moving)

    @property
    def can_be_shown_before(self) -> bool:
        """Whether the MR can still go back to its position before the registration."""
        return not any(node in self.hardened_nodes for node in self.moving)

    @property
    def hardened_nodes(self) -> tuple[Node, ...]:
        """All nodes on which this result, or another one that would move them too, was hardened."""
        return referenced_nodes(self.transform, _HARDENED)

    @property
    def original_parent_transform(self) -> Node:
        """The parent transform of the MR before the registration; None when there was none."""
        node = self.moving[0]
        is_after = node in self.transformed_nodes
        return node.GetNodeReference(self._parent_role) if is_after else node.GetParentTransformNode()

    def set_accepted(self, accepted: bool) -> None:
        """Store whether a user accepted it; see `accept`."""
        self.transform.SetAttribute(_ACCEPTED, "true" if accepted else None)

    def accept(self, *, harden: bool = False) -> None:
        """Mark it as accepted.

        Parameters
        ----------
        harden : bool
            Harden all transformed nodes, with the parent transforms of the ultrasound. This cannot be undone.
        """
        self.set_accepted(True)
        for node in self.transformed_nodes if harden else ():
            node.HardenTransform()
            node.RemoveNodeReferenceIDs(self._parent_role)
            for each in results_in(self.transform.GetScene()):
                if each.transform is self.transform or node in each.moving:
                    each.transform.AddNodeReferenceID(_HARDENED, node.GetID())

    def discard(self) -> None:
        """Remove exactly what the registration created; restore the parents of all transformed nodes."""
        for node in self.transformed_nodes:
            if node not in self.output_nodes:
                self.remove_transform(node)
        remove_with_folder((*self.output_nodes, self.transform))

    @property
    def _parent_role(self) -> str:
        """The role by which a transformed node refers to its original parent."""
        return f"MMReg.parent.{self.transform.GetAttribute(_KEY)}"

    def _text(self, kind: str) -> str:
        nodes = self._outputs_of_kind(kind)
        return str(nodes[0].GetText()) if nodes else ""

    def _outputs_of_kind(self, kind: str) -> tuple[Node, ...]:
        return tuple(node for node in self.output_nodes if node.GetAttribute(_KIND) == kind)


def results_in(scene: Node) -> tuple[Result, ...]:
    """All results of a scene, the oldest first."""
    nodes = mrml_bridge.nodes_of_class(scene, "vtkMRMLTransformNode")
    return tuple(Result(node) for node in nodes if node.GetAttribute(_KEY))


def add_result(folder: Path, request: Request) -> Result:
    """Load the output files into one folder of the subject hierarchy, and apply the transform to the MR.

    Parameters
    ----------
    folder : Path
        ``transform.h5``, and what `add_outputs` loads.
    request : Request
        Its nodes must still be in the scene.

    Raises
    ------
    InputError
        When a file cannot be read, or ``result.json`` is of another schema version; the scene is then not changed.
    """
    return add_outputs(folder, add_transform(folder / "transform.h5", request))


def add_transform(file: Path, request: Request, verdict: Mapping[str, Any] | None = None) -> Result:
    """Load a transform and apply it to the MR; `add_outputs` loads the rest of the result.

    Parameters
    ----------
    file : Path
    request : Request
        Its nodes must still be in the scene.
    verdict : mapping, optional
        The fields of a `Verdict`, where the quality is still being measured.

    Raises
    ------
    InputError
        When the file cannot be read; the scene is then not changed.
    """
    transform = mrml_bridge.read_transform(file, request.fixed.GetScene(), request.result_name)
    transform.SetAttribute(_KEY, uuid.uuid4().hex)
    transform.SetAttribute(_PRELIMINARY, None if verdict is None else json.dumps(verdict))
    result = Result(transform)
    try:
        # The result is in the ultrasound's own space: its parent transform applies to the result too.
        transform.SetAndObserveTransformNodeID(request.fixed.GetTransformNodeID())
        transform.SetNodeReferenceID(_FIXED, request.fixed.GetID())
        for node in request.moving_nodes:
            transform.AddNodeReferenceID(_MOVING, node.GetID())
        for node in (request.fixed_landmarks, request.moving_landmarks):
            if node is not None:
                transform.AddNodeReferenceID(_GUIDE, node.GetID())
        result.show(after=True)
    except BaseException:
        result.discard()
        raise
    return result


def add_outputs(folder: Path, result: Result) -> Result:
    """Load everything but the transform, and make the result a finished one.

    Parameters
    ----------
    folder : Path
        If there are any: ``warped_*.nii.gz``, ``report.html``, and ``result.json`` with the quality maps that it lists.
    result : Result
        As `add_transform` made it.

    Raises
    ------
    InputError
        As `add_result`; the result is then discarded.
    """
    transform = result.transform
    try:
        transform.RemoveAttribute(_PRELIMINARY)
        _add_outputs(folder, result)
        for node in (*result.warped, *result.maps):
            node.SetAndObserveTransformNodeID(transform.GetTransformNodeID())
        add_to_folder(transform.GetScene(), str(transform.GetName()), [transform, *result.output_nodes])
        result.show(after=True)
    except BaseException:
        result.discard()
        raise
    return result


def _add_outputs(folder: Path, result: Result) -> None:
    scene, name = result.transform.GetScene(), result.transform.GetName()

    def add(node: Node, kind: str) -> Node:
        node.SetAttribute(_KIND, kind)
        result.transform.AddNodeReferenceID(_OUTPUT, node.GetID())
        return node

    for title, path in _warped_files(folder, result.moving):
        add(mrml_bridge.read_volume(path, scene, f"{name}: {title} {_('registered')}"), "warped")
    for file, kind, title in (
        ("report.html", "report", _("report (HTML)")),
        ("result.json", "result", _("result (JSON)")),
    ):
        if (folder / file).is_file():
            text = (folder / file).read_text(encoding="utf-8")
            add(mrml_bridge.add_text(text, scene, f"{name}: {title}"), kind)
    quality = result.quality
    for summary in quality.maps if quality is not None else ():
        node = mrml_bridge.read_volume(folder / summary.file, scene, f"{name}: {summary.title}")
        set_map_style(add(node, "map"), summary)


def _warped_files(folder: Path, moving: tuple[Node, ...]) -> list[tuple[str, Path]]:
    """Titles and files of the registered MR, in the order of the MR volumes: the first is the one that is compared."""
    files = {path.name.removeprefix("warped_").removesuffix(".nii.gz"): path for path in folder.glob("warped_*.nii.gz")}
    order = [mrml_bridge.file_name(node.GetName()) for node in moving]
    return sorted(files.items(), key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]))


def referenced_nodes(node: Node, role: str) -> tuple[Node, ...]:
    """The nodes of the scene that a node refers to by a role."""
    nodes = (node.GetNthNodeReference(role, index) for index in range(node.GetNumberOfNodeReferences(role)))
    return tuple(each for each in nodes if each is not None)
