"""docs/slicer.md: its scripts run, its screenshots exist, and it uses the words of the panel."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.assessment.maps import map_specs
from mrml_scene import small_case

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "slicer.md"
MODULE = ROOT / "MMRegSlicer"
# What the page emphasises although it is no text of the module: modules, menus and nodes of Slicer, a key, a remark.
OTHERS = {
    "B",
    "Data",
    "Edit → Application Settings → Modules → Additional module paths",
    "MMReg",
    "MMRegBrainTumor1",
    "MRBrainTumor1",
    "MRBrainTumor1 landmarks",
    "PyTorch",
    "Registration",
    "Sample Data",
    "Ultrasound (simulated) landmarks",
}


def texts_of_the_module() -> set[str]:
    """Every text that the user reads, the titles of the maps included, without the colon of a label."""
    ui = ElementTree.parse(MODULE / "Resources" / "UI" / "MMRegSlicer.ui").iter("string")
    texts = {each.text for each in ui if each.text}
    for path in [MODULE / "MMRegSlicer.py", *(MODULE / "MMRegSlicerLib").glob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "_":
                texts.add(call.args[0].value)
    maps = {f"{spec.title} ({spec.unit})" if spec.unit else spec.title for spec in map_specs().values()}
    return {text.removesuffix(":") for text in texts | maps}


def test_the_scripts_run_one_after_the_other(scene, blobs, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small_case(scene, blobs, np.array([3.0, -1.5, 1.5]))[0].SetName("US")
    names = {"slicer": slicer}
    for code in re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "T1 to US" in printed.splitlines()[0]
    assert printed.splitlines()[-1] == "finished: T1 to US"


def test_the_screenshots_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text(encoding="utf-8"))
    names = {Path(picture).name for picture in pictures}
    assert names == {path.name for path in (ROOT / "Resources" / "Screenshots").glob("*.png")}
    assert all((PAGE.parent / picture).is_file() for picture in pictures)


def test_the_page_uses_the_words_of_the_panel():
    text = re.sub(r"^```.*?^```|\*\*.*?\*\*", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    emphasised = {" ".join(each.split()).removesuffix(":") for each in re.findall(r"\*([^*\s][^*]*)\*", text)}
    remarks = {each for each in emphasised if len(each) > 100}
    assert len(remarks) == 1
    assert emphasised - remarks - OTHERS <= texts_of_the_module()
    assert len(emphasised & texts_of_the_module()) > 40
