"""The module in the real Slicer: one start, one tour through the panel, each step a test of its own."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = Path(__file__).parent / "application" / "tour.py"
# Slicer's own, or of the tests: never taken from here.
NOT_OURS = {"numpy", "vtk", "slicer-core", "pyside6-essentials", "shiboken6"}
TIMEOUT_S = 240


def find_application() -> Path | None:
    """SLICER names the executable; otherwise the small Slicer beside the project, which runs with Python 3.11."""
    beside = ROOT.parent / "shared" / "slicer" / "run"
    found = Path(os.environ.get("SLICER", beside))
    return found if found.is_file() else None


def why_not(application: Path | None) -> str:
    if application is None:
        return "APPLICATION TESTS DID NOT RUN: no Slicer; SLICER names its executable, or ../shared/slicer holds one"
    if application.name == "run":
        libraries = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
        missing = [each for each in ("libvtkRenderingQt-9.1", "libITKCommon-5.2") if each not in libraries]
        missing += [each for each in ("Xvfb",) if shutil.which(each) is None and not os.environ.get("DISPLAY")]
        if missing:
            return f"APPLICATION TESTS DID NOT RUN: {', '.join(missing)} missing; see the README beside {application}"
    return ""


APPLICATION = find_application()
REASON = why_not(APPLICATION)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON or "none")]


def needed_distributions() -> set[str]:
    """What MMRegCore requires, and what that requires, without what Slicer has."""
    found: set[str] = set()
    waiting = ["mmreg"]
    while waiting:
        name = waiting.pop()
        for text in importlib.metadata.requires(name) or ():
            required = re.sub("[-_.]+", "-", re.match(r"[\w.-]+", text)[0]).lower()
            if ";" not in text and required not in found | NOT_OURS:
                found.add(required)
                waiting.append(required)
    return found


def link_packages(folder: Path) -> None:
    """Links to what Slicer's Python lacks: a whole virtual environment would replace its numpy and vtk."""
    for name in needed_distributions():
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__", "bin") and not (folder / top).exists():
                (folder / top).symlink_to(importlib.metadata.distribution(name).locate_file(top))


def steps_of(path: Path) -> list[str]:
    """The names in STEPS; the file is not imported, because it needs the application."""
    assigned = next(
        each.value
        for each in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(each, ast.Assign) and each.targets[0].id == "STEPS"
    )
    return [each.id for each in assigned.elts]


@dataclass(frozen=True)
class Tour:
    folder: Path
    output: str
    errors: dict[str, str]


@pytest.fixture(scope="session")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Tour:
    """Run once. MMREG_APPLICATION_SCREENSHOTS names a folder that receives the screenshots."""
    folder = tmp_path_factory.mktemp("application")
    packages, home = folder / "packages", folder / "home"
    packages.mkdir()
    home.mkdir()
    link_packages(packages)
    given = dict(os.environ)
    environment = {
        **{name: text for name, text in given.items() if name not in ("QT_QPA_PLATFORM", "VIRTUAL_ENV")},
        "HOME": str(home),  # a clean start: no settings of the user
        "SLICER_HOME": given.get("SLICER_HOME", str(Path.home() / ".cache" / "slicer-5.8.1-debian12")),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(packages))),
        "OMP_NUM_THREADS": "1",
    }
    command = [str(APPLICATION), "--no-splash", "--additional-module-paths", str(ROOT / "MMRegSlicer")]
    command += ["--python-script", str(TOUR), str(folder)]
    log = folder / "output.txt"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    shots = given.get("MMREG_APPLICATION_SCREENSHOTS")
    for picture in folder.glob("*.png") if shots else ():
        shutil.copy(picture, shots)
    steps = folder / "steps.json"
    errors = json.loads(steps.read_text(encoding="utf-8"))["errors"] if steps.is_file() else {}
    return Tour(folder, log.read_text(encoding="utf-8", errors="replace"), errors)


@pytest.mark.parametrize("step", steps_of(TOUR))
def test_tour(tour: Tour, step: str) -> None:
    error = tour.errors.get(step, f"not reached\n{tour.output[-4000:]}")
    if error:
        pytest.fail(error, pytrace=False)


def test_nothing_of_ours_is_in_the_error_log(tour: Tour) -> None:
    lines = [line for line in tour.output.splitlines() if re.search("error|warning|traceback", line, re.IGNORECASE)]
    assert [line for line in lines if "MMReg" in line] == []


def test_each_screenshot_shows_something(tour: Tour) -> None:
    names = {path.stem for path in tour.folder.glob("*.png") if path.stat().st_size > 20_000}
    assert names >= {"empty", "ready", "running", "result", "map", "landmarks"}


def test_the_links_hold_nothing_that_slicer_has() -> None:
    assert {"torch", "simpleitk", "safetensors", "jinja2", "pydicom"} <= needed_distributions()
    assert not needed_distributions() & NOT_OURS
