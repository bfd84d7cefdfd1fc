"""Markups of every type through `mmreg apply`: Slicer reads the same type back, where it would have put it itself."""

import json

import numpy as np
import pytest
import slicer
import vtk

from MMRegCore.cli import main
from MMRegCore.errors import InputError
from MMRegCore.io.transforms import write_transform
from MMRegCore.markups import push_markups
from MMRegCore.transform import SpatialTransform

TYPES = ("Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI")
POINTS = [(1.0, 2.0, 3.0), (11.0, 2.0, 4.0), (1.0, 22.0, 8.0)]
COUNTS = {"Line": 2, "ROI": 1, "Plane": 1}


def storage_of(kind):
    special = {"Plane": slicer.vtkMRMLMarkupsPlaneJsonStorageNode, "ROI": slicer.vtkMRMLMarkupsROIJsonStorageNode}
    return special.get(kind, slicer.vtkMRMLMarkupsJsonStorageNode)()


def written(scene, kind, path):
    node = scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node", kind)
    for point in POINTS[: COUNTS.get(kind, 3)]:
        node.AddControlPoint(vtk.vtkVector3d(*point))
    node.SetNthControlPointLabel(0, "first")
    if kind == "Plane":
        node.SetNormal(0.6, 0.0, 0.8)
    storage = storage_of(kind)
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    return node


def read(scene, kind, path):
    node = scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node", f"{kind} again")
    storage = storage_of(kind)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def places(node):
    """Everything that the node says about where it is."""
    found = [slicer.util.arrayFromMarkupsControlPoints(node, world=True)]
    if node.IsA("vtkMRMLMarkupsPlaneNode"):
        found += [np.reshape(node.GetCenterWorld(), (1, 3)), np.reshape(node.GetNormalWorld(), (1, 3))]
    if node.IsA("vtkMRMLMarkupsROINode"):
        matrix = node.GetObjectToWorldMatrix()
        found.append(np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(3)]).T[:, :3])
    return np.concatenate(found)


@pytest.fixture
def rigid():
    matrix = np.eye(4)
    matrix[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    matrix[:3, 3] = [5, -6, 7]
    return matrix


@pytest.mark.parametrize("kind", TYPES)
def test_the_same_type_comes_out_where_slicer_would_put_it(scene, tmp_path, kind, rigid):
    node = written(scene, kind, tmp_path / "in.mrk.json")
    write_transform(SpatialTransform.from_matrix(rigid), tmp_path / "t.h5")
    arguments = ["--transform", tmp_path / "t.h5", "--moving", tmp_path / "in.mrk.json"]
    assert main(["apply", *map(str, arguments), "--output", str(tmp_path / "out.mrk.json")]) == 0
    assert json.loads((tmp_path / "out.mrk.json").read_text())["markups"][0]["type"] == kind
    again = read(scene, kind, tmp_path / "out.mrk.json")
    assert again.GetNthControlPointLabel(0) == "first"

    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformFromParent(slicer.util.vtkMatrixFromArray(rigid))
    node.SetAndObserveTransformNodeID(parent.GetID())
    np.testing.assert_allclose(places(again), places(node), atol=1e-4)


def test_points_that_are_not_placed_stay_so(rigid, caplog):
    points = [{"label": "a", "position": [1, 2, 3]}, {"label": "b", "position": [9, 9, 9], "positionStatus": "missing"}]
    content = {"markups": [{"type": "Curve", "coordinateSystem": "RAS", "controlPoints": points}]}
    moved = push_markups(content, SpatialTransform.from_matrix(rigid))["markups"][0]["controlPoints"]
    expected = np.linalg.inv(rigid) @ [1, 2, 3, 1]
    np.testing.assert_allclose(moved[0]["position"], expected[:3])
    assert moved[1] == points[1]
    assert content["markups"][0]["controlPoints"][0]["position"] == [1, 2, 3]
    assert "1 control points that are not placed" in caplog.text


@pytest.mark.parametrize("name", ["out.fcsv", "out.csv", "out.tag"])
def test_a_curve_does_not_become_a_list_of_points(scene, tmp_path, name, capsys):
    written(scene, "Curve", tmp_path / "in.mrk.json")
    write_transform(SpatialTransform.identity(), tmp_path / "t.h5")
    arguments = ["--transform", tmp_path / "t.h5", "--moving", tmp_path / "in.mrk.json", "--output", tmp_path / name]
    assert main(["apply", *map(str, arguments)]) == 2
    assert "got markups of the type Curve" in capsys.readouterr().err


def test_a_space_that_is_not_known(rigid):
    content = {"markups": [{"type": "Line", "coordinateSystem": "IJK", "controlPoints": []}]}
    with pytest.raises(InputError, match="RAS or LPS"):
        push_markups(content, SpatialTransform.from_matrix(rigid))
