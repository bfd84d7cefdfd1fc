"""The MR between initial and registered position, and its contours, against a formula of the position."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer
from vtk.util.numpy_support import vtk_to_numpy

from grids import DIRECTIONS, itk_grid
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.interpolation import InterpolatedMr
from MMRegSlicerLib.mrml_bridge import nodes_of_class
from MMRegSlicerLib.overlay import Overlay
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import add_result
from mrml_scene import add_linear, add_volume, node_ids, translation
from result_folder import write_result
from slice_view import SliceView

SHIFT_MM = np.array([3.0, -2.0, 1.0])
INITIAL_MM = np.array([0.0, 0.0, 2.0])


def ball(points_ras: np.ndarray) -> np.ndarray:
    """Brightest at (1, 2, 3)."""
    return 1000 * np.exp(-((points_ras - [1.0, 2.0, 3.0]) ** 2).sum(axis=-1) / (2 * 6.0**2))


@pytest.fixture(params=list(DIRECTIONS))
def result(scene, request, smooth_volume, tmp_path):
    """An MR under an initial transform, and a result that moves it by SHIFT_MM instead; all on oblique grids."""
    fixed_grid = itk_grid((30, 26, 22), (1.5, 1.3, 1.7), (-20.0, -15.0, -18.0), DIRECTIONS[request.param])
    centre = fixed_grid.centre_ras
    mr_grid = itk_grid((60, 60, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), DIRECTIONS["left_handed"])
    offset = centre - mr_grid.centre_ras
    ras_from_ijk = mr_grid.ras_from_ijk.copy()
    ras_from_ijk[:3, 3] += offset
    fixed = add_volume(scene, "US", np.ones(fixed_grid.shape), fixed_grid.ras_from_ijk)
    mr = add_volume(scene, "T1", ball(mr_grid.points_ras() + offset - centre), ras_from_ijk)
    mr.SetAndObserveTransformNodeID(add_linear(scene, "initial", translation(*INITIAL_MM)).GetID())
    # From parent: a point of the ultrasound, shifted, is the point of the MR.
    write_result(tmp_path, SpatialTransform.from_matrix(translation(*SHIFT_MM)), smooth_volume(fixed_grid), [])
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    made = add_result(tmp_path, Request(fixed, (Moving(mr),)))
    return made, fixed_grid.points_ras() - centre


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_each_position_lies_between_the_initial_and_the_registered_one(result, fraction):
    made, points = result
    image = InterpolatedMr(made).image(fraction)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(points.shape[:3])
    expected = ball(points - (1 - fraction) * INITIAL_MM + fraction * SHIFT_MM)
    inner = np.s_[3:-3, 3:-3, 3:-3]
    assert np.abs(values - expected)[inner].max() < 25


def test_the_scene_is_not_moved_and_nothing_is_left(scene, result):
    made, _points = result
    before, parent = node_ids(scene), made.moving[0].GetTransformNodeID()
    overlay = Overlay(made)
    for show in (overlay.deformation, overlay.contours, overlay.deformation):
        show(0.5)
        assert made.moving[0].GetTransformNodeID() == parent
    overlay.clear()
    assert node_ids(scene) == before


def test_contours_before_and_after_are_apart_by_the_motion(scene, result):
    made, _points = result
    overlay = Overlay(made)
    overlay.contours(0.6)
    models = [node for node in nodes_of_class(scene, "vtkMRMLModelNode") if node.GetName() == "MMReg contours"]
    centres = [vtk_to_numpy(node.GetPolyData().GetPoints().GetData()).mean(axis=0) for node in models]
    assert len(models) == 2
    assert all(not node.GetSaveWithScene() and node.GetHideFromEditors() for node in models)
    assert np.allclose(centres[0] - centres[1], INITIAL_MM + SHIFT_MM, atol=0.4)
    sizes = [node.GetPolyData().GetNumberOfPoints() for node in models]
    overlay.contours(0.9)
    assert models[0].GetPolyData().GetNumberOfPoints() < sizes[0]
    overlay.clear()


def test_a_hardened_result_has_one_position(result):
    made, _points = result
    overlay = Overlay(made)
    overlay.deformation(0.0)
    made.accept(harden=True)
    mr = InterpolatedMr(made)
    before, after = (vtk_to_numpy(mr.image(each).GetPointData().GetScalars()) for each in (0.0, 1.0))
    assert np.array_equal(before, after)
    overlay.clear()


def test_the_slice_view_draws_the_contours(scene, result):
    made, _points = result
    view, overlay = SliceView(scene, "Red", "Axial"), Overlay(made)
    view.look_at(made.fixed, made.moving[0])
    without = view.draw(foreground=0)
    overlay.contours(0.6)
    drawn = view.draw(foreground=0)
    assert 50 < (np.abs(drawn - without) > 20).sum() < 0.2 * drawn.size
    overlay.clear()
