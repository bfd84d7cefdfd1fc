"""The panel under PySide6 in place of PythonQt: each file in a process of its own, each function a test of its own."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("slicer", reason="SLICER WIDGET TESTS DID NOT RUN: slicer-core cannot be imported")
pytest.importorskip("PySide6", reason="SLICER WIDGET TESTS DID NOT RUN: PySide6_Essentials cannot be imported")

HERE = Path(__file__).parent
FILES = {path.stem: path for path in sorted((HERE / "widget").glob("panel_*.py"))}


def functions_of(path: Path) -> list[str]:
    """The test functions of a file; it is not imported, because it needs the stand-in."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [each.name for each in body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]


CASES = [(stem, name) for stem, path in FILES.items() for name in functions_of(path)]

# The texts of the failures of every test function.
Failures = dict[str, list[str]]


def run(path: Path, names: list[str], folder: Path) -> Failures:
    """Run some functions of a file in a process of its own; if it crashes or hangs, all of them have failed."""
    report = folder / f"{path.stem}.xml"
    command = [sys.executable, "-m", "standin.run", f"--junitxml={report}", *(f"{path}::{name}" for name in names)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    options = {"env": environment, "cwd": HERE.parents[1], "capture_output": True, "encoding": "utf-8"}
    try:
        finished = subprocess.run(command, timeout=300, check=False, **options)
    except subprocess.TimeoutExpired as error:
        return {name: [str(error)] for name in names}
    failures: Failures = {}
    for case in ElementTree.parse(report).iter("testcase") if report.is_file() else ():
        texts = [each.text or each.get("message", "") for each in case if each.tag in ("failure", "error", "skipped")]
        failures.setdefault(case.get("name", "").partition("[")[0], []).extend(texts)
    if set(failures) != set(names) or bool(finished.returncode) != any(failures.values()):
        output = finished.stdout[-6000:] + finished.stderr[-3000:]
        return {name: [f"exit code {finished.returncode}\n{output}"] for name in names}
    return failures


@pytest.fixture(scope="session")
def failures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Failures]:
    """``failures(stem)``: those of the selected functions of a file, which is run once."""
    folder = tmp_path_factory.mktemp("widget")
    selected = [
        item.callspec.params for item in request.session.items if "failures" in getattr(item, "fixturenames", ())
    ]

    @cache
    def of_file(stem: str) -> Failures:
        return run(FILES[stem], [each["name"] for each in selected if each["stem"] == stem], folder)

    return of_file


def test_files_were_found():
    assert len(FILES) >= 7
    assert len(CASES) >= 65


@pytest.mark.parametrize(("stem", "name"), CASES)
def test_panel(failures, stem, name):
    texts = failures(stem)[name]
    if texts:
        pytest.fail("\n".join(texts), pytrace=False)
