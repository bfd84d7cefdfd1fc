"""The process that stays from one registration to the next, and the transform that comes before the rest."""

import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.errors import Cancelled, MMRegError
from MMRegSlicerLib.logic import MMRegSlicerLogic
from mrml_scene import QUICK, node_ids, small_case, snapshot

SHIFT_MM = np.array([3.0, -1.5, 1.5])
OPTIONS = {"changes": QUICK, "device": "cpu"}
POINTS = np.random.default_rng(0).uniform(-20, 20, (30, 3))


@pytest.fixture
def temporary(monkeypatch, tmp_path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def logic(temporary):
    made = MMRegSlicerLogic()
    yield made
    idle = idle_process(made)
    made.close()
    assert idle is None or not is_alive(idle)
    assert list(temporary.iterdir()) == []


@pytest.fixture
def case(scene, blobs):
    made = small_case(scene, blobs, SHIFT_MM)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return made


def is_alive(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


def idle_process(logic) -> int | None:
    idle = logic._warm._idle
    return None if idle is None else idle.process_id


def state(scene, case) -> tuple[object, ...]:
    return node_ids(scene), *map(snapshot, case)


def moved(result) -> np.ndarray:
    transform = result.transform.GetTransformFromParent()
    return np.array([transform.TransformPoint(point) for point in POINTS])


def poll_until(run, condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        run.poll()
        time.sleep(0.01)


def test_the_second_registration_runs_in_the_process_of_the_first(case, logic):
    logic.warmUp()
    number = idle_process(logic)
    first = logic.start(*case, **OPTIONS)
    result = first.wait()
    expected = moved(result)
    result.discard()
    progress, began = [], time.perf_counter()
    second = logic.start(*case, **OPTIONS, on_progress=progress.append)
    assert first.process_id == second.process_id == number
    poll_until(second, lambda: progress)
    assert time.perf_counter() - began < 1, "nothing is imported again"
    np.testing.assert_array_equal(moved(second.wait()), expected)
    assert idle_process(logic) == number
    logic.warmUp()
    assert idle_process(logic) == number


def test_two_at_a_time_have_a_process_each_and_one_stays(scene, case, logic):
    runs = [logic.start(*case, **OPTIONS) for _ in range(2)]
    while logic.poll():
        time.sleep(0.02)
    assert all(run.result is not None for run in runs)
    assert [is_alive(run.process_id) for run in runs].count(True) == 1


def test_cancel_at_random_moments_leaves_nothing_and_the_next_one_is_warm(scene, case, logic, temporary):
    before, moments = state(scene, case), random.Random(3)
    logic.warmUp()
    for _ in range(10):
        warm = idle_process(logic)
        events, end = [], time.monotonic() + moments.uniform(0, 2.5)
        run = logic.start(*case, **OPTIONS, on_finished=events.append, on_failed=events.append)
        assert run.process_id == warm
        while time.monotonic() < end and run.poll():
            time.sleep(0.01)
        began = time.monotonic()
        logic.cancelAll()
        assert time.monotonic() - began < 1
        if run.result is None:
            assert [type(each) for each in events] == [Cancelled]
            assert not is_alive(run.process_id)
        else:
            run.result.discard()
        assert is_alive(idle_process(logic))
        assert list(temporary.iterdir()) == []
        assert state(scene, case) == before


def test_a_process_that_is_killed_is_replaced(case, logic):
    logic.warmUp()
    first = idle_process(logic)
    os.kill(first, 9)
    while logic._warm._idle.is_alive:
        time.sleep(0.01)
    run = logic.start(*case, **OPTIONS)  # while it was idle, nobody need know
    assert run.process_id != first
    os.kill(run.process_id, 9)
    with pytest.raises(MMRegError, match=r"ended unexpectedly \(code -9\)"):
        run.wait()
    assert idle_process(logic) not in (None, first, run.process_id)
    assert logic.register(*case, **OPTIONS).verdict.level != "reject"


def test_an_error_is_told_and_the_next_registration_runs(case, logic):
    with pytest.raises(MMRegError, match="expected the device 'cuda:7' to be there"):
        logic.register(*case, changes=QUICK, device="cuda:7")
    assert logic.register(*case, **OPTIONS).verdict.level != "reject"


def test_nothing_is_started_while_packages_are_missing(logic, monkeypatch):
    monkeypatch.setattr("MMRegSlicerLib.dependencies.find_spec", lambda name: None if name == "torch" else object())
    logic.warmUp()
    assert idle_process(logic) is None


def test_the_process_ends_with_the_logic(temporary):
    logic = MMRegSlicerLogic()
    logic.warmUp()
    number = idle_process(logic)
    assert is_alive(number)
    del logic
    assert not is_alive(number)


def test_the_transform_comes_first_and_becomes_the_result(case, logic):
    seen, parents = [], []

    def on_transform(result):
        seen.append((result, result.is_preliminary, result.verdict, result.output_nodes, moved(result)))
        mr = case[1]
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        mr.AddObserver(event, lambda *_: parents.append(mr.GetTransformNodeID()))

    result = logic.start(*case, **OPTIONS, on_transform=on_transform).wait()
    ((preliminary, was_preliminary, verdict, outputs, where),) = seen
    assert (was_preliminary, outputs) == (True, ())
    assert not result.is_preliminary
    assert result.transform is preliminary.transform
    np.testing.assert_array_equal(where, moved(result))
    assert (verdict.level, tuple(verdict.reasons)) == (result.verdict.level, result.verdict.reasons)
    assert result.verdict == result.quality.verdict
    assert len(result.warped) == 1
    assert case[1].GetTransformNodeID() == result.transform.GetID()
    assert set(parents) <= {result.transform.GetID()}, "the MR is not moved back and forth"


def cancel(run, _scene, _case) -> None:
    run.cancel()


def kill(run, _scene, _case) -> None:
    os.kill(run.process_id, 9)


@pytest.mark.parametrize("end", [cancel, kill])
def test_a_transform_that_came_first_is_removed_when_the_rest_does_not_come(scene, case, logic, end):
    before, failed = state(scene, case), []
    run = logic.start(*case, **OPTIONS, on_transform=lambda _result: end(run, scene, case), on_failed=failed.append)
    poll_until(run, lambda: failed)
    assert run.result is None
    assert state(scene, case) == before


def test_closing_the_scene_after_the_transform(scene, case, logic):
    seen, failed = [], []
    run = logic.start(*case, **OPTIONS, on_transform=seen.append, on_failed=failed.append)
    poll_until(run, lambda: seen)
    scene.Clear(0)
    assert str(failed[0]) == "Registration cancelled: the scene was closed."
    assert scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 0


def test_deleting_the_mr_after_the_transform(scene, case, logic):
    before, seen, failed = (node_ids(scene), snapshot(case[0])), [], []
    run = logic.start(*case, **OPTIONS, on_transform=seen.append, on_failed=failed.append)
    poll_until(run, lambda: seen)
    scene.RemoveNode(case[1])
    assert str(failed[0]) == "Registration cancelled: T1 was deleted."
    assert set(node_ids(scene)) <= set(before[0])
    assert scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 0
    assert snapshot(case[0]) == before[1]


def test_a_transform_that_the_user_deletes_comes_again_with_the_rest(scene, case, logic):
    seen = []
    run = logic.start(*case, **OPTIONS, on_transform=seen.append)
    poll_until(run, lambda: seen)
    scene.RemoveNode(seen[0].transform)
    result = run.wait()
    assert result.transform is not seen[0].transform
    assert case[1].GetTransformNodeID() == result.transform.GetID()
    assert len(result.warped) == 1
