"""Folders of the subject hierarchy, as the module Data shows them."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk

from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.request import Node


def add_to_folder(scene: Node, name: str, nodes: Sequence[Node]) -> None:
    """Move nodes into a new folder."""
    hierarchy = _hierarchy(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    for node in nodes:
        # The application has created items already; a bare scene has not.
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(folder, node)
        hierarchy.SetItemParent(item, folder)


def folder_name(node: Node) -> str:
    """The name of the folder of a node; the node's own name without a folder."""
    hierarchy = _hierarchy(node.GetScene())
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) if hierarchy else 0
    return str(hierarchy.GetItemName(folder) if folder else node.GetName())


def nodes_in_folder(node: Node) -> tuple[Node, ...]:
    """All nodes in the folder of a node and in its subfolders; the node alone when it is in no folder."""
    hierarchy = _hierarchy(node.GetScene())
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    # The top level of the scene is no folder.
    if not folder or folder == hierarchy.GetSceneItemID():
        return (node,)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder, items, True)
    nodes = (hierarchy.GetItemDataNode(items.GetId(index)) for index in range(items.GetNumberOfIds()))
    return tuple(each for each in nodes if each is not None)


def remove_with_folder(nodes: Sequence[Node]) -> None:
    """Remove nodes from the scene, then the folder of the last one if it is empty."""
    hierarchy = _hierarchy(nodes[-1].GetScene())
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(nodes[-1])) if hierarchy else 0
    for node in nodes:
        if hierarchy and hierarchy.GetItemByDataNode(node):
            hierarchy.RemoveItem(hierarchy.GetItemByDataNode(node), False, False)
        mrml_bridge.remove_node(node)
    is_scene = not folder or folder == hierarchy.GetSceneItemID()
    if not is_scene and not hierarchy.GetItemDataNode(folder) and not hierarchy.GetNumberOfItemChildren(folder):
        hierarchy.RemoveItem(folder)


def _hierarchy(scene: Node) -> Node:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
