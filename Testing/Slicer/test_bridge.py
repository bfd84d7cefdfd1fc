"""Nodes to files and back, parameter sets in the scene, loading of result folders; without any process."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer
import torch
import vtk

from MMRegCore.errors import InputError
from MMRegCore.evaluate.landmarks import target_registration_error
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.io.volumes import read_volume
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegSlicerLib import mrml_bridge
from MMRegSlicerLib.deformation import GRID, deformation_mode, show_deformation
from MMRegSlicerLib.landmarks import landmark_errors, pairing_warning
from MMRegSlicerLib.parameters import ParameterSet
from MMRegSlicerLib.request import Mask, Moving, Request
from MMRegSlicerLib.result import Result, add_result
from mrml_scene import (
    add_linear,
    add_points,
    add_segmentation,
    add_volume,
    new_scene,
    node_ids,
    points_in_world,
    snapshot,
    translation,
)
from result_folder import REVIEW, write_result

SHAPE = (24, 30, 28)


@pytest.fixture
def ultrasound(scene, oblique_grid):
    values = np.arange(np.prod(oblique_grid.shape)).reshape(oblique_grid.shape)
    return add_volume(scene, "US", values, oblique_grid.ras_from_ijk)


@pytest.fixture
def mr(scene, oblique_grid):
    return add_volume(scene, "T1", np.ones(SHAPE), oblique_grid.ras_from_ijk)


@pytest.fixture
def transform(oblique_grid, smooth_field) -> SpatialTransform:
    matrix = translation(4, -11, 6)
    field = composite_from_field(smooth_field(oblique_grid, 3.0), torch.ones(oblique_grid.shape))
    return field.then(SpatialTransform.from_matrix(matrix))


@pytest.fixture
def folder(tmp_path, oblique_grid, smooth_volume, transform) -> Path:
    """What the process writes."""
    write_result(tmp_path, transform, smooth_volume(oblique_grid))
    return tmp_path


class TestFiles:
    def test_a_volume_lies_where_its_node_says_and_the_node_stays_as_it_was(self, scene, ultrasound, tmp_path):
        storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName("/somewhere/else.nrrd")
        ultrasound.SetAndObserveStorageNodeID(storage.GetID())
        ultrasound.SetAndObserveTransformNodeID(add_linear(scene, "t", translation(50, 0, 0)).GetID())
        before = snapshot(ultrasound), node_ids(scene)
        mrml_bridge.write_volume(ultrasound, tmp_path / "us.nrrd")
        assert (snapshot(ultrasound), node_ids(scene)) == before
        written = read_volume(tmp_path / "us.nrrd")
        np.testing.assert_allclose(written.grid.ras_from_ijk, slicer_matrix(ultrasound), atol=1e-4)
        np.testing.assert_array_equal(written.data[0].numpy(), slicer.util.arrayFromVolume(ultrasound))

    def test_a_file_that_cannot_be_made_is_an_error(self, ultrasound, tmp_path):
        (tmp_path / "nowhere").write_text("a file, not a folder")
        with pytest.raises(InputError, match="could not write"):
            mrml_bridge.write_volume(ultrasound, tmp_path / "nowhere" / "us.nrrd")

    def test_a_segment_lies_on_its_image_even_below_another_transform(self, scene, ultrasound, tmp_path):
        inside = np.zeros(SHAPE, dtype=np.uint8)
        inside[5:12, 6:20, 7:15] = 1
        segmentation, segment = add_segmentation(scene, "Seg", ultrasound, inside)
        for node in (ultrasound, segmentation):
            node.SetAndObserveTransformNodeID(
                add_linear(scene, node.GetName(), translation(20, 0, 0)).GetID()
            )  # two transforms, the same place
        before = node_ids(scene)
        mrml_bridge.write_mask(Mask(segmentation, segment), ultrasound, tmp_path / "mask.nrrd")
        assert node_ids(scene) == before
        written = read_volume(tmp_path / "mask.nrrd")
        np.testing.assert_array_equal(written.data[0].numpy() > 0, inside > 0)

    def test_the_initial_transform_includes_all_parents_of_both(self, scene, ultrasound, mr, tmp_path):
        above_us = add_linear(scene, "a", translation(1, 2, 3), add_linear(scene, "b", np.diag([2.0, 1, 1, 1])))
        above_mr = add_linear(scene, "c", translation(0, 0, 50))
        ultrasound.SetAndObserveTransformNodeID(above_us.GetID())
        assert mrml_bridge.write_initial_transform(ultrasound, above_mr, tmp_path / "initial.h5")
        found = read_transform(tmp_path / "initial.h5").apply(np.array([[10.0, 20.0, 30.0]]))
        np.testing.assert_allclose(found, [[22.0, 22.0, -17.0]])
        assert not mrml_bridge.write_initial_transform(ultrasound, above_us, tmp_path / "none.h5")

    def test_a_deformable_initial_transform_stays_deformable(
        self, scene, ultrasound, transform, oblique_grid, tmp_path
    ):
        write_transform(transform, tmp_path / "deformable.h5")
        deformable = mrml_bridge.read_transform(tmp_path / "deformable.h5", scene, "deformable")
        shift = add_linear(scene, "shift", translation(0, 0, 5))
        ultrasound.SetAndObserveTransformNodeID(shift.GetID())
        mrml_bridge.write_initial_transform(ultrasound, deformable, tmp_path / "initial.h5")
        points = oblique_grid.points_ras()[::7, ::7, ::7].reshape(-1, 3)
        expected = transform.apply(points + np.array([0, 0, 5]))
        np.testing.assert_allclose(read_transform(tmp_path / "initial.h5").apply(points), expected, atol=1e-3)


def slicer_matrix(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


class TestParameterSet:
    def test_saved_in_a_bundle_and_read_back(self, scene, ultrasound, mr, folder, tmp_path):
        segmentation, segment = add_segmentation(scene, "Seg", ultrasound, np.ones(SHAPE))
        request = Request(
            fixed=ultrasound,
            moving=(Moving(mr), Moving()),
            fixed_mask=Mask(segmentation, segment),
            initial_transform=add_linear(scene, "initial", translation(1, 0, 0)),
            preset="mcbo-published",
            changes={"mcbo.half_width": "5"},
            device="cpu",
            name="first ultrasound",
        )
        node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "MMReg")
        parameters = ParameterSet(node)
        parameters.request = request
        assert parameters.request == request
        parameters.result_transform = add_result(folder, Request(fixed=ultrasound, moving=(Moving(mr),))).transform
        shown = slicer.util.arrayFromVolume(Result(parameters.result_transform).warped[0]).copy()
        show_deformation(Result(parameters.result_transform), GRID)
        assert scene.WriteToMRB(str(tmp_path / "case.mrb"))

        loaded = new_scene(tmp_path)
        assert loaded.ReadFromMRB(str(tmp_path / "case.mrb"), True, slicer.vtkMRMLMessageCollection())
        parameters = ParameterSet(loaded.GetFirstNodeByName("MMReg"))
        again = parameters.request
        assert [again.fixed.GetName(), again.moving_nodes[0].GetName(), again.initial_transform.GetName()] == [
            "US",
            "T1",
            "initial",
        ]
        assert (len(again.moving), again.fixed_mask.segment_id) == (2, segment)
        assert (again.preset, again.changes, again.device, again.name) == (
            request.preset,
            request.changes,
            request.device,
            request.name,
        )
        result = Result(parameters.result_transform)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(result.warped[0]), shown)
        assert result.quality.verdict == REVIEW
        assert result.report == "<html>Größe</html>"
        assert [node.GetAttribute("MMReg.title") for node in result.maps] == ["Expected error (mm)"]
        assert deformation_mode(result.transform) == GRID
        assert result.transform.GetDisplayNode().GetRegionNode() is again.fixed
        assert again.moving_nodes[0].GetTransformNodeID() == result.transform.GetID()
        result.discard()
        assert again.moving_nodes[0].GetTransformNodeID() is None
        assert loaded.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2

    def test_several_sets_are_independent_and_notify_once(self, scene, ultrasound, mr):
        sets = [ParameterSet(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "MMReg")) for _ in range(2)]
        notified = []
        sets[0].node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: notified.append(1))
        sets[0].request = Request(fixed=ultrasound, moving=(Moving(mr), Moving(mr)), preset="x")
        assert notified == [1]
        assert sets[1].request == Request()
        sets[0].request = Request(fixed=ultrasound, moving=(Moving(mr),))
        assert len(sets[0].request.moving) == 1
        scene.RemoveNode(ultrasound)
        assert sets[0].request.fixed is None

    @pytest.mark.parametrize("text", ["not JSON", "[1]"])
    def test_opens_with_settings_that_were_edited_by_hand(self, scene, text):
        node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "MMReg")
        node.SetParameter("changes", text)
        assert ParameterSet(node).request.changes == {}


class TestValidation:
    def test_names_what_is_missing(self, scene, ultrasound, mr):
        assert "ultrasound" in Request().validation_error()
        assert "MR" in Request(fixed=ultrasound).validation_error()
        assert "twice" in Request(ultrasound, (Moving(ultrasound),)).validation_error()
        assert "twice" in Request(ultrasound, (Moving(mr), Moving(mr))).validation_error()
        assert Request(ultrasound, (Moving(mr), Moving())).validation_error() == ""
        assert "half_width" in Request(ultrasound, (Moving(mr),), changes={"mcbo.half_width": "99"}).validation_error()
        assert "preset" in Request(ultrasound, (Moving(mr),), preset="unknown").validation_error()

    def test_refuses_what_is_no_single_valued_image(self, scene, ultrasound):
        empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        colour = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
        slicer.util.updateVolumeFromArray(colour, np.zeros((4, 4, 4, 3), dtype=np.uint8))
        assert "empty contains no image" in Request(ultrasound, (Moving(empty),)).validation_error()
        assert "colour" in Request(ultrasound, (Moving(colour),)).validation_error()

    def test_refuses_masks_and_mr_with_another_parent_transform(self, scene, ultrasound, mr):
        other = add_volume(scene, "FLAIR", np.ones(SHAPE), np.eye(4))
        moved = add_linear(scene, "moved", translation(1, 0, 0))
        other.SetAndObserveTransformNodeID(moved.GetID())
        assert "same parent transform" in Request(ultrasound, (Moving(mr), Moving(other))).validation_error()
        assert Request(ultrasound, (Moving(mr), Moving(other)), initial_transform=moved).validation_error() == ""
        assert "same parent transform" in Request(ultrasound, (Moving(mr),), fixed_mask=Mask(other)).validation_error()
        segmentation, _ = add_segmentation(scene, "Seg", ultrasound, np.ones(SHAPE))
        assert "segment" in Request(ultrasound, (Moving(mr),), fixed_mask=Mask(segmentation)).validation_error()

    def test_warns_when_the_initial_transform_leaves_out_parents(self, scene, ultrasound, mr):
        upper = add_linear(scene, "tracker", translation(9, 0, 0))
        lower = add_linear(scene, "calibration", translation(1, 0, 0), upper)
        mr.SetAndObserveTransformNodeID(lower.GetID())
        assert (
            "calibration would be ignored"
            in Request(ultrasound, (Moving(mr),), initial_transform=upper).initial_transform_warning()
        )
        assert Request(ultrasound, (Moving(mr),), initial_transform=lower).initial_transform_warning() == ""
        assert Request(ultrasound, (Moving(mr),)).initial_transform_warning() == ""


class TestResult:
    @pytest.fixture
    def request_(self, ultrasound, mr) -> Request:
        return Request(ultrasound, (Moving(mr),))

    def test_loads_all_files_of_the_folder(self, scene, request_, folder):
        result = add_result(folder, request_)
        assert [node.GetName() for node in result.maps] == ["T1 to US: Expected error"]
        assert result.quality.verdict == REVIEW
        assert result.report == "<html>Größe</html>"
        assert result.fixed is request_.fixed
        assert all(node.GetStorageNode() is None for node in (*result.warped, *result.maps, result.transform))

    def test_the_transform_alone_is_enough(self, scene, request_, folder):
        for path in folder.iterdir():
            if path.name != "transform.h5":
                path.unlink()
        result = add_result(folder, request_)
        assert (result.warped, result.maps, result.quality, result.report) == ((), (), None, "")

    def test_points_land_where_the_core_puts_them(self, scene, request_, folder, transform, oblique_grid):
        inside = oblique_grid.points_ras()[3:-3:6, 3:-3:6, 3:-3:6].reshape(-1, 3)
        fixed = np.concatenate([inside, oblique_grid.centre_ras + np.array([[200.0, 0, 0], [0, -150, 90]])])
        points = add_points(scene, "points", transform.apply(fixed))
        add_result(folder, request_).apply_transform(points)
        np.testing.assert_allclose(points_in_world(points), fixed, atol=1e-3)

    @pytest.mark.parametrize("is_transformed", [False, True])
    def test_landmarks_are_measured_as_the_core_does(
        self, scene, request_, folder, mr, transform, oblique_grid, is_transformed
    ):
        initial = add_linear(scene, "initial", translation(0, 0, 7))
        mr.SetAndObserveTransformNodeID(initial.GetID())
        tracker = add_linear(scene, "tracker", translation(60, 0, 0))
        request_.fixed.SetAndObserveTransformNodeID(tracker.GetID())
        result = add_result(folder, request_)
        us = oblique_grid.points_ras()[3::9, 3::9, 3::9].reshape(-1, 3)
        in_us = add_points(scene, "in US", us)
        in_us.SetAndObserveTransformNodeID(tracker.GetID())
        in_mr = add_points(scene, "in MR", us + np.array([[1.0, 2.0, 3.0]]))
        in_mr.SetAndObserveTransformNodeID(initial.GetID())
        if is_transformed:
            result.apply_transform(in_mr)
        found = landmark_errors(result, in_us, in_mr)

        points = Landmarks(us, tuple(f"{n}" for n in range(len(us))))
        before = SpatialTransform.from_matrix(translation(60, 0, -7))
        expected = target_registration_error(
            points, Landmarks(us + np.array([[1.0, 2.0, 3.0]]), points.labels), transform, initial=before
        )
        after = [each.after_mm for each in found]
        assert after == sorted(after, reverse=True)
        np.testing.assert_allclose(after, sorted(expected.after.per_point, reverse=True), atol=1e-3)
        assert np.mean([each.before_mm for each in found]) == pytest.approx(expected.before.mean, abs=1e-3)
        result.show(after=False)
        again = landmark_errors(result, in_us, in_mr)
        np.testing.assert_allclose([each.before_mm for each in again], [each.before_mm for each in found])

    def test_landmarks_are_paired_by_label_and_must_be_of_equal_number(self, scene, request_, folder, transform):
        result = add_result(folder, request_)
        us = np.array([[0.0, 0, 0], [10, 0, 0]])
        in_us, in_mr = add_points(scene, "in US", us), add_points(scene, "in MR", transform.apply(us)[::-1])
        for node, labels in ((in_us, "ab"), (in_mr, "ba")):
            for index, label in enumerate(labels):
                node.SetNthControlPointLabel(index, label)
        assert max(each.after_mm for each in landmark_errors(result, in_us, in_mr)) < 1e-3
        in_mr.SetNthControlPointLabel(0, "c")
        with pytest.raises(InputError, match="without a partner: b, c"):
            landmark_errors(result, in_us, in_mr)
        in_mr.SetNthControlPointLabel(1, "d")
        assert min(each.after_mm for each in landmark_errors(result, in_us, in_mr)) > 5
        assert "paired by their order" in pairing_warning(in_us, in_mr)
        in_mr.AddControlPoint(vtk.vtkVector3d(1, 2, 3))
        with pytest.raises(InputError, match="got 2 fixed and 3 moving"):
            landmark_errors(result, in_us, in_mr)

    @pytest.mark.parametrize("unset", ["UnsetNthControlPointPosition", "SetNthControlPointPositionMissing"])
    def test_a_landmark_that_is_not_placed_is_not_measured(self, scene, request_, folder, unset):
        result = add_result(folder, request_)
        in_us, in_mr = (add_points(scene, name, np.eye(3)) for name in ("in US", "in MR"))
        getattr(in_mr, unset)(1)
        with pytest.raises(InputError, match="to be placed; got .* of in MR without a position"):
            landmark_errors(result, in_us, in_mr)

    def test_what_the_readers_doubted_is_shown(self, scene, request_, folder):
        content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        image = {"name": "us", "reading": {"warnings": ["it does not say where it lies"]}}
        content["provenance"] = {"fixed": image, "moving": [{"name": "t1", "reading": None}]}
        (folder / "result.json").write_text(json.dumps(content), encoding="utf-8")
        assert add_result(folder, request_).warnings == ("Ultrasound: it does not say where it lies",)

    @pytest.mark.parametrize(
        ("text", "got"),
        [
            ('{"schema_version": 99, "quality": {}}', "got 99"),
            ("{}", "got none"),
            ("[1]", "got no JSON object"),
        ],
    )
    def test_a_result_of_another_schema_version_is_refused_in_one_line(self, scene, request_, folder, text, got):
        before = node_ids(scene)
        (folder / "result.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"expected a result.json of schema version 1; {got}") as caught:
            add_result(folder, request_)
        assert "\n" not in str(caught.value)
        assert set(node_ids(scene)) - set(before) <= {"vtkMRMLSubjectHierarchyNode1"}

    @pytest.mark.parametrize("broken", ["transform.h5", "warped_T1.nii.gz", "expected_error.nii.gz", "result.json"])
    def test_a_file_that_cannot_be_read_leaves_the_scene_as_it_was(self, scene, request_, folder, mr, broken):
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        before = node_ids(scene), snapshot(mr)
        (folder / broken).write_bytes(b"no")
        with pytest.raises(InputError):
            add_result(folder, request_)
        assert (node_ids(scene), snapshot(mr)) == before

    def test_discard_restores_every_parent_and_other_results_stay(self, scene, request_, folder, mr):
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        plan = add_linear(scene, "plan", translation(1, 1, 1))
        model = scene.AddNewNodeByClass("vtkMRMLModelNode", "tract")
        model.SetAndObserveTransformNodeID(plan.GetID())
        mr.SetAndObserveTransformNodeID(plan.GetID())
        before = snapshot(mr)
        first = add_result(folder, request_)
        first.apply_transform(model)
        between = node_ids(scene)
        second = add_result(folder, request_)
        assert second.transform.GetName() == "T1 to US (2)"
        assert second.warped[0].GetName() == "T1 to US (2): T1 registered"
        assert mr.GetTransformNodeID() == second.transform.GetID()
        second.discard()
        assert node_ids(scene) == between
        assert mr.GetTransformNodeID() == first.transform.GetID()
        first.discard()
        assert snapshot(mr) == before
        assert model.GetTransformNodeID() == plan.GetID()

    def test_accepting_hardens_only_when_asked(self, scene, request_, folder, mr):
        points = add_points(scene, "plan", np.array([[0.0, 0, 0]]))
        result = add_result(folder, request_)
        result.apply_transform(points)
        seen = points_in_world(points)
        result.accept()
        assert result.accepted
        assert points.GetTransformNodeID() == result.transform.GetID()
        result.remove_transform(mr)
        result.accept(harden=True)
        assert points.GetTransformNodeID() is None
        np.testing.assert_allclose(points_in_world(points), seen, atol=1e-6)
        assert mr.GetTransformNodeID() is None
