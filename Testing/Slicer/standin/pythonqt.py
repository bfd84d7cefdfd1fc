"""PySide6 with PythonQt's habits: properties are attributes, signals are connected by their C++ signature."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from standin.slicer_api import QT

_MODULES = (QtCore, QtGui, QtWidgets)
_UNDER_TEST = Path(__file__).parents[3] / "MMRegSlicer"


class Habits:
    """Mixed into a Qt class: the module under test sees only what `slicer_api` lists, as PythonQt would show it.

    Everybody else (the tests, Qt itself, which looks virtual methods up by their names) sees PySide6's own class.
    """

    listed_properties: frozenset[str] = frozenset()
    listed_methods: frozenset[str] = frozenset()
    # C++ signature → name of the PySide6 signal
    listed_signals: dict[str, str] = {}  # noqa: RUF012 - replaced in each class, never changed

    def __getattribute__(self, name: str) -> Any:
        get = super().__getattribute__
        if name == "name":  # PythonQt's word for objectName
            return get("objectName")()
        if not _asked_by_module(sys._getframe(1), name):
            return get(name)
        cls = type(self)
        if name == "connect":
            return lambda signature, slot: connect(self, signature, slot)
        if name in cls.listed_properties:
            return get("property")(name)
        if name in cls.listed_methods:
            return get(name)
        raise AttributeError(
            f"{cls.__name__}.{name} is not in standin.slicer_api: look it up in Slicer's headers first"
        )

    def __setattr__(self, name: str, value: object) -> None:
        if not _asked_by_module(sys._getframe(1), name):
            super().__setattr__(name, value)
        elif name not in type(self).listed_properties:
            raise AttributeError(f"{type(self).__name__}.{name} is not in standin.slicer_api, or is no property")
        elif not self.setProperty(name, value):
            raise AttributeError(f"{type(self).__name__}.{name} does not take {value!r}")


def _asked_by_module(frame: types.FrameType, name: str) -> bool:
    """Whether the module under test itself asks: its code is at an instruction that takes this very attribute."""
    if not frame.f_code.co_filename.startswith(str(_UNDER_TEST)):
        return False
    return _attribute_at(frame.f_code).get(frame.f_lasti) == name


@cache
def _attribute_at(code: types.CodeType) -> dict[int, str]:
    names = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
    return {each.offset: each.argval for each in dis.get_instructions(code) if each.opname in names}


def connect(sender: Any, signature: str, slot: Callable[..., object]) -> bool:
    """``sender.connect('clicked()', slot)`` as in PythonQt; a signature that is not listed raises."""
    signals = type(sender).listed_signals
    if signature not in signals:
        raise AttributeError(f"{type(sender).__name__} has no listed signal {signature}; it has {sorted(signals)}")
    signal = getattr(sender, signals[signature])
    count = 0 if "()" in signature else signature.count(",") + 1
    signal.connect(lambda *values: slot(*values[:count]))
    return True


def with_habits(name: str, base: type, table: dict[str, Any]) -> type:
    """A class that offers what ``table`` lists for ``name`` and its bases."""
    properties: set[str] = set()
    methods: set[str] = set()
    signals: dict[str, str] = {}
    above: str = name
    while above:
        api = table.get(above) or QT[above]
        properties |= set(api.properties)
        methods |= set(api.methods)
        signals |= {signature: signature.partition("(")[0] for signature in api.signals}
        above = api.base
    for member in (*methods, *signals.values()):
        if not hasattr(base, member):
            raise AttributeError(f"{name} has no {member}")
    members = {
        "listed_properties": frozenset(properties),
        "listed_methods": frozenset(methods),
        "listed_signals": signals,
    }
    return type(name, (Habits, base), members)


def make_qt(custom: dict[str, type]) -> types.ModuleType:
    """The module ``qt``: listed classes only. ``custom`` are the CTK and MRML widgets that a ``.ui`` file may name."""
    qt = types.ModuleType("qt")
    for name in QT:
        base = next(getattr(module, name) for module in _MODULES if hasattr(module, name))
        is_object = issubclass(base, QtCore.QObject) and name != "QFileDialog"
        setattr(qt, name, with_habits(name, base, QT) if is_object else base)
    qt.QFileDialog = type("QFileDialog", (), {"getSaveFileName": staticmethod(_save_file_name)})
    qt.QFile = QtCore.QFile
    qt.QUiLoader = _loader({**{name: getattr(qt, name) for name in QT}, **custom})
    return qt


def _save_file_name(*arguments: Any) -> str:
    """PythonQt gives the path alone."""
    return QtWidgets.QFileDialog.getSaveFileName(*arguments)[0]


def _loader(classes: dict[str, type]) -> type:
    class QUiLoader(QtUiTools.QUiLoader):
        """Makes every widget of a .ui file one with habits; a class that is not listed raises."""

        def createWidget(  # noqa: N802
            self, name: str, parent: Any = None, object_name: str = ""
        ) -> Any:
            widget = classes[name](parent) if parent is not None else classes[name]()
            widget.setObjectName(object_name)
            self._kept.append(widget)
            return widget

        def load(self, file: QtCore.QFile) -> Any:
            self._kept: list[Any] = []
            text = bytes(file.readAll()).decode("utf-8")
            # The signatures of these connections exist in Slicer only; the scene is handed on by qMRMLWidget here.
            begin, end = text.index("<connections>"), text.index("</connections>")
            buffer = QtCore.QBuffer()
            buffer.setData((text[:begin] + text[end:].removeprefix("</connections>")).encode())
            buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
            root = super().load(buffer)
            # Python must hold what the loader made, or PySide6 forgets which class it was.
            root._kept = self._kept
            return root

    return QUiLoader
