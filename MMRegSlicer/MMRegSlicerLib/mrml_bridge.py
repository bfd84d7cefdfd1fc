"""Nodes to files and back. Nodes that are written are not modified, not even their file names."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk

from MMRegCore.errors import InputError
from MMRegSlicerLib.map_style import COLOURS
from MMRegSlicerLib.request import Mask, Node


def write_volume(node: Node, path: Path) -> None:
    """Write a volume node in its own space: parent transforms are left out.

    Raises
    ------
    InputError
        When Slicer cannot write it.
    """
    # A storage node of no scene and no volume: the volume keeps its own file name.
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetUseCompression(0)
    _write(storage, node, path)


def write_mask(mask: Mask, image: Node, path: Path) -> None:
    """Write a mask; a segment is resampled on the grid of its image.

    Raises
    ------
    InputError
        When the segment cannot be exported to a label map, or the file cannot be written.
    """
    if not mask.is_segment:
        write_volume(mask.node, path)
        return
    scene = image.GetScene()
    label_map = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "MMReg mask")
    try:
        identifiers = vtk.vtkStringArray()
        identifiers.InsertNextValue(mask.segment_id)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if not logic.ExportSegmentsToLabelmapNode(mask.node, identifiers, label_map, image):
            raise InputError(f"expected a segment that can be exported to a label map; got {mask.node.GetName()}")
        write_volume(label_map, path)
    finally:
        display = label_map.GetDisplayNode()
        colours = display and display.GetColorNode()
        remove_node(label_map)
        # Only the colour table that the export created for this label map, not one of Slicer's own.
        if colours and not colours.GetHideFromEditors():
            remove_node(colours)


def write_initial_transform(fixed: Node, initial: Node | None, path: Path) -> bool:
    """Write the transform from the ultrasound's own space to that of the MR, all parent transforms included.

    Parameters
    ----------
    fixed : node
        The ultrasound, with all transforms above it.
    initial : node or None
        The parent transform of the MR, with all transforms above that.
    path : Path
        ITK's format, from fixed to moving.

    Returns
    -------
    bool
        False, and no file, when both have the same parent transform.

    Raises
    ------
    InputError
        When Slicer cannot write the transform.
    """
    parent = fixed.GetParentTransformNode()
    if parent is initial:
        return False
    moving_from_fixed = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, initial, moving_from_fixed)
    node = slicer.vtkMRMLTransformNode()
    linear = vtk.vtkTransform()
    if slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(moving_from_fixed, linear):
        node.SetMatrixTransformFromParent(linear.GetMatrix())
    else:
        node.SetAndObserveTransformFromParent(moving_from_fixed)
    _write(slicer.vtkMRMLTransformStorageNode(), node, path)
    return True


def read_transform(path: Path, scene: Node, name: str) -> Node:
    """Read an ITK transform into a new node as *from parent*: nodes under it move from MR to ultrasound.

    Raises
    ------
    InputError
        When Slicer cannot read it; the scene is not changed.
    """
    loaded = slicer.vtkMRMLTransformNode()
    _read(slicer.vtkMRMLTransformStorageNode(), loaded, path)
    kind = "vtkMRMLLinearTransformNode" if loaded.IsLinear() else "vtkMRMLTransformNode"
    node = scene.AddNewNodeByClass(kind, unique_name(scene, name))
    if loaded.IsLinear():
        matrix = vtk.vtkMatrix4x4()
        loaded.GetMatrixTransformFromParent(matrix)
        node.SetMatrixTransformFromParent(matrix)
    else:
        transform = loaded.GetTransformFromParent()
        # Up to date before anybody observes it: a transform that tells of its update within the update, to slice views
        # that then ask for it, waits for itself for ever.
        transform.Update()
        transform.GetInverse().Update()
        node.SetAndObserveTransformFromParent(transform)
    return node


def read_volume(path: Path, scene: Node, name: str) -> Node:
    """Read a volume into a new node without a storage node.

    Raises
    ------
    InputError
        When Slicer cannot read it; the scene is not changed.
    """
    node = slicer.vtkMRMLScalarVolumeNode()
    _read(slicer.vtkMRMLVolumeArchetypeStorageNode(), node, path)
    node.SetName(unique_name(scene, name))
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    return node


def read_points(path: Path, scene: Node, name: str) -> Node:
    """Read a point list (``.mrk.json``) into a new node without a storage node.

    Raises
    ------
    InputError
        When Slicer cannot read it; the scene is not changed.
    """
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", unique_name(scene, name))
    try:
        _read(slicer.vtkMRMLMarkupsJsonStorageNode(), node, path)
    except InputError:
        remove_node(node)
        raise
    node.CreateDefaultDisplayNodes()
    return node


def add_text(text: str, scene: Node, name: str) -> Node:
    """Add a text node."""
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", unique_name(scene, name))
    node.SetText(text)
    return node


def unique_name(scene: Node, name: str) -> str:
    """The name, with a number if a node has it already; unlike Slicer's own, removed nodes do not count."""
    number, candidate = 1, name
    while scene.GetFirstNodeByName(candidate) is not None:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def nodes_of_class(scene: Node, name: str) -> list[Node]:
    """All nodes of a class and of those derived from it, the oldest first."""
    return [scene.GetNthNodeByClass(index, name) for index in range(scene.GetNumberOfNodesByClass(name))]


def attached_nodes(node: Node) -> list[Node]:
    """The colour, storage and display nodes of a node, in the order in which they can be added to a scene.

    Of the colours only those that were made for maps, which share them, or by Slicer for a transform.
    """
    storages, displays = [], []
    if node.IsA("vtkMRMLStorableNode"):
        storages = [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    if node.IsA("vtkMRMLDisplayableNode"):
        displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    colours = [display.GetColorNode() for display in displays if display is not None]
    made = [each for each in colours if each is not None and _is_made_for_display(each)]
    return [*made, *filter(None, (*storages, *displays))]


def remove_node(node: Node) -> None:
    """Remove a node and its attached nodes from the scene; colours that other nodes are displayed with stay."""
    scene = node.GetScene()
    displays = nodes_of_class(scene, "vtkMRMLDisplayNode") if scene and node.IsA("vtkMRMLColorNode") else []
    if scene is None or any(display.GetColorNodeID() == node.GetID() for display in displays):
        return
    attached = attached_nodes(node)
    scene.RemoveNode(node)
    for each in reversed(attached):
        remove_node(each)


def _is_made_for_display(colours: Node) -> bool:
    # The procedural colours that are in every scene have a tag.
    is_of_transform = colours.IsA("vtkMRMLProceduralColorNode") and not colours.GetSingletonTag()
    return bool(is_of_transform or colours.GetName().startswith(COLOURS))


def _write(storage: Node, node: Node, path: Path) -> None:
    storage.SetFileName(str(path))
    # Slicer reports success for some files that it could not write.
    if not storage.WriteData(node) or not path.is_file():
        raise InputError(f"expected {node.GetName() or 'the transform'} to be writable; Slicer could not write {path}")


def _read(storage: Node, node: Node, path: Path) -> None:
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        raise InputError(f"expected a file that Slicer can read; got {path}")


def file_name(name: str) -> str:
    """A name without the characters that some file systems do not accept."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)[:60] or "volume"
