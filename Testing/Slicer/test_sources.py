"""Rules for every file of the module: nothing runs at import, every text that a user reads is translatable."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

MODULE = Path(__file__).parents[2] / "MMRegSlicer"
SOURCES = sorted([MODULE / "MMRegSlicer.py", *(MODULE / "MMRegSlicerLib").glob("*.py")])
UI = MODULE / "Resources" / "UI" / "MMRegSlicer.ui"
# Functions of Qt and Slicer that show a text to the user, with the index of the text among the arguments.
SHOWN = {
    "setText": 0,
    "setToolTip": 0,
    "setTitleText": 0,
    "SetTitleText": 0,
    "addItem": 0,
    "setLabelText": 0,
    "QLabel": 0,
    "errorDisplay": 0,
    "confirmOkCancelDisplay": 0,
    "getSaveFileName": 1,
}
# Names of programs and files, which are the same in every language.
NAMES = {"HTML (*.html)"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_runs_at_import(path):
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Try):  # what an older Slicer does not have
            assert all(isinstance(each, ast.ImportFrom | ast.Import) for each in statement.body)
            continue
        allowed = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign, ast.Expr)
        assert isinstance(statement, allowed), ast.unparse(statement)
        if isinstance(statement, ast.Expr):
            assert isinstance(statement.value, ast.Constant), ast.unparse(statement)  # a docstring
        elif isinstance(statement, ast.Assign):
            calls = [node for node in ast.walk(statement.value) if isinstance(node, ast.Call)]
            assert all(ast.unparse(call.func) in ("Request", "range") for call in calls), ast.unparse(statement)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_texts_for_the_user_are_translated(path):
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in SHOWN and len(call.args) > SHOWN[name]:
            assert not _is_plain_text(call.args[SHOWN[name]]), f"{path.name}:{call.lineno}: {ast.unparse(call)}"
        if name in ("_", "tr"):
            assert isinstance(call.args[0], ast.Constant), f"{path.name}:{call.lineno}: lupdate finds constants only"


def _is_plain_text(node: ast.expr) -> bool:
    words = []
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        words = [node.value]
    elif isinstance(node, ast.JoinedStr):
        words = [re.sub(r"<[^>]*>", "", part.value) for part in node.values if isinstance(part, ast.Constant)]
    return any(re.search(r"[A-Za-z]{2}", word) for word in words) and not NAMES & set(words)


def test_every_text_of_the_ui_file_is_translatable_and_every_control_has_a_tooltip():
    silent = {"QLabel", "QWidget", "ctkCollapsibleButton", "qMRMLWidget"}
    for widget in ElementTree.parse(UI).iter("widget"):
        properties = {each.get("name"): each for each in widget.findall("property")}
        for name in ("text", "toolTip", "noneDisplay"):
            if name in properties:
                assert properties[name].find("string").get("notr") != "true"
        assert widget.get("class") in silent or "toolTip" in properties, widget.get("name")
