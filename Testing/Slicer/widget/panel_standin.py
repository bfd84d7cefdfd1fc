"""The stand-in is strict: what is not listed cannot be used, and what is listed is what the module uses."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PySide6 import QtWidgets

from standin.pythonqt import connect
from standin.slicer_api import APPLICATION, CTK, MRML, QT, UTIL

MODULE = Path(__file__).parents[3] / "MMRegSlicer"
SOURCES = sorted([MODULE / "MMRegSlicer.py", *(MODULE / "MMRegSlicerLib").glob("*.py")])
UI = MODULE / "Resources" / "UI" / "MMRegSlicer.ui"

# Slicer's Python: the base classes of a module, its scene, the modules Sample Data and PyTorchUtils, slicer.util.
OF_SLICERS_PYTHON = {
    "addObserver",
    "acknowledgementText",
    "arrayFromMarkupsControlPoints",
    "arrayFromVolume",
    "delayDisplay",
    "downloadSample",
    "fileNames",
    "helpText",
    "installTorch",
    "mrmlScene",
    "nodeNames",
    "registerCustomSampleDataSource",
    "removeObserver",
    "removeObservers",
    "resourcePath",
    "sourceForSampleName",
    "updateVolumeFromArray",
}


def as_module(code: str, **names):
    """Run code as if it were the module's own."""
    exec(compile(code, str(MODULE / "MMRegSlicerLib" / "tried.py"), "exec"), names)


@pytest.mark.parametrize(
    "code",
    [
        "label.setTextFormat(1)",  # exists in Qt, is not listed
        "label.tetx",
        "label.note = 1",  # PythonQt makes no attributes
        "line.text()",  # a property is no method
        "line.text = 3.5j",
        "selector.currentNodeID",
        "label.connect('linkActivated(QString)', print)",
        "selector.connect('currentNodeChanged(bool)', print)",
        "qt.QSpinBox()",
    ],
)
def test_what_is_not_listed_raises(application, code):
    import qt
    import slicer

    names = {"label": qt.QLabel(), "line": qt.QLineEdit(), "selector": slicer.qMRMLNodeComboBox(), "qt": qt}
    with pytest.raises((AttributeError, TypeError)):
        as_module(code, **names)


def test_properties_are_attributes_and_tests_see_pyside(application):
    import qt

    line, read = qt.QLineEdit(), []
    as_module("line.text = 'a'; read.append(line.text)", line=line, read=read)
    assert read == ["a"]
    assert line.text() == "a"


def test_every_signal_that_the_module_connects_is_listed():
    listed = {signal for table in (QT, CTK, MRML) for api in table.values() for signal in api.signals}
    used = set()
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "connect":
                used.add(call.args[0].value)
    assert used == listed | {"startupCompleted()"}  # Base/QTGUI/qSlicerApplication.h


def test_every_class_that_is_listed_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    text += UI.read_text(encoding="utf-8")
    bases = {api.base for api in QT.values()}
    for table in (QT, CTK, MRML):
        for name in table:
            assert name in bases or re.search(rf"\b{name}\b", text), name


def test_every_member_that_is_listed_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES) + UI.read_text(encoding="utf-8")
    inner = {"children", "layout", "objectName"}  # used by slicer.util and by the application
    for table in (QT, CTK, MRML):
        for name, api in table.items():
            for member in {*api.properties, *api.methods} - inner:
                assert re.search(rf"\b{member}\b", text), f"{name}.{member}"


def test_every_call_of_qt_ctk_or_the_application_is_listed_with_its_header(capsys):
    """Qt's members begin with a small letter, VTK's and MRML's with a capital: so all of the former can be found."""
    widgets = {element.get("name") for element in ElementTree.parse(UI).iter() if element.get("name")}
    headers: dict[str, set[str]] = {name: {"Base/Python/slicer/util.py"} for name in UTIL}
    headers |= {name: {"Base/QTGUI/qSlicerApplication.h"} for name in APPLICATION}
    for table in (QT, CTK, MRML):
        for api in table.values():
            for member in (*api.properties, *api.methods):
                headers.setdefault(member, set()).add(api.header)
    own, used = set(OF_SLICERS_PYTHON), {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.arg):
                own.add(node.name if isinstance(node, ast.FunctionDef) else node.arg)
            elif isinstance(node, ast.Attribute) and re.fullmatch(r"[a-z]+[A-Z]\w*", node.attr):
                used.setdefault(node.attr, path.name)
    calls = {
        name: where
        for name, where in used.items()
        if name not in own | widgets and not name.startswith(("vtk", "qMRML"))
    }
    assert not set(calls) - set(headers), {name: calls[name] for name in set(calls) - set(headers)}
    assert len(calls) > 40
    print("\n".join(f"{name}: {', '.join(sorted(headers[name]))}" for name in sorted(calls)))
    assert "setCurrentNode: Libs/MRML/Widgets/qMRMLNodeComboBox.h" in capsys.readouterr().out


def test_the_form_file_names_known_classes_and_properties(application):
    import ctk
    import qt
    import slicer

    for element in ElementTree.parse(UI).iter("widget"):
        name = element.get("class")
        home = qt if name in QT else ctk if name in CTK else slicer
        meta = getattr(home, name).staticMetaObject
        for each in element.findall("property"):
            assert meta.indexOfProperty(each.get("name")) >= 0, f"{name}.{each.get('name')}"


def test_headers_are_named_for_every_class():
    assert all(api.header for table in (QT, CTK, MRML) for api in table.values())


def test_surplus_values_of_signals_are_dropped(application):
    import qt

    received = []
    button = qt.QPushButton()
    connect(button, "clicked()", lambda: received.append(()))
    connect(button, "toggled(bool)", received.append)
    button.setCheckable(True)
    button.click()
    assert received == [True, ()]
    assert isinstance(button, QtWidgets.QPushButton)
