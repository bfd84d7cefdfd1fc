"""Comparison modes: the layers of the slice views, and that all temporary nodes are removed."""

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
    """A warped MR that is the ultrasound, on every kind of grid, and every map."""
    values = smooth_volume(any_grid)
    fixed = add_volume(scene, "US", values.data[0].numpy(), any_grid.ras_from_ijk)
    mr = add_volume(scene, "T1", np.ones((4, 4, 4)), np.eye(4))
    write_transform(SpatialTransform.identity(), tmp_path / "transform.h5")
    write_volume(values, tmp_path / "warped_T1.nii.gz")
    for name in MAPS:
        write_volume(values, tmp_path / f"{name}.nii.gz")
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


def test_checkerboard_alternates(scene, view, result):
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


MAPS = {
    "displacement": ("Displacement (mm)", "Warm1"),
    "expected_error": ("Expected error (mm)", "Warm1"),
    "inverse_consistency_error": ("Inverse consistency error (mm)", "Warm1"),
    "jacobian_determinant": ("Jacobian determinant", "Rainbow"),
    "of_a_later_core": ("of a later core", "Warm1"),
}


def test_every_map_has_colours_and_a_legend_that_is_removed(scene, view, result):
    assert [node.GetAttribute("MMReg.map") for node in result.maps] == sorted(MAPS)
    overlay = Overlay(result)
    for node in result.maps:
        overlay.overlay_map(node, 0.6)
        assert view.composite.GetForegroundVolumeID() == node.GetID()
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
        display = node.GetDisplayNode()
        assert legend.GetVisibility()
        assert (legend.GetTitleText(), display.GetColorNode().GetName()) == MAPS[node.GetAttribute("MMReg.map")]
        # What was not measured is no length of 0 mm: it is not coloured at all.
        assert bool(display.GetApplyThreshold()) == (node.GetAttribute("MMReg.map") != "jacobian_determinant")
    scales = {
        node.GetAttribute("MMReg.map"): (
            node.GetDisplayNode().GetWindowLevelMin(),
            node.GetDisplayNode().GetWindowLevelMax(),
        )
        for node in result.maps
    }
    assert scales["jacobian_determinant"] == (0.5, 1.5)
    assert scales["expected_error"] == (0.0, 4.0)
    overlay.clear()
    assert all(slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node) is None for node in result.maps)


def test_a_map_is_coloured_above_its_threshold_only(scene, view, result):
    node = next(node for node in result.maps if node.GetAttribute("MMReg.map") == "displacement")
    values = slicer.util.arrayFromVolume(node)
    values[:] = 3.0
    values[..., : values.shape[2] // 2] = 0.0
    node.GetImageData().Modified()
    view.look_at(result.fixed, node)
    Overlay(result).overlay_map(node, 1.0)
    picture = view.picture().astype(int)
    coloured = (picture[..., 0] - picture[..., 2] > 100).mean()
    assert 0.02 < coloured < 0.8

    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    legend.SetVisibility(False)
    changed = (view.picture().astype(int) != picture).any(axis=-1)
    right = changed.shape[1] // 2
    assert changed[:, right:].mean() > 0.01, "the legend is not drawn"
    assert changed[:, : right // 2].mean() < 0.01


def test_temporary_nodes_are_removed(scene, view, result):
    before = node_ids(scene)
    overlay = Overlay(result)
    for show in (overlay.difference, lambda: overlay.checkerboard(8), lambda: overlay.overlay_map(result.maps[0], 1)):
        show()
        assert len(node_ids(scene)) > len(before)
    overlay.clear()
    assert node_ids(scene) == before
