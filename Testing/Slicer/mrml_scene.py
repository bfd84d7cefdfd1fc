"""Slicer's real scene without the application: nodes, logics, and helpers for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import vtk

# The default preset, model selection and verdict included, with coarse samples and a short search for `small_case`.
QUICK = {
    "lc2.search.sampling_spacing_mm": "4,2",
    "lc2.search.half_width": "2,2",
    "lc2.search.range_mm": "4",
    "lc2.iterations": "5",
    "model_selection.sampling_spacing_mm": "2",
}


def new_scene(cache: Path) -> Any:
    """A scene with the logics that the application would have; it becomes ``slicer.mrmlScene``.

    ``cache`` is an empty folder, which reading ``.mrb`` needs.
    """
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    colours = application.GetColorLogic()
    colours.SetMRMLScene(scene)
    colours.AddDefaultColorNodes()
    application.SetModuleLogic("Colors", colours)
    kinds = {
        "volumes": slicer.vtkSlicerVolumesLogic,
        "transforms": slicer.vtkSlicerTransformLogic,
        "markups": slicer.vtkSlicerMarkupsLogic,
        "segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
        "texts": slicer.vtkSlicerTextsLogic,
        "subjecthierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic,
    }
    logics = {name: kind() for name, kind in kinds.items()}
    for logic in logics.values():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())  # the module Colors does that
    (cache / ".slicer-cache").touch()  # Slicer warns of a cache folder that it did not make
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application)
    remote.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    data = slicer.vtkDataIOManagerLogic()
    data.SetMRMLScene(scene)
    data.SetMRMLApplicationLogic(application)
    data.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    slicer.mrmlScene = scene
    # Python must hold what the application would hold.
    scene_holds[id(scene)] = (application, logics, remote, data)
    slicer.modules = SimpleNamespace(
        **{name: SimpleNamespace(logic=lambda logic=logic: logic, name=name) for name, logic in logics.items()}
    )
    return scene


scene_holds: dict[int, tuple[Any, ...]] = {}


def add_volume(scene: Any, name: str, values: np.ndarray, ras_from_ijk: np.ndarray) -> Any:
    """A volume node; ``values`` is (D, H, W)."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(values, dtype=np.float32))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ras_from_ijk))
    node.CreateDefaultDisplayNodes()
    return node


def add_linear(scene: Any, name: str, to_parent: np.ndarray, parent: Any = None) -> Any:
    """A linear transform node, below ``parent``."""
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(to_parent))
    node.SetAndObserveTransformNodeID(parent.GetID() if parent else None)
    return node


def add_points(scene: Any, name: str, points_ras: np.ndarray) -> Any:
    """A list of points in the node's own space."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    slicer.util.updateMarkupsControlPointsFromArray(node, points_ras)
    return node


def add_segmentation(scene: Any, name: str, image: Any, inside: np.ndarray) -> tuple[Any, str]:
    """A segmentation with one segment on the grid of ``image``, and the segment's identifier."""
    label_map = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "source")
    slicer.util.updateVolumeFromArray(label_map, np.ascontiguousarray(inside, dtype=np.uint8))
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    label_map.SetIJKToRASMatrix(matrix)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    assert slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(label_map, node)
    scene.RemoveNode(label_map)
    return node, node.GetSegmentation().GetNthSegmentID(0)


def points_in_world(node: Any) -> np.ndarray:
    """(N, 3), RAS mm: the points of a list in the scene."""
    return slicer.util.arrayFromMarkupsControlPoints(node, world=True)


def node_ids(scene: Any) -> list[str]:
    """Every node of the scene."""
    return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]


def snapshot(node: Any) -> tuple[object, ...]:
    """The state of an input node: attributes, references, parent, file, geometry, voxels."""
    names = node.GetAttributeNames()
    attributes = {name: node.GetAttribute(name) for name in names} if names else {}
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    references = {
        role: [node.GetNthNodeReferenceID(role, n) for n in range(node.GetNumberOfNodeReferences(role))]
        for role in roles
        if node.GetNumberOfNodeReferences(role)
    }
    storage = node.GetStorageNode()
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return (
        node.GetName(),
        attributes,
        references,
        node.GetTransformNodeID(),
        storage and storage.GetFileName(),
        slicer.util.arrayFromVTKMatrix(matrix).tobytes(),
        slicer.util.arrayFromVolume(node).tobytes(),
    )


def translation(*millimetres: float) -> np.ndarray:
    """(4, 4)."""
    matrix = np.eye(4)
    matrix[:3, 3] = millimetres
    return matrix


def small_case(scene: Any, texture: Callable[..., np.ndarray], shift_mm: np.ndarray) -> tuple[Any, Any]:
    """Ultrasound and MR of 32³ voxels, 1.5 mm: the MR shows the same texture in other brightness, ``shift_mm`` away."""
    ras_from_ijk = np.diag([1.5, 1.5, 1.5, 1.0])
    ras_from_ijk[:3, 3] = -23.25
    indices = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij")[::-1], axis=-1)
    points = indices @ ras_from_ijk[:3, :3].T + ras_from_ijk[:3, 3]
    ultrasound = add_volume(scene, "Ultrasound", texture(points), ras_from_ijk)
    return ultrasound, add_volume(scene, "T1", texture(points - shift_mm, inverted=True), ras_from_ijk)
