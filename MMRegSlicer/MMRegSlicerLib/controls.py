"""Composite widgets of the panel: node selectors, masks, MR volumes, editors of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
import slicer
from slicer.util import VTKObservationMixin

from MMRegCore.config import SettingInfo, as_text
from MMRegSlicerLib.request import Mask, Moving
from MMRegSlicerLib.translation import tr as _

Callback = Callable[[], None]
_SEGMENT_EVENTS = (
    slicer.vtkSegmentation.SegmentAdded,
    slicer.vtkSegmentation.SegmentRemoved,
    slicer.vtkSegmentation.SegmentModified,
)


def node_selector(types: Sequence[str], none: str, tool_tip: str, on_changed: Callback) -> Any:  # noqa: ANN401
    """A selector for the scene's nodes of some classes, or none."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = list(types)
    # A label map volume is a subclass of scalar volume, but not an image.
    selector.showChildNodeTypes = "vtkMRMLScalarVolumeNode" not in types
    selector.noneEnabled = True
    selector.noneDisplay = none
    selector.addEnabled = False
    selector.removeEnabled = False
    selector.setToolTip(tool_tip)
    selector.setMRMLScene(slicer.mrmlScene)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: on_changed())
    return selector


class MaskSelector(VTKObservationMixin):  # type: ignore[misc]
    """Selects a label map volume, a segment of a segmentation, or none."""

    def __init__(self, tool_tip: str, on_changed: Callback) -> None:
        super().__init__()
        self._on_changed = on_changed
        self.widget = qt.QWidget()
        layout = qt.QHBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        types = ("vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode")
        self._nodes = node_selector(types, _("None"), tool_tip, self._on_node_changed)
        self._segments = qt.QComboBox()
        self._segments.setToolTip(_("Segment used as the mask."))
        self._segments.setVisible(False)
        self._segments.connect("currentIndexChanged(int)", lambda _index: on_changed())
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)

    @property
    def mask(self) -> Mask | None:
        """The selected mask."""
        node = self._nodes.currentNode()
        return None if node is None else Mask(node, self._segment_id())

    @mask.setter
    def mask(self, mask: Mask | None) -> None:
        self._nodes.setCurrentNode(mask.node if mask else None)
        self._update_segments()
        if mask is not None:
            self._segments.setCurrentIndex(self._segments.findData(mask.segment_id))

    def close(self) -> None:
        """Stop following the segments, before the widget is deleted."""
        self.removeObservers()

    def _segment_id(self) -> str:
        return str(self._segments.itemData(self._segments.currentIndex) or "")

    def _on_node_changed(self) -> None:
        self._update_segments()
        self._on_changed()

    def _on_segments_changed(self, _caller: object, _event: str) -> None:
        """List added and renamed segments; a removed one is deselected."""
        selected = self._segment_id()
        self._update_segments()
        self._segments.blockSignals(True)
        self._segments.setCurrentIndex(self._segments.findData(selected))
        self._segments.blockSignals(False)
        if self._segment_id() != selected:
            self._on_changed()

    def _update_segments(self) -> None:
        node = self._nodes.currentNode()
        segmentation: Any = node.GetSegmentation() if node is not None and Mask(node).is_segment else None
        self.removeObservers()
        for event in _SEGMENT_EVENTS if segmentation else ():
            self.addObserver(segmentation, event, self._on_segments_changed)
        self._segments.blockSignals(True)
        self._segments.clear()
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            identifier = segmentation.GetNthSegmentID(index)
            self._segments.addItem(segmentation.GetSegment(identifier).GetName(), identifier)
        self._segments.setVisible(segmentation is not None)
        self._segments.blockSignals(False)


class MovingRow:
    """Selects one MR volume and its mask; has a button to remove the row."""

    def __init__(self, on_changed: Callback, on_removed: Callable[[MovingRow], None]) -> None:
        self.widget = qt.QWidget()
        layout = qt.QFormLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        tool_tip = _(
            "Preoperative MR volume (moving volume). Its voxels are not modified; the transform is applied to it."
        )
        self._node = node_selector(("vtkMRMLScalarVolumeNode",), _("Select an MR volume"), tool_tip, on_changed)
        self._mask = MaskSelector(_("Region of the MR used for registration. Usually not needed."), on_changed)
        self._remove = qt.QToolButton()
        self._remove.setText("✕")
        self._remove.setToolTip(_("Remove this MR volume from the list."))
        self._remove.connect("clicked()", lambda: on_removed(self))
        line = qt.QHBoxLayout()
        line.addWidget(self._node)
        line.addWidget(self._remove)
        layout.addRow(_("MR:"), line)
        layout.addRow(_("Mask:"), self._mask.widget)

    @property
    def moving(self) -> Moving:
        """The selected MR volume and mask."""
        return Moving(self._node.currentNode(), self._mask.mask)

    @moving.setter
    def moving(self, moving: Moving) -> None:
        self._node.setCurrentNode(moving.node)
        self._mask.mask = moving.mask

    def close(self) -> None:
        """Stop following the scene, before the widget is deleted."""
        self._mask.close()

    def set_removable(self, removable: bool) -> None:
        """Show or hide the button that removes the row."""
        self._remove.setVisible(removable)


class SettingEditor:
    """Edits one setting: a check box, a list of choices, or a line that is parsed as by ``mmreg --set``."""

    def __init__(self, about: SettingInfo, on_changed: Callback) -> None:
        self._default = as_text(about.default)
        self.key, self.tier = about.key, about.tier
        self.group = about.key.rpartition(".")[0].replace(".", ": ").replace("_", " ")
        self.label = f"{about.label} ({about.unit})" if about.unit else about.label
        if about.kind == "switch" and not about.is_list:
            self.widget, self._get, self._set = _check_box(on_changed)
        elif about.kind == "choice" and not about.is_list:
            self.widget, self._get, self._set = _combo_box(about.choices, on_changed)
        else:
            self.widget, self._get, self._set = _line_edit(on_changed)
        self.widget.setToolTip(f"{about.help}\n{about.key}: {about.expected} {about.range}")
        self._set(self._default)

    def change(self) -> str | None:
        """The value if it differs from the preset, otherwise None."""
        text = self._get()
        return None if text == self._default else text

    def show(self, changes: Mapping[str, str]) -> None:
        """Show the value in ``changes``, otherwise that of the preset."""
        self._set(changes.get(self.key, self._default))


def _check_box(on_changed: Callback) -> tuple[Any, Callable[[], str], Callable[[str], None]]:
    box = qt.QCheckBox()
    box.connect("toggled(bool)", lambda _on: on_changed())
    return box, lambda: as_text(bool(box.checked)), lambda text: box.setChecked(text == "true")


def _combo_box(choices: Sequence[str], on_changed: Callback) -> tuple[Any, Callable[[], str], Callable[[str], None]]:
    box = qt.QComboBox()
    for choice in choices:
        box.addItem(choice, choice)
    box.connect("currentIndexChanged(int)", lambda _index: on_changed())
    return box, lambda: str(box.currentText), lambda text: box.setCurrentIndex(box.findData(text))


def _line_edit(on_changed: Callback) -> tuple[Any, Callable[[], str], Callable[[str], None]]:
    line = qt.QLineEdit()
    line.connect("editingFinished()", on_changed)
    return line, lambda: str(line.text), line.setText
