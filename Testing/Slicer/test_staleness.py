"""Whether the images of a result changed; what is copied for a bug report."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.transform import SpatialTransform
from MMRegSlicerLib.bug_report import bug_report
from MMRegSlicerLib.request import Moving, Request
from MMRegSlicerLib.result import add_result
from MMRegSlicerLib.staleness import changed_inputs, checksums, store_checksums
from mrml_scene import add_linear, add_volume, translation
from result_folder import write_result


@pytest.fixture
def request_of(scene, oblique_grid) -> Request:
    random = np.random.default_rng(2)
    values = random.normal(size=(2, *oblique_grid.shape))
    ultrasound, mr = (
        add_volume(scene, name, each, oblique_grid.ras_from_ijk)
        for name, each in zip(("Smith US", "Smith T1"), values, strict=True)
    )
    return Request(ultrasound, (Moving(mr),), changes={"lc2.iterations": "5"}, device="cpu")


@pytest.fixture
def result(scene, request_of, oblique_grid, smooth_volume, tmp_path):
    write_result(tmp_path, SpatialTransform.identity(), smooth_volume(oblique_grid), [])
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    made = add_result(tmp_path, request_of)
    store_checksums(made, checksums((made.fixed, *made.moving)))
    return made


def test_unchanged_images_are_not_stale_wherever_they_are_moved(scene, result):
    result.show(after=False)
    result.fixed.SetAndObserveTransformNodeID(add_linear(scene, "tracker", translation(1, 2, 3)).GetID())
    assert changed_inputs(result) == ()


@pytest.mark.parametrize("index", [0, 1])
def test_one_voxel_or_the_origin_is_enough(result, index):
    node = (result.fixed, *result.moving)[index]
    array = slicer.util.arrayFromVolume(node)
    array[3, 4, 5] += 1
    slicer.util.arrayFromVolumeModified(node)
    assert changed_inputs(result) == (node.GetName(),)
    array[3, 4, 5] -= 1
    node.SetOrigin(*(np.array(node.GetOrigin()) + 0.5))
    assert changed_inputs(result) == (node.GetName(),)


def test_hardened_and_deleted_images_are_no_reason(scene, result):
    result.accept(harden=True)
    assert changed_inputs(result) == ()
    scene.RemoveNode(result.moving[0])
    assert changed_inputs(result) == ()


def test_a_result_of_an_older_version_is_not_stale(result):
    result.transform.SetAttribute("MMReg.inputs", None)
    assert changed_inputs(result) == ()


def test_a_bug_report_has_versions_settings_sizes_and_no_names(scene, request_of):
    log = "reading /tmp/mmreg-1/moving0/Smith_T1.nrrd\nC:\\Users\\anna\\x.nrrd is empty\n"
    log += "smith t1: 3 levels; Smith US too"
    text = bug_report(request_of, log, scene)
    assert '"lc2.iterations": "5"' in text
    assert "MMReg 0" in text
    assert "torch 2" in text
    assert "ultrasound: 28 × 30 × 24 voxels of 1.4 × 1.1 × 1.8 mm" in text
    assert "3 levels" in text
    for name in ("smith", "anna", "moving0", "/tmp"):
        assert name not in text.lower(), text


def test_a_bug_report_without_images(scene):
    assert "MMReg" in bug_report(Request(), "", scene)
