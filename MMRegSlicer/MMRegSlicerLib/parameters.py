"""The form, kept in the scene: typed access to a vtkMRMLScriptedModuleNode."""

from __future__ import annotations

import json

from MMRegSlicerLib.request import Mask, Moving, Node, Request

_DEFAULTS = Request()
MODULE = "MMRegSlicer"
# Of several forms in one scene, the one that is seen.
_CURRENT = "current"


def parameter_nodes(scene: Node) -> tuple[Node, ...]:
    """Every form that a scene holds."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")
    nodes = (scene.GetNthNodeByClass(index, "vtkMRMLScriptedModuleNode") for index in range(count))
    return tuple(node for node in nodes if node.GetAttribute("ModuleName") == MODULE)


def parameter_node(scene: Node) -> Node:
    """The form of a scene that was worked with last; made where there is none."""
    nodes = parameter_nodes(scene)
    if nodes:
        return next((node for node in nodes if node.GetParameter(_CURRENT)), nodes[0])
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", MODULE)
    node.SetAttribute("ModuleName", MODULE)
    node.SetHideFromEditors(True)
    return node


def remove_unused(scene: Node) -> None:
    """Remove the form that was made for an empty scene, and never written to, when a loaded scene brought others."""
    nodes = parameter_nodes(scene)
    unused = [node for node in nodes if not node.GetParameterNamesAsCommaSeparatedList()]
    for node in unused if len(unused) < len(nodes) else unused[1:]:
        scene.RemoveNode(node)


def make_current(node: Node) -> None:
    """Note, in the scene, which of its forms is worked with."""
    if node.GetScene() is None:  # the scene is being closed
        return
    for each in parameter_nodes(node.GetScene()):
        if each is not node:
            each.UnsetParameter(_CURRENT)
    node.SetHideFromEditors(True)
    if not node.GetParameter(_CURRENT):
        node.SetParameter(_CURRENT, "true")


class Parameters:
    """A `Request` that is saved and loaded with the scene.

    Parameters
    ----------
    node : vtkMRMLScriptedModuleNode
        Several nodes are several forms. Nodes of the scene are kept as references, so they follow a renaming, are
        found again in a loaded scene, and are gone when the node is deleted.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def request(self) -> Request:
        """What the form holds; setting it tells observers of the node once."""
        node = self.node
        count = max(1, int(node.GetParameter("movingCount") or 1))
        return Request(
            fixed=node.GetNodeReference("fixed"),
            moving=tuple(
                Moving(node.GetNodeReference(f"moving{index}"), self._mask(f"movingMask{index}"))
                for index in range(count)
            ),
            fixed_mask=self._mask("fixedMask"),
            start=node.GetNodeReference("start"),
            preset=node.GetParameter("preset") or _DEFAULTS.preset,
            changes=self._changes(),
            device=node.GetParameter("device") or _DEFAULTS.device,
            name=node.GetParameter("name"),
        )

    @request.setter
    def request(self, request: Request) -> None:
        was_modifying = self.node.StartModify()
        try:
            self._write(request)
        finally:
            self.node.EndModify(was_modifying)

    @property
    def result_transform(self) -> Node | None:
        """The transform node of the last result, by which the rest of it is found."""
        return self.node.GetNodeReference("result")

    @result_transform.setter
    def result_transform(self, transform: Node | None) -> None:
        self._refer("result", transform)

    def _write(self, request: Request) -> None:
        before = max(1, int(self.node.GetParameter("movingCount") or 1))
        self._refer("fixed", request.fixed)
        self._set_mask("fixedMask", request.fixed_mask)
        self._refer("start", request.start)
        for index, moving in enumerate(request.moving):
            self._refer(f"moving{index}", moving.node)
            self._set_mask(f"movingMask{index}", moving.mask)
        for index in range(len(request.moving), before):
            self._refer(f"moving{index}", None)
            self._set_mask(f"movingMask{index}", None)
        values = {"preset": request.preset, "device": request.device, "name": request.name}
        values["movingCount"] = str(len(request.moving))
        values["changes"] = json.dumps(dict(request.changes), sort_keys=True)
        for name, value in values.items():
            self.node.SetParameter(name, value)

    def _refer(self, role: str, node: Node | None) -> None:
        self.node.SetNodeReferenceID(role, None if node is None else node.GetID())

    def _mask(self, role: str) -> Mask | None:
        node = self.node.GetNodeReference(role)
        return None if node is None else Mask(node, self.node.GetParameter(f"{role}Segment"))

    def _set_mask(self, role: str, mask: Mask | None) -> None:
        self._refer(role, mask.node if mask else None)
        self.node.SetParameter(f"{role}Segment", mask.segment_id if mask else "")

    def _changes(self) -> dict[str, str]:
        try:
            content = json.loads(self.node.GetParameter("changes") or "{}")
        except ValueError:
            return {}  # a scene that somebody edited by hand must still open
        return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
