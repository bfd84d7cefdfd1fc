"""Nodes to files and back. The nodes that are written are not touched, their file names included."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk

from MMRegCore.errors import InputError
from MMRegSlicerLib.request import Mask, Node


def write_volume(node: Node, path: Path) -> None:
    """Write the voxels of a volume node where the node's own matrix puts them; transforms above it are left out.

    Raises
    ------
    InputError
        When Slicer cannot write it.
    """
    # A storage node that is in no scene and belongs to no volume: the volume keeps the file that it came from.
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetUseCompression(0)
    _write(storage, node, path)


def write_mask(mask: Mask, image: Node, path: Path) -> None:
    """Write a mask so that it lies on its image; a segment is taken over on the image's own grid.

    Raises
    ------
    InputError
        When the segment cannot be brought onto the image's grid, or the file cannot be written.
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
            raise InputError(f"expected a segment that can be made a label map; got {mask.node.GetName()}")
        write_volume(label_map, path)
    finally:
        display = label_map.GetDisplayNode()
        for extra in (display and display.GetColorNode(), display, label_map):
            # Only the colour table that the export made for this label map, not one of Slicer's own.
            if extra and not (extra.IsA("vtkMRMLColorNode") and extra.GetHideFromEditors()):
                remove(extra)


def write_start(fixed: Node, start: Node | None, path: Path) -> bool:
    """Write the way from the ultrasound's own space to that of the MR, through everything above either of them.

    Parameters
    ----------
    fixed : node
        The ultrasound; all transforms above it count.
    start : node or None
        The transform that the MR lies under; all transforms above that count too.
    path : Path
        ITK's format, fixed to moving.

    Returns
    -------
    bool
        False, and no file, when both lie in the same space.

    Raises
    ------
    InputError
        When Slicer cannot write the transform.
    """
    above = fixed.GetParentTransformNode()
    if above is start:
        return False
    moving_from_fixed = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(above, start, moving_from_fixed)
    node = slicer.vtkMRMLTransformNode()
    linear = vtk.vtkTransform()
    if slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(moving_from_fixed, linear):
        node.SetMatrixTransformFromParent(linear.GetMatrix())
    else:
        node.SetAndObserveTransformFromParent(moving_from_fixed)
    _write(slicer.vtkMRMLTransformStorageNode(), node, path)
    return True


def read_transform(path: Path, scene: Node, name: str) -> Node:
    """Read ITK's transform into a new node, *from parent*: what lies under it moves from MR to ultrasound.

    Raises
    ------
    InputError
        When Slicer cannot read it; the scene is as before.
    """
    node = slicer.vtkMRMLTransformNode()
    _read(slicer.vtkMRMLTransformStorageNode(), node, path)
    kind = "vtkMRMLLinearTransformNode" if node.IsLinear() else "vtkMRMLTransformNode"
    made = scene.AddNewNodeByClass(kind, unique_name(scene, name))
    if node.IsLinear():
        matrix = vtk.vtkMatrix4x4()
        node.GetMatrixTransformFromParent(matrix)
        made.SetMatrixTransformFromParent(matrix)
    else:
        made.SetAndObserveTransformFromParent(node.GetTransformFromParent())
    return made


def read_volume(path: Path, scene: Node, name: str) -> Node:
    """Read a volume into a new node with display settings of its own; it forgets the file.

    Raises
    ------
    InputError
        When Slicer cannot read it; the scene is as before.
    """
    read = slicer.vtkMRMLScalarVolumeNode()
    _read(slicer.vtkMRMLVolumeArchetypeStorageNode(), read, path)
    made = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", unique_name(scene, name))
    matrix = vtk.vtkMatrix4x4()
    read.GetIJKToRASMatrix(matrix)
    made.SetIJKToRASMatrix(matrix)
    made.SetAndObserveImageData(read.GetImageData())
    made.CreateDefaultDisplayNodes()
    return made


def read_points(path: Path, scene: Node, name: str) -> Node:
    """Read a list of points (``.mrk.json``) into a new node; it forgets the file.

    Raises
    ------
    InputError
        When Slicer cannot read it; the scene is as before.
    """
    made = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", unique_name(scene, name))
    try:
        _read(slicer.vtkMRMLMarkupsJsonStorageNode(), made, path)
    except InputError:
        remove(made)
        raise
    made.CreateDefaultDisplayNodes()
    return made


def add_text(text: str, scene: Node, name: str) -> Node:
    """Put a text into the scene, so that it is saved with it."""
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", unique_name(scene, name))
    node.SetText(text)
    return node


def unique_name(scene: Node, name: str) -> str:
    """The name, with a number when a node has it already; Slicer's own way counts nodes that are gone too."""
    number, candidate = 1, name
    while scene.GetFirstNodeByName(candidate) is not None:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def belongings(node: Node) -> list[Node]:
    """The display and storage nodes that belong to a node, and the colours that Slicer made for a transform."""
    found = []
    if node.IsA("vtkMRMLDisplayableNode"):
        found += [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLTransformNode"):
        colours = [display.GetColorNode() for display in found if display is not None]
        # Put back, the colours must be there before what shows them.
        found = [each for each in colours if each is not None and each.IsA("vtkMRMLProceduralColorNode")] + found
    if node.IsA("vtkMRMLStorableNode"):
        found += [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    return [each for each in found if each is not None]


def remove(node: Node) -> None:
    """Remove a node with what belongs to it."""
    scene = node.GetScene()
    if scene is None:
        return
    for each in (node, *belongings(node)):
        if each.GetScene() is not None:
            scene.RemoveNode(each)


def _write(storage: Node, node: Node, path: Path) -> None:
    storage.SetFileName(str(path))
    # Slicer reports success for some files that it could not make.
    if not storage.WriteData(node) or not path.is_file():
        raise InputError(f"expected {node.GetName() or 'the transform'} to be writable; Slicer could not write {path}")


def _read(storage: Node, node: Node, path: Path) -> None:
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        raise InputError(f"expected a file that Slicer can read; got {path}")
