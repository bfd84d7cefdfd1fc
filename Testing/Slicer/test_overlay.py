"""Comparison modes: the layers of the slice views, and that all temporary nodes are removed."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer
from vtk.util.numpy_support import vtk_to_numpy

from MMRegCore.assessment.maps import map_specs
from MMRegCore.io.transforms import write_transform
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.mrml_bridge import nodes_of_class
from MMRegSlicerLib.overlay import Overlay, fit_slice_views
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import add_result, results_in
from mrml_scene import add_volume, new_scene, node_ids, scene_holds
from result_folder import LATER, summary_of, write_result
from slice_view import SliceView


@pytest.fixture
def result(scene, any_grid, smooth_volume, tmp_path):
    """A warped MR that is the ultrasound, on every kind of grid, and every map."""
    values = smooth_volume(any_grid)
    fixed = add_volume(scene, "US", values.data[0].numpy(), any_grid.ras_from_ijk)
    mr = add_volume(scene, "T1", np.ones((4, 4, 4)), np.eye(4))
    write_result(tmp_path, SpatialTransform.identity(), values, [*map_specs(), LATER])
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


def rgb(colour: str) -> list[float]:
    return [int(colour[begin : begin + 2], 16) / 255 for begin in (1, 3, 5)]


def colour_nodes(scene) -> list[str]:
    names = [node.GetName() for node in nodes_of_class(scene, "vtkMRMLColorTableNode")]
    return [name for name in names if name.startswith("MMReg colours")]


def test_every_map_is_displayed_as_the_result_describes_it(scene, view, result, any_grid, smooth_volume):
    summaries = [*(summary_of(name, smooth_volume(any_grid)) for name in map_specs()), LATER]
    assert len(summaries) > 4
    overlay = Overlay(result)
    for node, summary in zip(result.maps, summaries, strict=True):
        overlay.overlay_map(node, 0.6)
        assert view.composite.GetForegroundVolumeID() == node.GetID()
        legend, display = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node), node.GetDisplayNode()
        assert legend.GetVisibility()
        title = summary.title + (f" ({summary.unit})" if summary.unit else "")
        assert (node.GetAttribute("MMReg.title"), legend.GetTitleText()) == (title, title.replace(" (", "\n("))
        assert node.GetAttribute("MMReg.sentence") == summary.sentence
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx(summary.limits)
        table = vtk_to_numpy(display.GetColorNode().GetLookupTable().GetTable()) / 255
        entries = np.linspace(0, 255, len(summary.colours))
        np.testing.assert_allclose(
            [table[round(each), :3] for each in entries], [rgb(colour) for colour in summary.colours], atol=0.02
        )
        # What was not measured is no value: it is not coloured at all.
        low, high = summary.limits
        assert table[int(255 * (summary.background - low) / (high - low)), 3] == 0
        assert 0.98 < table[:, 3].mean() < 1
    overlay.clear()
    assert all(slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node) is None for node in result.maps)


def test_colours_are_shared_by_maps_and_results_until_the_last_is_discarded(scene, result, tmp_path):
    assert len(set(colour_nodes(scene))) == len(colour_nodes(scene)) < len(result.maps)
    before = colour_nodes(scene)
    second = add_result(tmp_path, Request(result.fixed, (Moving(result.moving[0]),)))
    assert colour_nodes(scene) == before
    result.discard()
    assert colour_nodes(scene) == before
    second.discard()
    assert colour_nodes(scene) == []


def test_a_saved_scene_shows_the_maps_again_and_stores_their_colours_once(scene, result, tmp_path):
    pictures, current = [], scene
    for generation in range(3):
        (found,) = results_in(current)
        drawn = SliceView(current, f"View{generation}", "Axial")
        drawn.look_at(found.fixed, found.maps[0])
        row = []
        for node in found.maps:
            Overlay(found).overlay_map(node, 1.0)
            row.append(drawn.picture())
        pictures.append(row)
        assert len(colour_nodes(current)) == len(set(colour_nodes(current))) == 4
        path = tmp_path / f"{generation}.mrb"
        assert current.WriteToMRB(str(path))
        current = new_scene(tmp_path)
        assert current.ReadFromMRB(str(path), True, slicer.vtkMRMLMessageCollection())
    for row in pictures[1:]:
        for again, first in zip(row, pictures[0], strict=True):
            # Geometry, colours and limits are stored as text, with rounding: the rim may move by a pixel.
            differs = (np.abs(again.astype(int) - first) > 3).any(axis=-1)
            assert differs.mean() < 0.005
    (found,) = results_in(current)
    found.discard()
    assert colour_nodes(current) == []
    assert current.GetNumberOfNodesByClass("vtkMRMLColorTableStorageNode") == 0


@pytest.mark.parametrize(
    ("title", "value", "background"),
    [("Expected error (mm)", 3.0, 0.0), ("Volume change (Jacobian determinant)", 4.0, 1.0), ("Of a later core", 0, 2)],
)
def test_the_background_of_a_map_is_transparent_also_amid_the_range(scene, view, result, title, value, background):
    node = next(node for node in result.maps if node.GetAttribute("MMReg.title") == title)
    values = slicer.util.arrayFromVolume(node)
    values[:] = value
    values[..., : values.shape[2] // 2] = background
    node.GetImageData().Modified()
    view.look_at(result.fixed, node)
    Overlay(result).overlay_map(node, 1.0)
    picture = view.picture().astype(int)
    view.composite.SetForegroundOpacity(0)
    is_coloured = np.ptp(picture, axis=-1) > 60
    assert 0.02 < is_coloured.mean() < 0.8
    # Elsewhere the ultrasound is seen as if there were no map, but for a rim where both are mixed.
    same = (view.picture() == picture).all(axis=-1)
    assert (same | is_coloured).mean() > 0.9
    view.composite.SetForegroundOpacity(1)

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


def test_the_comparison_volume_is_not_saved(scene, result, tmp_path):
    Overlay(result).difference()
    assert scene.GetFirstNodeByName("MMReg comparison") is not None
    path = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(path))
    loaded = new_scene(tmp_path)
    assert loaded.ReadFromMRB(str(path), True, slicer.vtkMRMLMessageCollection())
    assert len(results_in(loaded)) == 1
    assert loaded.GetFirstNodeByName("MMReg comparison") is None


def test_slice_views_are_fitted_to_the_ultrasound(scene, view, result):
    fit_slice_views(scene_holds[id(scene)][0], result.fixed)
    node = view.composite.GetScene().GetFirstNodeByClass("vtkMRMLSliceNode")
    bounds = np.zeros(6)
    result.fixed.GetRASBounds(bounds)
    centre = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    np.testing.assert_allclose(centre, bounds.reshape(3, 2).mean(axis=1), atol=max(result.fixed.GetSpacing()))
    width, height = node.GetFieldOfView()[:2]
    size = np.ptp(bounds.reshape(3, 2), axis=1)
    assert size[0] <= width < 3 * size.max()
    assert size[1] <= height < 3 * size.max()


def test_every_comparison_shows_the_mr_that_was_selected_first(scene, result, smooth_volume, any_grid, tmp_path):
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("FLAIR", "T1_Gd", "ADC"):
        mrml_bridge.write_volume(result.warped[0], folder / f"warped_{name}.nii.gz")
    write_transform(SpatialTransform.identity(), folder / "transform.h5")
    moving = [add_volume(scene, name, np.ones((4, 4, 4)), np.eye(4)) for name in ("T1 Gd", "FLAIR", "ADC")]
    several = add_result(folder, Request(result.fixed, tuple(Moving(node) for node in moving), name="several"))
    assert [node.GetName() for node in several.warped] == [
        f"several: {name} registered" for name in ("T1_Gd", "FLAIR", "ADC")
    ]
