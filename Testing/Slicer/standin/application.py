"""What the application adds to Slicer's core: ``slicer.app``, scripted modules, translation, windows."""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtWidgets

from mrml_scene import new_scene, scene_holds
from standin.mrml_widgets import CTK_CLASSES, MRML_CLASSES
from standin.pythonqt import make_qt
from standin.slicer_api import UTIL

MODULE = Path(__file__).parents[3] / "MMRegSlicer" / "MMRegSlicer.py"


class _Application:
    applicationName = "Slicer"  # noqa: N815

    def __init__(self) -> None:
        self.started: list[Callable[[], None]] = []

    def connect(self, signature: str, slot: Callable[[], None]) -> None:
        if signature != "startupCompleted()":
            raise AttributeError(f"qSlicerApplication has no listed signal {signature}")
        self.started.append(slot)

    def applicationLogic(self) -> Any:  # noqa: N802
        return scene_holds[id(slicer.mrmlScene)][0]

    def clipboard(self) -> Any:
        return QtWidgets.QApplication.clipboard()

    def processEvents(self) -> None:  # noqa: N802
        QtWidgets.QApplication.processEvents()

    def testingEnabled(self) -> bool:  # noqa: N802
        return False

    def startupEnvironment(self) -> dict[str, str]:  # noqa: N802
        return dict(os.environ)


class ScriptedLoadableModule:
    """The base of the class that describes a module."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """The base of the class that makes the panel."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.layout = parent.layout()
        self.logic: Any = None

    def setup(self) -> None:
        """Nothing is above the panel here; in Slicer there is the developer's section."""

    def resourcePath(self, name: str) -> str:  # noqa: N802
        return str(MODULE.parent / "Resources" / name)


class ScriptedLoadableModuleTest:
    """The base of the class that Slicer's test runner calls."""

    def delayDisplay(self, message: str) -> None:  # noqa: N802
        """Slicer shows the message for a moment."""


def install(cache: Path) -> QtWidgets.QApplication:
    """Make ``qt``, ``ctk`` and the application's part of ``slicer`` importable; before the module is imported."""
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
    for name, classes in (("ctk", CTK_CLASSES), ("slicer", MRML_CLASSES)):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        vars(module).update(classes)
    sys.modules["qt"] = make_qt({**CTK_CLASSES, **MRML_CLASSES})
    scripted = types.ModuleType("slicer.ScriptedLoadableModule")
    for base in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleTest):
        setattr(scripted, base.__name__, base)
    translation = types.ModuleType("slicer.i18n")
    translation.tr = lambda text: text
    translation.translate = lambda _context, text: text
    sys.modules[scripted.__name__], sys.modules[translation.__name__] = scripted, translation
    slicer.app = _Application()
    slicer.util.mainWindow = lambda: None
    slicer.util.createProgressDialog = _progress_dialog
    if not all(hasattr(slicer.util, name) for name in UTIL):
        raise AttributeError(f"slicer.util lacks one of {UTIL}")
    new_scene(cache)
    return application


def _progress_dialog(windowTitle: str, labelText: str, maximum: int) -> Any:  # noqa: N803
    dialog = sys.modules["qt"].QProgressDialog(labelText, "Cancel", 0, maximum)
    dialog.setWindowTitle(windowTitle)
    dialog.show()
    return dialog


def open_module() -> Any:
    """Do what the application does when the user opens the module: import it, create the panel.

    Returns
    -------
    namespace
        ``module`` (what Python imported), ``described``, ``widget`` and the ``holder`` that contains the panel.
    """
    sys.path.insert(0, str(MODULE.parent))
    module = importlib.import_module(MODULE.stem)
    described = types.SimpleNamespace(path=str(MODULE))
    module.MMRegSlicer(described)
    holder = QtWidgets.QWidget()
    QtWidgets.QVBoxLayout(holder)
    widget = module.MMRegSlicerWidget(holder)
    widget.setup()
    return types.SimpleNamespace(module=module, described=described, widget=widget, holder=holder)
