"""Warped grid, glyphs and contours are shown in the slice view, over the ultrasound, and hidden again."""

import numpy as np
import pytest
import torch

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

from MMRegCore.io.transforms import write_transform
from MMRegCore.transform import composite_from_field
from MMRegSlicerLib.deformation import CONTOURS, GLYPHS, GRID, deformation_mode, show_deformation
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import Result, add_result
from mrml_scene import add_volume, node_ids
from slice_view import SliceView


@pytest.fixture
def result(scene, oblique_grid, smooth_field, tmp_path) -> Result:
    ones = np.full(oblique_grid.shape, 100.0)
    fixed = add_volume(scene, "US", ones, oblique_grid.ras_from_ijk)
    mr = add_volume(scene, "T1", ones, oblique_grid.ras_from_ijk)
    write_transform(
        composite_from_field(smooth_field(oblique_grid), torch.ones(oblique_grid.shape)), tmp_path / "transform.h5"
    )
    return add_result(tmp_path, Request(fixed, (Moving(mr),)))


@pytest.mark.parametrize("mode", [GRID, GLYPHS, CONTOURS])
def test_it_is_shown_over_the_ultrasound_and_hidden_again(scene, result, mode):
    view = SliceView(scene, "Red", "Axial")
    view.look_at(result.fixed, result.moving[0])
    plain = view.picture()
    before = node_ids(scene)

    show_deformation(result, mode)
    drawn = view.picture()
    show_deformation(result, "")
    again = view.picture()

    changed = (drawn != plain).any(axis=-1)
    assert 0.002 < changed.mean() < 0.7
    np.testing.assert_array_equal(again, plain)
    assert len(node_ids(scene)) - len(before) == 2  # the transform's own display node and its colours
    result.discard()
    assert result.transform.GetScene() is None
    assert set(node_ids(scene)) <= set(before)


def test_the_mode_is_read_from_the_display_node(result):
    assert deformation_mode(result.transform) == ""
    for mode in (GRID, GLYPHS, CONTOURS):
        show_deformation(result, mode)
        assert deformation_mode(result.transform) == mode
        assert result.transform.GetDisplayNode().GetRegionNode() is result.fixed
    show_deformation(result, "")
    assert deformation_mode(result.transform) == ""
