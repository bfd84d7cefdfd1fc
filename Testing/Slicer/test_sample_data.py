"""The sample: added to Sample Data, simulated in a process of its own, with a true transform that is correct."""

import sys
import tempfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.errors import Cancelled, MMRegError
from MMRegSlicerLib import sample_data
from MMRegSlicerLib.sample_data import MR_SAMPLE, SAMPLE, load_sample, register_sample, simulate_case
from mrml_scene import add_volume, node_ids, points_in_world, snapshot


@pytest.fixture
def mr(scene):
    """A bare brain of two balls, 3 mm."""
    ras_from_ijk = np.diag([3.0, 3.0, 3.0, 1.0])
    ras_from_ijk[:3, 3] = -75
    axis = 3.0 * np.arange(51) - 75
    radius = np.sqrt(sum(each**2 for each in np.meshgrid(axis, axis, axis, indexing="ij")))
    noise = np.random.default_rng(0).standard_normal(radius.shape)
    t1 = 900 * (radius < 50) + 500 * ((radius >= 50) & (radius < 58)) - 700 * (radius < 12)
    node = add_volume(scene, MR_SAMPLE, t1 * (1 + 0.03 * noise) + 200 * ((radius >= 58) & (radius < 64)), ras_from_ijk)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return node


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def test_the_true_transform_moves_the_mr_landmarks_to_the_ultrasound(scene, mr, temporary):
    before, stages = snapshot(mr), set()
    case = simulate_case(mr, lambda stage, fraction: stages.add(stage) or True)

    assert list(temporary.iterdir()) == []
    assert snapshot(mr) == before
    assert case.mr is mr
    in_us, in_mr = points_in_world(case.ultrasound_landmarks), points_in_world(case.mr_landmarks)
    distance_mm = np.linalg.norm(in_us - in_mr, axis=1)
    assert len(in_us) > 3
    assert 2 < distance_mm.mean() < 10
    case.mr_landmarks.SetAndObserveTransformNodeID(case.true_transform.GetID())
    # The truth is a spline of 2 mm that stands for the field.
    assert np.linalg.norm(points_in_world(case.mr_landmarks) - in_us, axis=1).max() < 0.1
    grey_values = slicer.util.arrayFromVolume(case.ultrasound)
    assert 0.1 < (grey_values > 0).mean() < 0.9
    assert stages >= {"finding the tissues", "simulating the ultrasound"}
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(case.ultrasound))
    assert (hierarchy.GetItemName(folder), hierarchy.GetNumberOfItemChildren(folder)) == ("MMReg sample", 5)


def test_cancel_leaves_nothing(scene, mr, temporary):
    before = node_ids(scene), snapshot(mr)
    with pytest.raises(Cancelled):
        simulate_case(mr, lambda stage, _fraction: not stage)
    assert list(temporary.iterdir()) == []
    assert (node_ids(scene), snapshot(mr)) == before


def test_closing_the_scene_meanwhile_leaves_nothing(scene, mr, temporary):
    def close_in_the_middle(stage: str, _fraction: float) -> bool:
        if stage and mr.GetScene() is not None:
            scene.Clear(0)
        return True

    with pytest.raises(Cancelled):
        simulate_case(mr, close_in_the_middle)
    assert list(temporary.iterdir()) == []
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0


def test_what_cannot_be_simulated_is_said_in_one_line(scene, temporary):
    empty = add_volume(scene, "nothing", np.zeros((20, 20, 20)), np.eye(4))
    before = node_ids(scene)
    with pytest.raises(MMRegError, match="expected 'mr' to show a brain") as caught:
        simulate_case(empty)
    assert "\n" not in str(caught.value)
    assert list(temporary.iterdir()) == []
    assert node_ids(scene) == before


@pytest.fixture
def offered(scene, mr, monkeypatch):
    """Slicer's module Sample Data, which brings the MR without a download."""
    source = SimpleNamespace(uris=["https://a"], fileNames=["a.nrrd"], nodeNames=[MR_SAMPLE], checksums=["SHA256:0"])
    found = SimpleNamespace(source=source, registered=[], downloaded=mr)

    class SampleDataLogic:
        def sourceForSampleName(self, name):  # noqa: N802
            return found.source if name == MR_SAMPLE else None

        def registerCustomSampleDataSource(self, **options):  # noqa: N802
            found.registered.append(options)

        def downloadSample(self, name):  # noqa: N802
            assert name == MR_SAMPLE
            if isinstance(found.downloaded, Exception):
                raise found.downloaded
            return found.downloaded

    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    return found


def test_it_is_offered_with_the_address_and_checksum_that_slicer_has(offered):
    register_sample("icon.png")
    (options,) = offered.registered
    assert callable(options.pop("customDownloader"))
    assert options == {
        "category": "MMReg",
        "sampleName": SAMPLE,
        "uris": "https://a",
        "fileNames": "a.nrrd",
        "nodeNames": MR_SAMPLE,
        "checksums": "SHA256:0",
        "thumbnailFileName": "icon.png",
    }
    offered.source = None
    register_sample("icon.png")
    assert len(offered.registered) == 1


@pytest.fixture
def application(monkeypatch):
    """What the application shows: a dialog that can be cancelled, errors."""
    shown = SimpleNamespace(errors=[], cancelled=False, closed=0, labels=[])

    class Dialog:
        wasCanceled = property(lambda _self: shown.cancelled)  # noqa: N815
        setLabelText = staticmethod(shown.labels.append)  # noqa: N815
        setValue = staticmethod(lambda _value: None)  # noqa: N815

        def close(self):
            shown.closed += 1

    monkeypatch.setattr(slicer.util, "createProgressDialog", lambda **_: Dialog(), raising=False)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, title: shown.errors.append(text), raising=False)
    monkeypatch.setattr(slicer, "app", SimpleNamespace(processEvents=lambda: None), raising=False)
    return shown


def test_errors_and_cancel_end_in_a_sentence_and_a_closed_dialog(offered, application, monkeypatch, temporary):
    application.cancelled = True
    assert load_sample() is None
    assert (application.errors, application.closed) == ([], 1)

    application.cancelled = False
    offered.downloaded = add_volume(slicer.mrmlScene, "nothing", np.zeros((20, 20, 20)), np.eye(4))
    assert load_sample() is None
    assert (len(application.errors), application.closed) == (1, 2)
    offered.downloaded = "/a/path"  # what SampleData gives when it could not load the file
    assert load_sample() is None
    assert "could not be downloaded" in application.errors[1]
    offered.downloaded = IndexError("list index out of range")  # without a network
    assert load_sample() is None
    assert application.errors[2] == application.errors[1]
    monkeypatch.setattr(sample_data.dependencies, "find_spec", lambda name: None)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: False, raising=False)
    assert load_sample() is None
    assert "Nothing was installed" in application.errors[3]
    assert list(temporary.iterdir()) == []
