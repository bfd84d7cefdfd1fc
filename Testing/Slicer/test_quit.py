"""The application ends while a registration runs: quietly or by a crash."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

from MMRegSlicerLib.workspace import Workspace

ROOT = Path(__file__).parents[2]
# Stands for the application: starts a registration, prints its process number, and waits for a line.
APPLICATION = """
import sys, time
from pathlib import Path
import numpy as np
from mrml_scene import new_scene, small_case
from MMRegSlicerLib.logic import MMRegSlicerLogic

def texture(points, inverted=False):
    values = np.sin(points[..., 0] / 3) * np.cos(points[..., 1] / 4) + np.sin(points[..., 2] / 5)
    return 100 * (-values if inverted else values)

scene = new_scene(Path(sys.argv[1]))
idle = MMRegSlicerLogic()
idle.warmUp()
logic = MMRegSlicerLogic()
seen = []
registration = logic.start(*small_case(scene, texture, np.array([3.0, 0, 0])), device="cpu", on_progress=seen.append)
while not seen:
    logic.poll()
    time.sleep(0.02)
print(registration.process_id, registration.folder, idle._warm._idle.process_id, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def application(tmp_path):
    """The application, the numbers of its processes (one that computes, one that waits), the folder of the first."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "MMRegSlicer", ROOT / "Testing" / "Slicer")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", APPLICATION, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        number, folder, waiting = process.stdout.readline().split()
        numbers = int(number), int(waiting)
        assert all(map(is_alive, numbers))
        yield process, numbers, Path(folder)


def is_alive(number: int) -> bool:
    status = Path(f"/proc/{number}/stat")
    # A process whose parent is gone may wait for a moment to be buried.
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_quitting_leaves_neither_process_nor_folder(application):
    process, numbers, folder = application
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(30) == 0
    assert not any(map(is_alive, numbers))
    assert not folder.exists()


def test_after_a_crash_the_processes_end_by_themselves(application):
    process, numbers, _folder = application
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    deadline = time.monotonic() + 30
    while any(map(is_alive, numbers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_after_a_crash_the_next_start_removes_what_was_left(application, monkeypatch):
    process, numbers, folder = application
    assert (folder / "fixed.nrrd").is_file()
    temporary = folder.parent
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    beside = temporary / "mmreg-of-somebody-else"
    beside.mkdir()
    make_old(folder, beside)
    Workspace().close()
    assert folder.exists(), "the application is still alive"

    process.send_signal(signal.SIGKILL)
    process.wait(30)
    while any(map(is_alive, numbers)):
        time.sleep(0.1)
    make_old(folder)
    Workspace().close()
    assert not folder.exists()
    assert beside.exists(), "without a lock it is not ours"


def test_a_folder_that_was_only_just_made_is_left_alone(tmp_path, monkeypatch):
    """Between making the folder and taking its lock there is a moment."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fresh = tmp_path / "mmreg-fresh"
    fresh.mkdir()
    (fresh / "lock").touch()
    Workspace().close()
    assert fresh.exists()
    make_old(fresh)
    Workspace().close()
    assert not fresh.exists()


def make_old(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder, (time.time() - 3600,) * 2)
