"""Segmentations through `mmreg apply`: nothing is cut off, and Slicer finds names, colours and ids again."""

import numpy as np
import pytest
import slicer
import vtk
from vtkmodules.util.numpy_support import vtk_to_numpy

from MMRegCore.cli import main
from MMRegCore.io.transforms import write_transform
from MMRegCore.transform import SpatialTransform

SHIFT_MM = np.array([10.0, -4.0, 6.0])


def label_map(voxels, origin=(0.0, 0.0, 0.0)):
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*voxels.shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.ravel()
    image.SetOrigin(origin)
    return image


def written(scene, path, segments):
    """A segmentation with one layer for each label map."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    for name, (voxels, colour) in segments.items():
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*colour)
        segment.AddRepresentation(
            slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName(), label_map(voxels)
        )
        node.GetSegmentation().AddSegment(segment, f"id of {name}")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def read(scene, path):
    """Name, id, colour, number of voxels and their centre, RAS mm, of every segment."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    found = {}
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        segment = node.GetSegmentation().GetNthSegment(index)
        identifier = node.GetSegmentation().GetNthSegmentID(index)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(identifier, image)
        low = np.array(image.GetExtent())[::2]
        size = image.GetDimensions()[::-1]
        filled = np.argwhere(vtk_to_numpy(image.GetPointData().GetScalars()).reshape(size))[:, ::-1] + low
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        affine = slicer.util.arrayFromVTKMatrix(matrix)
        centre = affine[:3, :3] @ filled.mean(axis=0) + affine[:3, 3]
        found[segment.GetName()] = (identifier, segment.GetColor(), len(filled), centre)
    return found


@pytest.fixture
def segments():
    first, second = np.zeros((9, 10, 11), np.uint8), np.zeros((9, 10, 11), np.uint8)
    first[1:8, 1:9, 1:10], second[3:7, 4:9, 5:11] = 1, 1  # they overlap: two layers
    return {"tumour": (first, (1.0, 0.5, 0.0)), "cavity": (second, (0.0, 0.25, 1.0))}


@pytest.mark.parametrize("names", [("tumour",), ("tumour", "cavity")])
def test_nothing_is_lost(scene, tmp_path, segments, names):
    written(scene, tmp_path / "in.seg.nrrd", {name: segments[name] for name in names})
    before = read(scene, tmp_path / "in.seg.nrrd")
    matrix = np.eye(4)
    matrix[:3, 3] = -SHIFT_MM
    write_transform(SpatialTransform.from_matrix(matrix), tmp_path / "t.h5")
    arguments = ["--transform", tmp_path / "t.h5", "--moving", tmp_path / "in.seg.nrrd"]
    assert main(["apply", *map(str, arguments), "--output", str(tmp_path / "out.seg.nrrd")]) == 0
    after = read(scene, tmp_path / "out.seg.nrrd")
    assert list(after) == list(names)
    for name in names:
        assert after[name][0] == f"id of {name}"
        np.testing.assert_allclose(after[name][1], before[name][1], atol=1e-2)
        assert after[name][2] == before[name][2]
        np.testing.assert_allclose(after[name][3] - before[name][3], SHIFT_MM, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--interpolation", "linear"], "nearest with a segmentation"), (["--output", "out.nii.gz"], "end in .seg.nrrd")],
)
def test_what_would_lose_something(scene, tmp_path, segments, more, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(scene, tmp_path / "in.seg.nrrd", segments)
    write_transform(SpatialTransform.identity(), tmp_path / "t.h5")
    arguments = ["--transform", "t.h5", "--moving", "in.seg.nrrd", "--output", "out.seg.nrrd", *more]
    assert main(["apply", *arguments]) == 2
    assert message in capsys.readouterr().err
