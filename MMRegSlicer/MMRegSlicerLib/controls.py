"""The parts that the form is put together from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
import slicer

from MMRegCore.config import Described, as_text
from MMRegSlicerLib.request import Mask, Moving
from MMRegSlicerLib.translation import tr as _

Changed = Callable[[], None]
# How the names of settings end where their unit is no word.
_SUFFIXES = {"%": "_percent"}


def node_selector(types: Sequence[str], none: str, tip: str, changed: Changed) -> Any:  # noqa: ANN401
    """A list of the scene's nodes of some kinds, with an entry for none."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = list(types)
    # A label map is a kind of scalar volume, and no image.
    selector.showChildNodeTypes = "vtkMRMLScalarVolumeNode" not in types
    selector.noneEnabled = True
    selector.noneDisplay = none
    selector.addEnabled = False
    selector.removeEnabled = False
    selector.setToolTip(tip)
    selector.setMRMLScene(slicer.mrmlScene)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: changed())
    return selector


class MaskSelector:
    """A label map, or a segmentation and one of its segments; none is a choice too."""

    def __init__(self, tip: str, changed: Changed) -> None:
        self._changed = changed
        self.widget = qt.QWidget()
        layout = qt.QHBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        kinds = ("vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode")
        self._nodes = node_selector(kinds, _("No mask"), tip, self._node_changed)
        self._segments = qt.QComboBox()
        self._segments.setToolTip(_("The segment that is the mask."))
        self._segments.setVisible(False)
        self._segments.connect("currentIndexChanged(int)", lambda _index: changed())
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)

    @property
    def mask(self) -> Mask | None:
        """What is chosen."""
        node = self._nodes.currentNode()
        return None if node is None else Mask(node, self._segment_id())

    @mask.setter
    def mask(self, mask: Mask | None) -> None:
        self._nodes.setCurrentNode(mask.node if mask else None)
        self._list_segments()
        if mask is not None:
            self._segments.setCurrentIndex(self._segments.findData(mask.segment_id))

    def _segment_id(self) -> str:
        return str(self._segments.itemData(self._segments.currentIndex) or "")

    def _node_changed(self) -> None:
        self._list_segments()
        self._changed()

    def _list_segments(self) -> None:
        node = self._nodes.currentNode()
        segmentation: Any = node.GetSegmentation() if node is not None and Mask(node).is_segment else None
        self._segments.blockSignals(True)
        self._segments.clear()
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            identifier = segmentation.GetNthSegmentID(index)
            self._segments.addItem(segmentation.GetSegment(identifier).GetName(), identifier)
        self._segments.setVisible(segmentation is not None)
        self._segments.blockSignals(False)


class MovingRow:
    """One MR with its mask, and a button that takes the row away."""

    def __init__(self, changed: Changed, removed: Callable[[MovingRow], None]) -> None:
        self.widget = qt.QWidget()
        layout = qt.QFormLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        tip = _("An MR volume of the patient. It is not altered; the transform is put above it.")
        self._node = node_selector(("vtkMRMLScalarVolumeNode",), _("Choose the MR"), tip, changed)
        self._mask = MaskSelector(_("Where the MR is evidence. Usually none is needed."), changed)
        self._remove = qt.QToolButton()
        self._remove.setText("✕")
        self._remove.setToolTip(_("Take this MR away from the registration."))
        self._remove.connect("clicked()", lambda: removed(self))
        line = qt.QHBoxLayout()
        line.addWidget(self._node)
        line.addWidget(self._remove)
        layout.addRow(_("MR:"), line)
        layout.addRow(_("Mask:"), self._mask.widget)

    @property
    def moving(self) -> Moving:
        """What is chosen."""
        return Moving(self._node.currentNode(), self._mask.mask)

    @moving.setter
    def moving(self, moving: Moving) -> None:
        self._node.setCurrentNode(moving.node)
        self._mask.mask = moving.mask

    def set_removable(self, removable: bool) -> None:
        """Show the button only where there is more than one row."""
        self._remove.setVisible(removable)


class SettingEditor:
    """One setting of the preset: a box, a list of choices, or a line that is read as ``mmreg --set`` reads it."""

    def __init__(self, about: Described, changed: Changed) -> None:
        self._default = as_text(about.value)
        self.key = about.key
        choices = re.findall(r"'([^']+)'", about.kind)
        if about.kind == "true or false":
            self.widget, self._get, self._set = _check_box(changed)
        elif choices and not re.sub(r"'[^']+'| or ", "", about.kind):
            self.widget, self._get, self._set = _choice(choices, changed)
        else:
            self.widget, self._get, self._set = _line(changed)
        self.widget.setToolTip(f"{about.help}\n{about.key}: {about.kind}{_range(about)}")
        self.group, _dot, name = about.key.rpartition(".")
        self.label = name.removesuffix(_SUFFIXES.get(about.unit, f"_{about.unit}")).replace("_", " ") + _unit(about)
        self._set(self._default)

    def change(self) -> str | None:
        """The text that differs from the preset; None when none does."""
        text = self._get()
        return None if text == self._default else text

    def show(self, changes: Mapping[str, str]) -> None:
        """Show the change of this setting, or the preset's value."""
        self._set(changes.get(self.key, self._default))


def _check_box(changed: Changed) -> tuple[Any, Callable[[], str], Callable[[str], None]]:
    box = qt.QCheckBox()
    box.connect("toggled(bool)", lambda _on: changed())
    return box, lambda: as_text(bool(box.checked)), lambda text: box.setChecked(text == "true")


def _choice(choices: Sequence[str], changed: Changed) -> tuple[Any, Callable[[], str], Callable[[str], None]]:
    box = qt.QComboBox()
    for choice in choices:
        box.addItem(choice, choice)
    box.connect("currentIndexChanged(int)", lambda _index: changed())
    return box, lambda: str(box.currentText), lambda text: box.setCurrentIndex(box.findData(text))


def _line(changed: Changed) -> tuple[Any, Callable[[], str], Callable[[str], None]]:
    line = qt.QLineEdit()
    line.connect("editingFinished()", changed)
    return line, lambda: str(line.text), line.setText


def _unit(about: Described) -> str:
    return f" ({about.unit})" if about.unit else ""


def _range(about: Described) -> str:
    low = "" if about.minimum is None else _(", at least {low:g}").format(low=about.minimum)
    high = "" if about.maximum is None else _(", at most {high:g}").format(high=about.maximum)
    return f"{low}{high} {about.unit}".rstrip()
