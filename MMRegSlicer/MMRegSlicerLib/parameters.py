"""Parameter sets: inputs, settings and last result, stored in the scene as vtkMRMLScriptedModuleNode."""

from __future__ import annotations

import json

from MMRegSlicerLib.mrml_bridge import nodes_of_class
from MMRegSlicerLib.request import Mask, Moving, Node, Request

_DEFAULTS = Request()
MODULE = "MMRegSlicer"
# Set on the selected one of several parameter nodes.
_CURRENT = "current"


def parameter_nodes(scene: Node) -> tuple[Node, ...]:
    """All parameter nodes of a scene."""
    nodes = nodes_of_class(scene, "vtkMRMLScriptedModuleNode")
    return tuple(node for node in nodes if node.GetAttribute("ModuleName") == MODULE)


def current_parameter_node(scene: Node) -> Node:
    """The parameter node that was selected last; created if the scene has none."""
    nodes = parameter_nodes(scene)
    if nodes:
        return next((node for node in nodes if node.GetParameter(_CURRENT)), nodes[0])
    # The selector looks at the attribute when the node is added.
    node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
    node.UnRegister(None)
    node.SetName(MODULE)
    node.SetAttribute("ModuleName", MODULE)
    node.SetHideFromEditors(True)
    return scene.AddNode(node)


def set_current_parameter_node(node: Node) -> None:
    """Store in the scene which parameter node is selected."""
    if node.GetScene() is None:  # the scene is being closed
        return
    for each in parameter_nodes(node.GetScene()):
        if each is not node:
            each.UnsetParameter(_CURRENT)
    node.SetHideFromEditors(True)
    if not node.GetParameter(_CURRENT):
        node.SetParameter(_CURRENT, "true")


def remove_unused_parameter_nodes(scene: Node) -> None:
    """Remove parameter nodes that were never written to, except the last one: a loaded scene brings its own."""
    nodes = parameter_nodes(scene)
    unused = [node for node in nodes if not node.GetParameterNamesAsCommaSeparatedList()]
    for node in unused if len(unused) < len(nodes) else unused[1:]:
        scene.RemoveNode(node)


class ParameterSet:
    """Typed access to a parameter node.

    Parameters
    ----------
    node : vtkMRMLScriptedModuleNode
        Input nodes are stored as node references: they follow a renaming, are restored with a saved scene, and become
        None when the node is deleted.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def request(self) -> Request:
        """The inputs and settings; setting them notifies observers of the node once."""
        node = self.node
        count = max(1, int(node.GetParameter("movingCount") or 1))
        return Request(
            fixed=node.GetNodeReference("fixed"),
            moving=tuple(
                Moving(node.GetNodeReference(f"moving{index}"), self._mask(f"movingMask{index}"))
                for index in range(count)
            ),
            fixed_mask=self._mask("fixedMask"),
            initial_transform=node.GetNodeReference("initialTransform"),
            preset=node.GetParameter("preset") or _DEFAULTS.preset,
            changes=self._changes(),
            device=node.GetParameter("device") or _DEFAULTS.device,
            name=node.GetParameter("name"),
            fixed_landmarks=node.GetNodeReference("fixedLandmarks"),
            moving_landmarks=node.GetNodeReference("movingLandmarks"),
            landmark_error_mm=node.GetParameter("landmarkErrorMm") or _DEFAULTS.landmark_error_mm,
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
        """The transform node of the last result."""
        return self.node.GetNodeReference("result")

    @result_transform.setter
    def result_transform(self, transform: Node | None) -> None:
        self._set_reference("result", transform)

    def _write(self, request: Request) -> None:
        previous_count = max(1, int(self.node.GetParameter("movingCount") or 1))
        self._set_reference("fixed", request.fixed)
        self._set_mask("fixedMask", request.fixed_mask)
        self._set_reference("initialTransform", request.initial_transform)
        self._set_reference("fixedLandmarks", request.fixed_landmarks)
        self._set_reference("movingLandmarks", request.moving_landmarks)
        for index, moving in enumerate(request.moving):
            self._set_reference(f"moving{index}", moving.node)
            self._set_mask(f"movingMask{index}", moving.mask)
        for index in range(len(request.moving), previous_count):
            self._set_reference(f"moving{index}", None)
            self._set_mask(f"movingMask{index}", None)
        values = {"preset": request.preset, "device": request.device, "name": request.name}
        values["landmarkErrorMm"] = request.landmark_error_mm
        values["movingCount"] = str(len(request.moving))
        values["changes"] = json.dumps(dict(request.changes), sort_keys=True)
        for name, value in values.items():
            self.node.SetParameter(name, value)

    def _set_reference(self, role: str, node: Node | None) -> None:
        self.node.SetNodeReferenceID(role, None if node is None else node.GetID())

    def _mask(self, role: str) -> Mask | None:
        node = self.node.GetNodeReference(role)
        return None if node is None else Mask(node, self.node.GetParameter(f"{role}Segment"))

    def _set_mask(self, role: str, mask: Mask | None) -> None:
        self._set_reference(role, mask.node if mask else None)
        self.node.SetParameter(f"{role}Segment", mask.segment_id if mask else "")

    def _changes(self) -> dict[str, str]:
        try:
            content = json.loads(self.node.GetParameter("changes") or "{}")
        except ValueError:
            return {}  # a scene that was edited by hand must still open
        return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
