"""The ways of comparing: what the slice views are given, and that nothing of it stays behind."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.io import write_transform, write_volume
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.overlay import Overlay
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import add_result
from mrml_scene import add_volume, node_ids
from slice_view import SliceView


@pytest.fixture
def result(scene, any_grid, smooth_volume, tmp_path):
    """A warped MR that is the ultrasound, on every kind of grid, and one map."""
    values = smooth_volume(any_grid)
    fixed = add_volume(scene, "US", values.data[0].numpy(), any_grid.ras_from_ijk)
    mr = add_volume(scene, "T1", np.ones((4, 4, 4)), np.eye(4))
    write_transform(SpatialTransform.identity(), tmp_path / "transform.h5")
    write_volume(values, tmp_path / "warped_T1.nii.gz")
    write_volume(values, tmp_path / "expected_error.nii.gz")
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return add_result(tmp_path, Request(fixed, (Moving(mr),)))


@pytest.fixture
def view(scene) -> SliceView:
    return SliceView(scene, "Red", "Axial")


def shown(scene, view) -> np.ndarray:
    return slicer.util.arrayFromVolume(scene.GetNodeByID(view.composite.GetBackgroundVolumeID()))


def test_blend(scene, view, result):
    Overlay(result).blend(0.3)
    assert view.composite.GetBackgroundVolumeID() == result.fixed.GetID()
    assert view.composite.GetForegroundVolumeID() == result.moving[0].GetID()
    assert view.composite.GetForegroundOpacity() == pytest.approx(0.3)


def test_difference_of_equals_is_nothing_wherever_slicer_put_the_voxels(scene, view, result):
    Overlay(result).difference()
    inner = np.s_[1:-1, 1:-1, 1:-1]
    assert np.abs(shown(scene, view)[inner]).max() < 1
    assert view.composite.GetForegroundVolumeID() is None


def test_checkerboard_takes_turns(scene, view, result):
    fixed = slicer.util.arrayFromVolume(result.fixed)
    overlay = Overlay(result)
    slicer.util.arrayFromVolume(result.warped[0])[:] = 0
    slicer.util.arrayFromVolume(result.warped[0])[0] = 1  # a black image with a little light, for the stretching
    overlay.checkerboard(5.0)
    board = shown(scene, view)
    assert board.shape == fixed.shape
    black = (board[2:-2] < 1).mean()
    assert 0.35 < black < 0.75
    step = round(5.0 / result.fixed.GetSpacing()[0])
    row = board[5, 5] < 1
    assert 2 <= np.abs(np.diff(row.astype(int))).sum() <= fixed.shape[2] / step + 1


def test_a_map_comes_with_a_legend_that_goes_again(scene, view, result):
    overlay = Overlay(result)
    overlay.overlay_map(result.maps[0], 0.6)
    assert view.composite.GetForegroundVolumeID() == result.maps[0].GetID()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(result.maps[0])
    assert (legend.GetTitleText(), bool(legend.GetVisibility())) == ("expected error", True)
    assert result.maps[0].GetDisplayNode().GetColorNode().GetName() == "Warm1"
    overlay.clear()
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(result.maps[0]) is None


def test_nothing_stays_behind(scene, view, result):
    before = node_ids(scene)
    overlay = Overlay(result)
    for show in (overlay.difference, lambda: overlay.checkerboard(8), lambda: overlay.overlay_map(result.maps[0], 1)):
        show()
        assert len(node_ids(scene)) > len(before)
    overlay.clear()
    assert node_ids(scene) == before
