"""The CTK and MRML widgets that the module uses, over the real scene."""

from __future__ import annotations

from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets

from standin.pythonqt import with_habits
from standin.slicer_api import CTK, MRML


class _CollapsibleButton(QtWidgets.QFrame):
    """A heading that folds what is below it."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._heading = QtWidgets.QToolButton(self)
        self._heading.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._heading.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._heading.clicked.connect(lambda: self._fold(not self._collapsed))
        self.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)
        self.setContentsMargins(0, self._heading.sizeHint().height(), 0, 0)
        self._fold(False)

    def _fold(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        arrow = QtCore.Qt.ArrowType.RightArrow if collapsed else QtCore.Qt.ArrowType.DownArrow
        self._heading.setArrowType(arrow)
        self._show_contents()

    def _show_contents(self) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and child is not self._heading:
                # A child that was hidden by the module stays hidden when the section opens.
                if self._collapsed:
                    hidden = child.property("standinHidden")
                    child.setProperty("standinHidden", child.isHidden() if hidden is None else hidden)
                    child.setVisible(False)
                elif child.property("standinHidden") is not None:
                    child.setVisible(not child.property("standinHidden"))
                    child.setProperty("standinHidden", None)

    def event(self, event: QtCore.QEvent) -> bool:
        kind = event.type()
        if kind == QtCore.QEvent.Type.Resize:
            size = self.size()
            self._heading.setGeometry(0, 0, size.width(), self._heading.sizeHint().height())
        if kind == QtCore.QEvent.Type.Polish and self._collapsed:
            self._show_contents()
        return super().event(event)

    text = QtCore.Property(str, lambda self: self._heading.text(), lambda self, text: self._heading.setText(text))
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, lambda self, collapsed: self._fold(collapsed))


class _Widget(QtWidgets.QWidget):
    """Hands the scene to the node selectors inside it, as the connections of the .ui file do in Slicer."""

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        for child in self.findChildren(_NodeComboBox):
            child.setMRMLScene(scene)


class _NodeComboBox(QtWidgets.QComboBox):
    """Lists the nodes of the scene; follows nodes that come, go and change their names."""

    currentNodeChanged = QtCore.Signal(object)  # noqa: N815

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._children = True
        self._none_enabled = False
        self._none_display = "None"
        self._add_enabled = True
        self._remove_enabled = True
        self._rename_enabled = False
        self._show_hidden = False
        self._base_name = ""
        self._attributes: list[tuple[str, str, str]] = []
        self._scene: Any = None
        self._tags: list[int] = []
        self._chosen: str | None = None
        QtWidgets.QComboBox.setSizeAdjustPolicy(
            self, QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.activated.connect(self._activated)

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
        self._tags = [scene.AddObserver(event, lambda *_: self._fill()) for event in events]

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def leave(_caller: Any, _event: str, node: Any) -> None:
            self._leave(node)

        self._tags.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, leave))
        self._fill()

    def _leave(self, node: Any) -> None:
        """Select the neighbour of a node, as Slicer's selector does while that node is still in the scene."""
        if node is not None and node.GetID() in self._identifiers():
            row = self._identifiers().index(node.GetID())
            self.blockSignals(True)
            self.removeItem(row)
            self.blockSignals(False)
            if node.GetID() == self._chosen:
                row = min(row, self.count() - 1)
                self._choose(self.itemData(row) if row >= 0 else None)

    def currentNode(self) -> Any:  # noqa: N802
        return self._scene.GetNodeByID(self._chosen) if self._scene and self._chosen else None

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        identifier = node.GetID() if node is not None else None
        self._choose(identifier if identifier in self._identifiers() else None)

    def _nodes(self) -> list[Any]:
        found = []
        for kind in self._types:
            for index in range(self._scene.GetNumberOfNodesByClass(kind) if self._scene else 0):
                node = self._scene.GetNthNodeByClass(index, kind)
                seen = self._show_hidden or not node.GetHideFromEditors()
                if seen and self._fits(node) and (self._children or node.GetClassName() == kind):
                    found.append(node)
        return found

    def _fits(self, node: Any) -> bool:
        return all(node.GetAttribute(name) == value for kind, name, value in self._attributes if node.IsA(kind))

    def addAttribute(self, kind: str, name: str, value: str) -> None:  # noqa: N802
        self._attributes.append((kind, name, value))
        if self._scene is not None:
            self._fill()

    def setNodeTypeLabel(self, label: str, kind: str) -> None:  # noqa: N802
        self.labels = {**getattr(self, "labels", {}), kind: label}

    def addNode(self) -> Any:  # noqa: N802 - what the entry of the menu does
        assert self._add_enabled
        name = self._scene.GenerateUniqueName(self._base_name)
        node = self._scene.CreateNodeByClass(self._types[0])
        node.UnRegister(None)
        node.SetName(name)
        for _, attribute, value in self._attributes:
            node.SetAttribute(attribute, value)
        self._scene.AddNode(node)
        self.setCurrentNode(node)
        return node

    def _identifiers(self) -> list[str | None]:
        count = self.count()
        return [self.itemData(index) for index in range(count)]

    def _fill(self) -> None:
        self.blockSignals(True)
        self.clear()
        if self._none_enabled:
            self.addItem(self._none_display, None)
        for node in self._nodes():
            self.addItem(node.GetName(), node.GetID())
        self.blockSignals(False)
        identifiers = self._identifiers()
        first = identifiers[0] if identifiers else None
        self._choose(self._chosen if self._chosen in identifiers else first)

    def _activated(self, index: int) -> None:
        self._choose(self.itemData(index))

    def _choose(self, identifier: str | None) -> None:
        identifiers = self._identifiers()
        index = identifiers.index(identifier) if identifier in identifiers else -1
        self.setCurrentIndex(index)
        if identifier != self._chosen:
            self._chosen = identifier
            self.currentNodeChanged.emit(self.currentNode())

    def _setter(name: str) -> Any:  # noqa: N805 - makes the setters of the properties below
        def set_value(self: Any, value: object) -> None:
            setattr(self, name, value)
            self._fill()

        return set_value

    nodeTypes = QtCore.Property("QStringList", lambda self: self._types, _setter("_types"))  # noqa: N815
    showChildNodeTypes = QtCore.Property(bool, lambda self: self._children, _setter("_children"))  # noqa: N815
    noneEnabled = QtCore.Property(bool, lambda self: self._none_enabled, _setter("_none_enabled"))  # noqa: N815
    noneDisplay = QtCore.Property(str, lambda self: self._none_display, _setter("_none_display"))  # noqa: N815
    addEnabled = QtCore.Property(bool, lambda self: self._add_enabled, _setter("_add_enabled"))  # noqa: N815
    removeEnabled = QtCore.Property(bool, lambda self: self._remove_enabled, _setter("_remove_enabled"))  # noqa: N815
    renameEnabled = QtCore.Property(bool, lambda self: self._rename_enabled, _setter("_rename_enabled"))  # noqa: N815
    showHidden = QtCore.Property(bool, lambda self: self._show_hidden, _setter("_show_hidden"))  # noqa: N815
    baseName = QtCore.Property(str, lambda self: self._base_name, _setter("_base_name"))  # noqa: N815


CTK_CLASSES = {"ctkCollapsibleButton": with_habits("ctkCollapsibleButton", _CollapsibleButton, CTK)}
MRML_CLASSES = {
    "qMRMLWidget": with_habits("qMRMLWidget", _Widget, MRML),
    "qMRMLNodeComboBox": with_habits("qMRMLNodeComboBox", _NodeComboBox, MRML),
}
