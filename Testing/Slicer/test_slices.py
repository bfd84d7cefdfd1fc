"""Rendered slice views: the MR matches the ultrasound after the registration, and not before."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

from MMRegCore.io.transforms import write_transform
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import add_result
from mrml_scene import add_volume, translation
from slice_view import VIEWS, SliceView

SHIFT_MM = np.array([6.0, -5.0, 4.0])


@pytest.fixture
def request_(scene, blobs) -> Request:
    """The same texture twice, SHIFT_MM apart."""
    ras_from_ijk = np.diag([1.5, 1.5, 1.5, 1.0])
    ras_from_ijk[:3, 3] = -23.25
    points = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij")[::-1], axis=-1) * 1.5 - 23.25
    ultrasound = add_volume(scene, "US", blobs(points), ras_from_ijk)
    mr = add_volume(scene, "T1", blobs(points - SHIFT_MM), ras_from_ijk)
    for node in (ultrasound, mr):
        display = node.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(-150, 150)
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    return Request(ultrasound, (Moving(mr),))


@pytest.mark.parametrize("name", VIEWS)
def test_the_mr_matches_the_ultrasound_after_registration(scene, request_, tmp_path, name):
    view = SliceView(scene, name, VIEWS[name])
    view.look_at(request_.fixed, request_.moving_nodes[0])
    write_transform(SpatialTransform.from_matrix(translation(*SHIFT_MM)), tmp_path / "transform.h5")

    ultrasound = view.draw(foreground=0.0)
    before = view.draw(foreground=1.0)
    result = add_result(tmp_path, request_)
    after = view.draw(foreground=1.0)
    result.show(after=False)
    again = view.draw(foreground=1.0)

    middle = np.s_[60:-60, 60:-60]
    correlation = [np.corrcoef(ultrasound[middle].ravel(), each[middle].ravel())[0, 1] for each in (before, after)]
    assert ultrasound[middle].std() > 10
    assert correlation[0] < 0.6
    assert correlation[1] > 0.95
    np.testing.assert_array_equal(again, before)
