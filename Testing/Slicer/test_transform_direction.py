"""Slicer's own scene and SimpleITK give the same points and the same voxels through the files that MMReg writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from grids import itk_grid
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid, lps_from_ras_points, ras_from_lps_points, transform_points
from MMRegCore.io.landmarks import Landmarks, read_landmarks, write_landmarks
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.io.volumes import read_volume, write_volume
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume

try:
    import slicer
    import vtk
    from vtk.util import numpy_support
except ImportError as error:
    pytest.skip(f"SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported ({error})", allow_module_level=True)

AGREEMENT_MM = 1e-3  # what the project promises; B-splines keep to 1e-9


class Scene:
    """A MRML scene with the logics that these tests need."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        colours = self.application.GetColorLogic()
        colours.SetMRMLScene(self.scene)
        colours.AddDefaultColorNodes()
        self.application.SetModuleLogic("Colors", colours)
        self.volumes = self._logic(slicer.vtkSlicerVolumesLogic)
        self._others = [self._logic(slicer.vtkSlicerTransformLogic), self._logic(slicer.vtkSlicerMarkupsLogic)]

    def _logic(self, kind: Any) -> Any:
        logic = kind()
        logic.SetMRMLApplicationLogic(self.application)
        logic.SetMRMLScene(self.scene)
        return logic

    def read_transform(self, path: Path) -> Any:
        storage = slicer.vtkMRMLTransformStorageNode()
        storage.SetFileName(str(path))
        node = self.scene.AddNewNodeByClass("vtkMRMLTransformNode")
        assert storage.ReadData(node), path
        return node

    def write(self, node: Any, path: Path, storage_class: str = "vtkMRMLTransformStorageNode") -> None:
        storage = self.scene.AddNewNodeByClass(storage_class)
        storage.SetFileName(str(path))
        assert storage.WriteData(node), path

    def volume(self, path: Path) -> Any:
        node = self.volumes.AddArchetypeVolume(str(path), path.name)
        assert node is not None, path
        return node


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture
def composite(oblique_grid: Grid, smooth_field: Callable[..., Any]) -> SpatialTransform:
    """Rotation of some degrees, a shift, and a smooth residual of up to several millimetres."""
    field = composite_from_field(smooth_field(oblique_grid, 4.0), torch.ones(oblique_grid.shape))
    matrix = np.eye(4)
    angle = np.deg2rad(9)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = [4.0, -11.0, 6.0]
    return field.then(SpatialTransform.from_matrix(matrix))


def places(grid: Grid) -> dict[str, np.ndarray]:
    """Fixed points, RAS mm: between the voxels, at the border of the box, and up to 300 mm outside."""
    rng = np.random.default_rng(8)
    size = np.array(grid.itk_size)
    inside = transform_points(grid.ras_from_ijk, rng.uniform(1, size - 2, (60, 3)))
    border = transform_points(
        grid.ras_from_ijk, rng.choice([-1.0, -0.5, 0.0, 0.4], (60, 3)) + rng.integers(0, 2, (60, 3)) * size
    )
    directions = rng.normal(size=(90, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    far = grid.centre_ras + directions * rng.uniform(20, 300, (90, 1))
    return {"inside": inside, "border": border, "outside": far}


def through(vtk_transform: Any, points: np.ndarray) -> np.ndarray:
    return np.array([vtk_transform.TransformPoint(point) for point in points.tolist()])


def by_sitk(itk: sitk.Transform, points: np.ndarray) -> np.ndarray:
    return ras_from_lps_points([itk.TransformPoint(point) for point in lps_from_ras_points(points).tolist()])


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_fixed_points_and_moving_landmarks_agree(scene, composite, oblique_grid, suffix, tmp_path):
    path = tmp_path / f"transform{suffix}"
    write_transform(composite, path)
    node = scene.read_transform(path)
    by_itk = sitk.ReadTransform(str(path))
    ours = read_transform(path)
    residual = composite.displacement_field(oblique_grid).displacement_mm.numpy() + oblique_grid.points_ras()
    residual -= transform_points(composite.linear_ras, oblique_grid.points_ras())
    assert np.abs(residual).max() > 2
    for where, fixed in places(oblique_grid).items():
        moving = by_sitk(by_itk, fixed)
        forward = np.abs(through(node.GetTransformFromParent(), fixed) - moving).max()
        pushed = np.abs(through(node.GetTransformToParent(), moving) - ours.apply_inverse(moving)).max()
        home = np.abs(ours.apply_inverse(moving) - fixed).max()
        assert forward < 1e-6, where
        assert pushed < AGREEMENT_MM, where
        assert home < AGREEMENT_MM, where
        # The wrong direction, or the wrong sign, is far off: the agreement above is no accident.
        assert np.abs(through(node.GetTransformToParent(), fixed) - moving).max() > 1, where
        assert np.abs(2 * fixed - moving - moving).max() > 1, where


def test_linear_results_load_as_linear_nodes(scene, tmp_path):
    matrix = np.array([[0.98, -0.17, 0.03, 5], [0.16, 0.97, -0.1, -7], [-0.02, 0.11, 1.02, 3], [0, 0, 0, 1.0]])
    half = SpatialTransform.from_matrix(matrix)
    write_transform(SpatialTransform(sitk.CompositeTransform([half.itk, half.itk])), tmp_path / "a.h5")
    node = scene.read_transform(tmp_path / "a.h5")
    assert node.IsLinear()
    from_parent = vtk.vtkMatrix4x4()
    node.GetMatrixTransformFromParent(from_parent)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(from_parent), matrix @ matrix, atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_displacement_grids_agree_between_the_voxels_of_their_grid(scene, composite, oblique_grid, suffix, tmp_path):
    path = tmp_path / f"field{suffix}"
    write_transform(composite, path, grid=oblique_grid)
    node = scene.read_transform(path)
    voxels = oblique_grid.points_ras()[3:-3, 3:-3, 3:-3].reshape(-1, 3)[::101]
    expected = composite.apply(voxels)
    np.testing.assert_allclose(through(node.GetTransformFromParent(), voxels), expected, atol=AGREEMENT_MM)
    np.testing.assert_allclose(read_transform(path).apply(voxels), expected, atol=AGREEMENT_MM)
    # Between voxels Slicer interpolates cubically and ITK linearly; the B-spline form has no such difference.
    between = places(oblique_grid)["inside"]
    difference = np.abs(through(node.GetTransformFromParent(), between) - read_transform(path).apply(between)).max()
    assert difference < 0.02


def test_markups_under_the_node_land_on_the_fixed_landmarks(scene, composite, oblique_grid, tmp_path):
    write_transform(composite, tmp_path / "transform.h5")
    node = scene.read_transform(tmp_path / "transform.h5")
    fixed = np.concatenate(list(places(oblique_grid).values()))
    moving = composite.apply(fixed)
    for suffix in (".mrk.json", ".fcsv"):
        write_landmarks(Landmarks(moving, tuple(f"P{n}" for n in range(len(moving)))), tmp_path / f"mr{suffix}")
        storage = slicer.vtkMRMLMarkupsJsonStorageNode() if suffix == ".mrk.json" else (
            slicer.vtkMRMLMarkupsFiducialStorageNode()
        )  # fmt: skip
        storage.SetFileName(str(tmp_path / f"mr{suffix}"))
        markups = scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
        assert storage.ReadData(markups)
        np.testing.assert_allclose(positions(markups), moving, atol=1e-6)
        assert markups.GetNthControlPointLabel(3) == "P3"
        markups.SetAndObserveTransformNodeID(node.GetID())
        markups.HardenTransform()
        np.testing.assert_allclose(positions(markups), fixed, atol=AGREEMENT_MM)
        np.testing.assert_allclose(composite.apply_inverse(moving), positions(markups), atol=AGREEMENT_MM)
        saved = tmp_path / f"hardened{suffix}"
        scene.write(markups, saved, storage.GetClassName())
        np.testing.assert_allclose(read_landmarks(saved).points_ras, positions(markups), atol=1e-3)
        assert read_landmarks(saved).labels[3] == "P3"


def positions(markups: Any) -> np.ndarray:
    return np.array([markups.GetNthControlPointPosition(n) for n in range(markups.GetNumberOfControlPoints())])


@pytest.fixture
def moving_grid(oblique_grid: Grid) -> Grid:
    """An MR of its own oblique, anisotropic grid that covers more than the ultrasound box."""
    direction = np.array([[0, 0.0, 1], [-0.8, 0.6, 0], [-0.6, -0.8, 0]])
    grid = itk_grid((34, 44, 40), (2.1, 1.6, 1.9), (0.0, 0.0, 0.0), direction)
    matrix = grid.ras_from_ijk.copy()
    matrix[:3, 3] += oblique_grid.centre_ras - grid.centre_ras + [5, -3, 2]
    return Grid(grid.shape, matrix)


def test_resampled_volumes_agree(scene, composite, oblique_grid, moving_grid, smooth_volume, tmp_path):
    write_volume(smooth_volume(moving_grid), tmp_path / "mr.nrrd")
    write_volume(smooth_volume(oblique_grid), tmp_path / "us.nii.gz")
    write_transform(composite, tmp_path / "transform.h5")
    moving, fixed = scene.volume(tmp_path / "mr.nrrd"), scene.volume(tmp_path / "us.nii.gz")
    moving.SetAndObserveTransformNodeID(scene.read_transform(tmp_path / "transform.h5").GetID())
    warped = scene.volumes.ResampleVolumeToReferenceVolume(moving, fixed)
    scene.write(warped, tmp_path / "warped.nrrd", "vtkMRMLVolumeArchetypeStorageNode")
    theirs = as_on(oblique_grid, read_volume(tmp_path / "warped.nrrd"))

    images = [sitk.ReadImage(str(tmp_path / name)) for name in ("mr.nrrd", "us.nii.gz")]
    inverse = composite.itk.Downcast().GetNthTransform(0).GetInverse()
    results = [
        sitk.GetArrayFromImage(sitk.Resample(*images, itk, sitk.sitkLinear, 0.0))
        for itk in (sitk.ReadTransform(str(tmp_path / "transform.h5")), inverse)
    ]
    inside = np.abs(results[0]) > 0
    assert inside.mean() > 0.7
    np.testing.assert_allclose(theirs[inside], results[0][inside], atol=1e-3)
    # The wrong direction gives another image: the agreement above is no accident.
    assert np.corrcoef(theirs[inside], results[1][inside])[0, 1] < 0.98


def linear_node(scene: Scene, matrix: np.ndarray) -> Any:
    node = scene.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformFromParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


MATRIX = np.array([[0.9, -0.4, 0.1, 5], [0.4, 0.9, -0.1, -7], [-0.05, 0.13, 1.0, 3], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("suffix", [".h5", ".tfm", ".txt"])
def test_linear_transforms_that_slicer_writes(scene, suffix, tmp_path):
    scene.write(linear_node(scene, MATRIX), tmp_path / f"a{suffix}")
    np.testing.assert_allclose(read_transform(tmp_path / f"a{suffix}").linear_ras, MATRIX, atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_composites_that_slicer_writes(scene, composite, oblique_grid, suffix, tmp_path):
    write_transform(composite, tmp_path / "ours.h5")
    scene.write(scene.read_transform(tmp_path / "ours.h5"), tmp_path / f"theirs{suffix}")
    again = read_transform(tmp_path / f"theirs{suffix}")
    for where, fixed in places(oblique_grid).items():
        np.testing.assert_allclose(again.apply(fixed), composite.apply(fixed), atol=AGREEMENT_MM, err_msg=where)


def grid_transform(field: np.ndarray, grid: Grid) -> Any:
    """Slicer's grid transform from (D, H, W, 3) RAS mm, after the verified rule: GridDirectionMatrix in RAS."""
    image = vtk.vtkImageData()
    image.SetDimensions(*grid.itk_size)
    image.SetOrigin(*grid.ras_from_ijk[:3, 3])
    image.SetSpacing(*grid.spacing_mm)
    values = numpy_support.numpy_to_vtk(np.ascontiguousarray(field.reshape(-1, 3)), deep=1)
    image.GetPointData().SetScalars(values)
    directions = np.eye(4)
    directions[:3, :3] = grid.ras_from_ijk[:3, :3] / grid.spacing_mm
    transform = slicer.vtkOrientedGridTransform()
    transform.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(directions))
    transform.SetDisplacementGridData(image)
    return transform


@pytest.mark.parametrize("suffix", [".h5", ".tfm", ".nrrd", ".nii.gz"])
def test_grids_that_slicer_writes(scene, smooth_field, oblique_grid, suffix, tmp_path):
    field = smooth_field(oblique_grid)
    node = scene.scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    displacement = field.displacement_mm.double().numpy()
    node.SetAndObserveTransformFromParent(grid_transform(displacement, oblique_grid))
    scene.write(node, tmp_path / f"a{suffix}")
    voxels = np.s_[3:-3:4, 3:-3:4, 3:-3:4]
    fixed = oblique_grid.points_ras()[voxels].reshape(-1, 3)
    expected = fixed + displacement[voxels].reshape(-1, 3)
    np.testing.assert_allclose(through(node.GetTransformFromParent(), fixed), expected, atol=1e-4)
    np.testing.assert_allclose(read_transform(tmp_path / f"a{suffix}").apply(fixed), expected, atol=1e-3)


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_grids_that_only_slicer_can_invert_are_refused_with_advice(scene, smooth_field, oblique_grid, suffix, tmp_path):
    node = scene.scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    displacement = smooth_field(oblique_grid).displacement_mm.double().numpy()
    node.SetAndObserveTransformToParent(grid_transform(displacement, oblique_grid))
    scene.write(node, tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match="got Inverse.*convert it to a displacement grid"):
        read_transform(tmp_path / f"a{suffix}")


def as_on(grid: Grid, volume: Volume) -> np.ndarray:
    """The voxels (D, H, W) in the order of ``grid``: Slicer turns left-handed volumes round, slice by slice."""
    turned = Grid(
        grid.shape,
        grid.ras_from_ijk @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, grid.shape[0] - 1], [0, 0, 0, 1]]),
    )
    array = volume.data[0].numpy()
    if volume.grid.matches(turned):
        return array[::-1]
    assert volume.grid.matches(grid)
    return array


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_volumes_lie_where_slicer_puts_them(scene, any_grid, smooth_volume, suffix, tmp_path):
    volume = smooth_volume(any_grid)
    write_volume(volume, tmp_path / f"a{suffix}")
    node = scene.volume(tmp_path / f"a{suffix}")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    array = slicer.util.arrayFromVolume(node)
    loaded = Volume(torch.from_numpy(array.copy())[None], Grid(array.shape, slicer.util.arrayFromVTKMatrix(matrix)))
    np.testing.assert_array_equal(as_on(any_grid, loaded), volume.data[0].numpy())
