"""What belongs together with a node: the content of its folder in the subject hierarchy."""

from __future__ import annotations

import slicer
import vtk

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result


def may_move(node: Node, result: Result) -> bool:
    """Whether a node can be put under the transform: not the ultrasound, not what the registration made."""
    made = (result.transform, result.fixed, *result.made)
    return node is not None and node.IsA("vtkMRMLTransformableNode") and node not in made


def with_folder(node: Node, result: Result) -> tuple[Node, ...]:
    """The node, and everything that can move in its folder and the folders inside that.

    A transform in the folder is left alone: what lies under it is in the folder itself, or does not belong to it.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    # A node in no folder lies directly in the scene; the whole scene is nobody's folder.
    if not folder or folder == hierarchy.GetSceneItemID():
        return (node,)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder, items, True)
    found = [hierarchy.GetItemDataNode(items.GetId(index)) for index in range(items.GetNumberOfIds())]
    return tuple(each for each in found if may_move(each, result) and not each.IsA("vtkMRMLTransformNode"))
