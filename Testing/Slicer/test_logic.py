"""Registration from nodes to nodes through the real process: result, chain of transforms, cancel, errors."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.errors import Cancelled, InputError, MMRegError
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.runner import Worker
from mrml_scene import QUICK, add_linear, add_points, node_ids, points_in_world, small_case, snapshot, translation

SHIFT_MM = np.array([3.0, -1.5, 1.5])
OPTIONS = {"changes": QUICK, "device": "cpu"}


@pytest.fixture
def logic(monkeypatch, tmp_path) -> MMRegSlicerLogic:
    """The logic, with temporary folders where the test can count them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return MMRegSlicerLogic()


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def case(scene, blobs):
    return small_case(scene, blobs, SHIFT_MM)


def test_registers_and_leaves_everything_in_one_folder(scene, case, logic, tmp_path):
    ultrasound, mr = case
    points = np.array([[4.0, -6.0, 3.0], [-8.0, 2.0, 7.0], [0.0, 9.0, -9.0]])
    landmarks = add_points(scene, "in MR", points + SHIFT_MM)
    before = node_ids(scene), snapshot(ultrasound), snapshot(mr)

    result = logic.register(ultrasound, mr, **OPTIONS)

    assert list(tmp_path.iterdir()) == []
    result.apply_transform(landmarks)
    error_mm = np.linalg.norm(points_in_world(landmarks) - points, axis=1)
    assert error_mm.max() < 0.3
    assert mr.GetTransformNodeID() == result.transform.GetID()
    assert [node.GetName() for node in result.warped] == ["T1 to Ultrasound: T1 registered"]
    assert slicer.util.arrayFromVolume(result.warped[0]).shape == slicer.util.arrayFromVolume(ultrasound).shape
    assert result.quality.displacement_mm.mean == pytest.approx(np.linalg.norm(SHIFT_MM), abs=0.3)
    assert result.quality.model_selection.selected != "initial"
    assert result.quality.verdict.level != "reject"
    titles = [node.GetAttribute("MMReg.title") for node in result.maps]
    assert titles == ["Expected error (mm)", "Displacement (mm)", "Volume change (Jacobian determinant)"]
    assert "<html" in result.report
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.transform))
    assert hierarchy.GetItemName(folder) == "T1 to Ultrasound"
    assert all(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == folder for node in result.warped)
    assert snapshot(ultrasound) == before[1]

    result.show(after=False)
    assert snapshot(mr) == before[2]
    result.show(after=True)
    assert result.is_shown_after

    result.discard()
    assert set(node_ids(scene)) - set(before[0]) <= {hierarchy.GetID()}
    assert snapshot(mr) == before[2]
    assert landmarks.GetTransformNodeID() is None
    assert hierarchy.GetItemByName("T1 to Ultrasound") == 0


def test_every_transform_above_either_image_counts(scene, case, logic):
    """Tracking moves ultrasound and MR in the scene; the registration starts from there and stays below the tracker."""
    ultrasound, mr = case
    angle = np.deg2rad(30)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tracker = add_linear(scene, "Tracker", translation(100, -40, 20) @ turn)
    probe = add_linear(scene, "Probe", translation(0, 5, -60), tracker)
    patient = add_linear(scene, "Patient", translation(0, 0, 33) @ turn.T)
    ultrasound.SetAndObserveTransformNodeID(probe.GetID())
    mr.SetAndObserveTransformNodeID(patient.GetID())
    # What the MR shows at p + shift belongs to p in the ultrasound, each in its own space.
    points = np.array([[4.0, -6.0, 3.0], [-8.0, 2.0, 7.0], [0.0, 9.0, -9.0]])
    in_us, in_mr = add_points(scene, "in US", points), add_points(scene, "in MR", points + SHIFT_MM)
    in_us.SetAndObserveTransformNodeID(probe.GetID())
    # Correct up to the shift.
    initial = add_linear(scene, "Initial", translation(100, -40, 20) @ turn @ translation(0, 5, -60))

    result = logic.register(ultrasound, [mr], initialTransform=initial, **OPTIONS)

    result.apply_transform(in_mr)
    assert np.linalg.norm(points_in_world(in_mr) - points_in_world(in_us), axis=1).max() < 0.3
    assert result.transform.GetTransformNodeID() == probe.GetID()
    assert all(node.GetTransformNodeID() == probe.GetID() for node in result.warped)
    tracker.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(translation(-7, 8, 9)))
    assert np.linalg.norm(points_in_world(in_mr) - points_in_world(in_us), axis=1).max() < 0.3
    result.discard()
    assert mr.GetTransformNodeID() == patient.GetID()


def test_landmarks_guide_from_where_nothing_overlaps(scene, case, logic):
    """Each list counts in its image's own space, whatever transforms are above; the list in the MR goes with the MR."""
    ultrasound, mr = case
    far = add_linear(scene, "Far", translation(300, -200, 100))
    mr.SetAndObserveTransformNodeID(far.GetID())
    points = np.array([[8.0, -6.0, 3.0], [-8.0, 2.0, 7.0], [0.0, 9.0, -9.0]])
    in_us = add_points(scene, "in US", points)
    in_mr = add_points(scene, "in MR", (points + SHIFT_MM)[[2, 0, 1]])
    in_mr.SetAndObserveTransformNodeID(far.GetID())
    for each, labels in ((in_us, "abc"), (in_mr, "cab")):
        for index, label in enumerate(labels):
            each.SetNthControlPointLabel(index, label)

    result = logic.register(ultrasound, mr, landmarks=(in_us, in_mr), landmarkErrorMm=1, **OPTIONS)

    given = result.quality.landmarks
    assert (given.count, given.error_mm, given.motion) == (3, 1.0, "rigid")
    assert given.start.max < 0.01
    assert result.guiding_landmarks == (in_us, in_mr)
    assert in_mr.GetTransformNodeID() == result.transform.GetID()
    assert np.linalg.norm(points_in_world(in_mr)[[1, 2, 0]] - points, axis=1).max() < 0.5
    result.show(after=False)
    assert in_mr.GetTransformNodeID() == far.GetID()
    result.show(after=True)
    result.discard()
    assert in_mr.GetTransformNodeID() == far.GetID()


def test_a_list_of_landmarks_elsewhere_counts_where_it_is_seen_and_stays(scene, case, logic):
    ultrasound, mr = case
    mr.SetAndObserveTransformNodeID(add_linear(scene, "Far", translation(300, -200, 100)).GetID())
    in_us = add_points(scene, "in US", np.array([[4.0, -6.0, 3.0]]))
    in_mr = add_points(scene, "in MR", np.array([[304.0, -206.0, 103.0]]) + SHIFT_MM)
    result = logic.register(ultrasound, mr, landmarks=(in_us, in_mr), **OPTIONS)
    assert result.quality.landmarks.motion == "translation"
    assert result.quality.landmarks.start.max < 0.01
    assert in_mr.GetTransformNodeID() is None


def test_landmarks_that_are_no_pairs_are_told_before_anything_runs(scene, case, logic):
    in_us, in_mr = add_points(scene, "in US", np.eye(3)), add_points(scene, "in MR", np.eye(3)[:2])
    with pytest.raises(InputError, match="got 3 fixed and 2 moving"):
        logic.register(*case, landmarks=(in_us, in_mr), **OPTIONS)
    request = logic.makeRequest(*case, landmarks=(in_us, None))
    assert request.validation_error() == "Select the guiding landmarks of both images, or of neither."
    request = logic.makeRequest(*case, landmarks=(in_us, in_us))
    assert request.validation_error() == "The same point list is selected for both images."
    for error in (0, "none", ""):
        request = logic.makeRequest(*case, landmarks=(in_us, in_mr), landmarkErrorMm=error)
        assert request.validation_error() == "Enter the error of the landmarks, in mm."
    assert request.without(in_mr).moving_landmarks is None


def test_callbacks_come_in_the_thread_that_polls(case, logic):
    events = []
    run = logic.start(
        case[0], case[1], **OPTIONS, on_progress=events.append, on_finished=events.append, on_failed=events.append
    )
    while logic.poll():
        time.sleep(0.05)
    assert isinstance(events[-1], Result)
    assert run.result is events[-1]
    fractions = [each.fraction for each in events[:-1]]
    assert len(fractions) > 5
    assert fractions == sorted(fractions)
    assert all(each.stage for each in events[:-1])
    assert is_alive(run.process_id), "it waits for the next registration"
    logic.close()
    assert not is_alive(run.process_id)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_cancel_leaves_nothing(scene, case, logic, tmp_path, share):
    before = node_ids(scene), snapshot(case[0]), snapshot(case[1])
    events, fraction = [], [-1.0]
    run = logic.start(
        *case,
        **OPTIONS,
        on_progress=lambda each: fraction.__setitem__(0, each.fraction),
        on_finished=events.append,
        on_failed=events.append,
    )
    deadline = time.monotonic() + 60
    while share and fraction[0] < share and time.monotonic() < deadline:
        assert run.poll()
        time.sleep(0.01)
    start = time.monotonic()
    logic.cancelAll()
    assert time.monotonic() - start < 1
    assert not is_alive(run.process_id)
    assert [type(each) for each in events] == [Cancelled]
    assert not run.poll()
    assert list(tmp_path.iterdir()) == []
    assert (node_ids(scene), snapshot(case[0]), snapshot(case[1])) == before


def test_closing_the_scene_cancels(scene, case, logic, tmp_path):
    run = logic.start(*case, on_failed=lambda error: events.append(str(error)))
    events: list[str] = []
    scene.Clear(0)
    assert events == ["Registration cancelled: the scene was closed."]
    assert not is_alive(run.process_id)
    assert list(tmp_path.iterdir()) == []


def test_deleting_an_input_cancels(scene, case, logic, tmp_path):
    events: list[str] = []
    run = logic.start(*case, on_failed=lambda error: events.append(str(error)))
    scene.RemoveNode(case[1])
    assert events == ["Registration cancelled: T1 was deleted."]
    assert not is_alive(run.process_id)
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_registration_without_references_ends(case, logic, tmp_path):
    run = logic.start(*case)
    process_id, folder = run.process_id, run.folder
    logic.cancelAll()
    del run
    assert not is_alive(process_id)
    assert not folder.exists()


def test_errors_of_the_process_come_as_one_line(scene, case, logic, tmp_path):
    before = node_ids(scene)
    far = add_linear(scene, "far", translation(500, 0, 0))
    case[1].SetAndObserveTransformNodeID(far.GetID())
    with pytest.raises(InputError, match=r"expected the fields of view .* to overlap") as caught:
        logic.register(*case)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert node_ids(scene) == [*before, far.GetID()]


def test_a_process_that_dies_is_an_error(case, logic, tmp_path):
    run = logic.start(*case)
    os.kill(run.process_id, 9)
    with pytest.raises(MMRegError, match="ended unexpectedly"):
        run.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_stopped_by_a_handler_calls_no_other():
    worker, events = Worker(["-c", "print('one'); print('two')"]), []

    def stop(event):
        events.append(event)
        worker.stop()

    while worker.poll({"log": stop, "exit": events.append}):
        time.sleep(0.02)
    assert events == [{"event": "log", "line": "one"}]
    assert not is_alive(worker.process_id)
    assert not worker.poll({"log": stop, "exit": events.append})


def test_a_worker_reports_its_exit_once_and_last():
    worker, events = Worker(["-c", "import sys; print('one'); sys.exit(3)"]), []
    while worker.poll({"log": events.append, "exit": events.append}):
        time.sleep(0.02)
    worker.poll({"exit": events.append})
    assert events == [{"event": "log", "line": "one"}, {"event": "exit", "code": 3}]


def test_missing_packages_are_an_error_before_anything_starts(case, logic, monkeypatch):
    monkeypatch.setattr("MMRegSlicerLib.dependencies.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(MMRegError, match="torch must be installed first"):
        logic.register(*case)


def test_importing_the_logic_imports_neither_torch_nor_qt():
    code = (
        "import sys; import MMRegSlicerLib.logic; "
        "sys.exit(str({'torch', 'qt', 'ctk', 'PySide6', 'matplotlib'} & set(sys.modules) or ''))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "MMRegSlicer")])}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert finished.stderr.strip() == ""
