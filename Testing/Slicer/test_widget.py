"""The panel under PySide6 in place of PythonQt, each file in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="SLICER WIDGET TESTS DID NOT RUN: slicer-core cannot be imported")
pytest.importorskip("PySide6", reason="SLICER WIDGET TESTS DID NOT RUN: PySide6_Essentials cannot be imported")

HERE = Path(__file__).parent
FILES = sorted((HERE / "widget").glob("panel_*.py"))


def test_files_were_found():
    assert len(FILES) >= 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panel(path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "standin.run", str(path)]
    finished = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-3000:]
