"""The module opened in a fresh scene, and what tests do to it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from PySide6 import QtWidgets

import standin
from mrml_scene import QUICK, new_scene, node_ids, scene_holds, small_case, snapshot

SHIFT_MM = np.array([3.0, -1.5, 1.5])


class Opened:
    """The module as a user sees it."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.module = standin.open_module()
        self.holder: QtWidgets.QWidget = self.module.holder
        self.panel: Any = self.module.widget.panel
        self.ui: Any = self.panel.ui
        self.holder.resize(400, 1000)
        self.holder.show()
        self.process_ids: list[int] = []

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Process events until a condition is met."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s; status: {self.ui.statusLabel.text()}"
            QtWidgets.QApplication.processEvents()
            time.sleep(0.005)

    def request(self, **changes: Any) -> None:
        """Change the parameter set in the scene."""
        from dataclasses import replace

        parameters = self.panel._parameters
        parameters.request = replace(parameters.request, **changes)

    def register(self) -> Any:
        """Click Register; return the run."""
        assert self.ui.registerButton.isEnabled(), self.ui.statusLabel.text()
        self.ui.registerButton.click()
        (run,) = self.panel.logic._runs
        self.process_ids.append(run.process_id)
        return run

    def assert_nothing_left(self) -> None:
        """No process but the one that waits for the next registration, no temporary folder."""
        idle = self.panel.logic._warm._idle
        waiting = () if idle is None else (idle.process_id,)
        assert not any(Path(f"/proc/{number}").exists() for number in {*self.process_ids}.difference(waiting))
        assert list(self.temporary.glob("mmreg-*")) == []


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> QtWidgets.QApplication:
    return standin.install(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def opened(application: QtWidgets.QApplication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """The module opened in an empty scene; errors in callbacks fail the test."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    raised: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: raised.append(error))
    scene = new_scene(tmp_path)
    made = Opened(temporary)
    yield made
    idle = made.panel.logic._warm._idle
    made.module.widget.cleanup()
    assert made.panel.logic._warm._idle is None
    assert idle is None or not idle.is_alive
    made.assert_nothing_left()
    made.holder.close()
    made.holder.deleteLater()
    application.processEvents()
    scene.Clear(1)
    scene_holds.pop(id(scene))
    assert not raised, raised


@pytest.fixture
def case(opened: Opened, blobs: Callable[..., np.ndarray]) -> SimpleNamespace:
    """A small case in the scene, selected in the panel with the default preset, with the state of the scene."""
    from MMRegSlicerLib.request import Moving

    ultrasound, mr = small_case(slicer.mrmlScene, blobs, SHIFT_MM)
    opened.request(fixed=ultrasound, moving=(Moving(mr),), changes=QUICK, device="cpu")
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def state() -> tuple[object, ...]:
        return node_ids(slicer.mrmlScene), snapshot(ultrasound), snapshot(mr)

    before = state()
    return SimpleNamespace(ultrasound=ultrasound, mr=mr, unchanged=lambda: state() == before)


@pytest.fixture(scope="session")
def files_of_the_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture
def result_files(opened: Opened, case: SimpleNamespace, files_of_the_case: Path) -> Path:
    """The folder that a registration of the case writes, with a real verdict; made once."""
    from MMRegSlicerLib.command import write_inputs

    folder = files_of_the_case / "result"
    if not folder.exists():
        arguments = write_inputs(opened.panel.form.request, files_of_the_case)
        subprocess.run([sys.executable, "-m", "MMRegCore", *arguments], check=True, capture_output=True)
    return folder
