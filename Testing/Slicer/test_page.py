"""docs/slicer.md: its scripts run, its pictures are there."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from mrml_scene import small_case

PAGE = Path(__file__).parents[2] / "docs" / "slicer.md"


def test_the_scripts_run_one_after_the_other(scene, blobs, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small_case(scene, blobs, np.array([3.0, -1.5, 1.5]))[0].SetName("US")
    names = {"slicer": slicer}
    for code in re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    told = capsys.readouterr().out
    assert "T1 to US" in told.splitlines()[0]
    assert told.splitlines()[-1] == "done: T1 to US"


def test_the_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text(encoding="utf-8"))
    names = {Path(picture).name for picture in pictures}
    assert names == {path.name for path in (PAGE.parents[1] / "Resources" / "Screenshots").glob("*.png")}
    assert all((PAGE.parent / picture).is_file() for picture in pictures)
