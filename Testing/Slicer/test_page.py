"""The user guide: its screenshots exist, and it uses the words of the panel. The how-to: the module's scripts run."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.assessment.maps import map_specs
from MMRegCore.assessment.verdict import REJECTED_MM, judge
from mrml_scene import small_case

ROOT = Path(__file__).parents[2]
PAGE, HOW_TO = (ROOT / "docs" / name for name in ("user-guide.md", "how-to.md"))
MODULE = ROOT / "MMRegSlicer"
# What the page emphasises although it is no text of the module: modules, menus and nodes of Slicer, a key, a remark.
OTHERS = {
    "B",
    "Data",
    "MMReg",
    "MMRegBrainTumor1",
    "MRBrainTumor1",
    "MRBrainTumor1 landmarks",
    "Markups",
    "Sample Data",
    "Transforms",
    "Ultrasound (simulated) landmarks",
}


def texts_of_the_module() -> set[str]:
    """Every text that the user reads, without the colon of a label."""
    ui = ElementTree.parse(MODULE / "Resources" / "UI" / "MMRegSlicer.ui").iter("string")
    texts = {each.text for each in ui if each.text}
    for path in [MODULE / "MMRegSlicer.py", *(MODULE / "MMRegSlicerLib").glob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "_":
                texts.add(call.args[0].value)
    texts |= {f"{spec.title} ({spec.unit})" if spec.unit else spec.title for spec in map_specs().values()}
    return {text.removesuffix(":") for text in texts}


def test_the_scripts_run_one_after_the_other(scene, blobs, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small_case(scene, blobs, np.array([3.0, -1.5, 1.5]))[0].SetName("US")
    names = {"slicer": slicer}
    scripts = re.findall(r"^```py\n(.*?)^```", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(scripts) == 2
    for code in scripts:
        exec(compile(code, str(HOW_TO), "exec"), names)
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


def test_the_page_quotes_the_reasons_of_the_verdict():
    quoted = re.findall(r'^\| "([^"]+)"', PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) == 6
    reasons = [
        reason
        for selected in ("initial", "rigid")
        for reason in judge(
            REJECTED_MM + 1,
            SimpleNamespace(selected=selected, rival_mm=6.0),
            [0.3],
            SimpleNamespace(folding_voxels=7),
        ).reasons
    ]
    for quote in quoted:
        pattern = re.escape(quote).replace("…", r"[\d.]+")
        assert any(re.match(pattern, reason) for reason in reasons), quote
