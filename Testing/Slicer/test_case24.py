"""A real patient through nodes, files, process and scene, against the core alone."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.config import DEFAULT_PRESET, load_preset, with_changes
from MMRegCore.io.landmarks import read_landmark_pairs
from MMRegCore.io.volumes import read_volume
from MMRegCore.pipeline import register
from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.parameters import ParameterSet, current_parameter_node
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import Result
from mrml_scene import add_linear, add_points, new_scene, points_in_world, translation
from slice_view import VIEWS, SliceView, save_png, shared_information

# Fewer steps than the preset takes.
CHANGES = {"lc2.iterations": "10", "lc2.search.extended_range_mm": "0"}
# The MR begins this far from its place.
OFF_MM = np.array([5.0, -4.0, 3.0])


def test_from_files_to_a_saved_scene(scene, case24, tmp_path):
    volumes = slicer.modules.volumes.logic()
    ultrasound = volumes.AddArchetypeVolume(str(case24["us"]), "US")
    mr = volumes.AddArchetypeVolume(str(case24["flair"]), "FLAIR")
    mr.SetAndObserveTransformNodeID(add_linear(scene, "off", translation(*OFF_MM)).GetID())
    truth, in_mr = read_landmark_pairs(case24["landmarks"])
    points = add_points(scene, "in MR", in_mr.points_ras)
    parameters = ParameterSet(current_parameter_node(scene))
    parameters.request = Request(ultrasound, (Moving(mr),), changes=CHANGES, device="cpu")
    views = [SliceView(scene, name, orientation, size=300) for name, orientation in VIEWS.items()]
    for view in views:
        view.look_at(ultrasound, mr)
    seen = [view.draw(foreground=0.0) for view in views]
    pictures = [[view.draw(foreground=1.0) for view in views]]

    result = MMRegSlicerLogic().startRequest(parameters.request).wait()
    parameters.result_transform = result.transform
    result.apply_transform(points)

    # The same landmarks and voxels as from the core alone.
    settings = with_changes(load_preset(DEFAULT_PRESET), CHANGES)
    initial = SpatialTransform.from_matrix(translation(*-OFF_MM))
    images = read_volume(case24["us"]), read_volume(case24["flair"])
    expected = register(*images, settings=settings, initial_transform=initial, device="cpu")
    in_us = expected.transform.apply_inverse(in_mr.points_ras)
    np.testing.assert_allclose(points_in_world(points), in_us, atol=1e-3)
    assert np.linalg.norm(in_us - truth.points_ras, axis=1).mean() < 2
    warped = slicer.util.arrayFromVolume(result.warped[0])
    np.testing.assert_allclose(warped, expected.warped[0].data[0].numpy(), atol=1e-2)
    found, alone = result.quality, expected.assessment.quality
    assert found.verdict.level == alone.verdict.level != "reject"
    assert found.model_selection.selected == alone.model_selection.selected != "initial"
    assert found.displacement_mm.mean == pytest.approx(alone.displacement_mm.mean, abs=1e-3)
    assert len(result.maps) == 3

    # The two images share more in every slice view than before.
    pictures.append([view.draw(foreground=1.0) for view in views])
    before, after = ([shared_information(us, mr) for us, mr in zip(seen, row, strict=True)] for row in pictures)
    assert all(late > early for early, late in zip(before, after, strict=True)), (before, after)
    rows = [[np.repeat(each[..., None], 3, axis=-1).astype(np.uint8) for each in row] for row in (seen, *pictures)]
    save_png(tmp_path / "case24.png", rows)

    # Saved and read back, everything is there.
    assert scene.WriteToMRB(str(tmp_path / "case24.mrb"))
    loaded = new_scene(tmp_path)
    assert loaded.ReadFromMRB(str(tmp_path / "case24.mrb"), True, slicer.vtkMRMLMessageCollection())
    again = ParameterSet(current_parameter_node(loaded))
    assert (again.request.preset, again.request.changes) == (DEFAULT_PRESET, CHANGES)
    assert (again.request.fixed.GetName(), again.request.moving_nodes[0].GetName()) == ("US", "FLAIR")
    kept = Result(again.result_transform)
    assert {node.GetName() for node in kept.transformed_nodes} == {"FLAIR", "in MR"}
    # Slicer writes its transforms with rounded numbers.
    np.testing.assert_allclose(points_in_world(loaded.GetFirstNodeByName("in MR")), in_us, atol=1e-3)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(kept.warped[0]), warped)
    assert kept.quality == result.quality
