"""The widgets of a parameter set on one side, a `Request` on the other."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import qt

from MMRegCore.config import describe, load_preset, preset_description, preset_names
from MMRegSlicerLib.controls import Callback, MaskSelector, MovingRow, SettingEditor
from MMRegSlicerLib.preset_titles import preset_title
from MMRegSlicerLib.request import Request
from MMRegSlicerLib.translation import tr as _


class Form:
    """Fills and reads the sections *Inputs*, *Settings* and *Advanced*.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    on_changed : callable
        Called when the user changed something; not while `request` is being set.
    """

    def __init__(self, ui: Any, on_changed: Callback) -> None:  # noqa: ANN401
        self._ui = ui
        self._on_changed = on_changed
        self._is_updating = True
        self._rows: list[MovingRow] = []
        self._editors: list[SettingEditor] = []
        tool_tip = _(
            "Region of the ultrasound used for registration. If none is selected, the field of view is detected "
            "automatically; the background must have a single value."
        )
        self._fixed_mask = MaskSelector(tool_tip, self._on_edited)
        _vertical_layout(ui.fixedMaskFrame).addWidget(self._fixed_mask.widget)
        self._moving_layout = _vertical_layout(ui.movingFrame)
        self._tiers = {"basic": qt.QFormLayout(ui.basicFrame), "expert": qt.QFormLayout(ui.advancedFrame)}
        self._tiers["expert"].setContentsMargins(0, 0, 0, 0)
        for name in preset_names():
            ui.presetSelector.addItem(preset_title(name), name)
        for text, device in ((_("Automatic"), "auto"), (_("CPU"), "cpu"), (_("GPU (CUDA)"), "cuda")):
            ui.deviceSelector.addItem(text, device)
        self.request = Request()
        self._connect()

    @property
    def request(self) -> Request:
        """What the widgets show."""
        ui = self._ui
        changes = {editor.key: editor.change() for editor in self._editors}
        return Request(
            fixed=ui.fixedSelector.currentNode(),
            moving=tuple(row.moving for row in self._rows),
            fixed_mask=self._fixed_mask.mask,
            initial_transform=ui.initialTransformSelector.currentNode(),
            preset=str(ui.presetSelector.itemData(ui.presetSelector.currentIndex)),
            changes={key: text for key, text in changes.items() if text is not None},
            device=str(ui.deviceSelector.itemData(ui.deviceSelector.currentIndex)),
            name=str(ui.nameEdit.text),
            fixed_landmarks=ui.guideFixedSelector.currentNode(),
            moving_landmarks=ui.guideMovingSelector.currentNode(),
            landmark_error_mm=str(ui.guideErrorEdit.text).strip(),
        )

    @request.setter
    def request(self, request: Request) -> None:
        ui, self._is_updating = self._ui, True
        try:
            ui.fixedSelector.setCurrentNode(request.fixed)
            self._fixed_mask.mask = request.fixed_mask
            self._set_row_count(len(request.moving))
            for row, moving in zip(self._rows, request.moving, strict=True):
                row.moving = moving
            ui.initialTransformSelector.setCurrentNode(request.initial_transform)
            ui.presetSelector.setCurrentIndex(max(0, ui.presetSelector.findData(request.preset)))
            ui.deviceSelector.setCurrentIndex(max(0, ui.deviceSelector.findData(request.device)))
            ui.nameEdit.setText(request.name)
            ui.guideFixedSelector.setCurrentNode(request.fixed_landmarks)
            ui.guideMovingSelector.setCurrentNode(request.moving_landmarks)
            ui.guideErrorEdit.setText(request.landmark_error_mm)
            self._update_preset()
            for editor in self._editors:
                editor.show(request.changes)
        finally:
            self._is_updating = False
        self._update_warning()

    def set_enabled(self, enabled: bool) -> None:
        """Enable the sections; they are disabled while a registration runs."""
        for section in (self._ui.inputsSection, self._ui.settingsSection, self._ui.advancedSection):
            section.setEnabled(enabled)

    def close(self) -> None:
        """Stop following the scene, when the module is reloaded."""
        self._fixed_mask.close()
        for row in self._rows:
            row.close()

    def _connect(self) -> None:
        ui = self._ui
        ui.fixedSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._on_edited())
        for selector in (ui.initialTransformSelector, ui.guideFixedSelector, ui.guideMovingSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._on_edited())
        ui.guideErrorEdit.connect("editingFinished()", self._on_edited)
        ui.addMovingButton.connect("clicked()", self._on_add_clicked)
        ui.presetSelector.connect("currentIndexChanged(int)", lambda _index: self._on_preset_selected())
        ui.deviceSelector.connect("currentIndexChanged(int)", lambda _index: self._on_edited())
        ui.nameEdit.connect("editingFinished()", self._on_edited)
        ui.resetButton.connect("clicked()", self._on_reset_clicked)

    def _on_edited(self) -> None:
        if not self._is_updating:
            self._update_warning()
            self._on_changed()

    def _update_warning(self) -> None:
        warning = self.request.initial_transform_warning()
        self._ui.initialTransformWarning.setText(warning)
        self._ui.initialTransformWarning.setVisible(bool(warning))

    def _on_add_clicked(self) -> None:
        self._set_row_count(len(self._rows) + 1)
        self._on_edited()

    def _on_row_removed(self, row: MovingRow) -> None:
        self._rows.remove(row)
        _delete(row)
        self._set_row_count(len(self._rows))
        self._on_edited()

    def _set_row_count(self, count: int) -> None:
        while len(self._rows) < count:
            row = MovingRow(self._on_edited, self._on_row_removed)
            self._moving_layout.addWidget(row.widget)
            self._rows.append(row)
        while len(self._rows) > count:
            _delete(self._rows.pop())
        for row in self._rows:
            row.set_removable(count > 1)

    def _on_preset_selected(self) -> None:
        if self._is_updating:
            return
        self._is_updating = True
        self._update_preset()
        self._is_updating = False
        self._on_edited()

    def _update_preset(self) -> None:
        """Show the description and the settings of the preset; changes of another preset are dropped."""
        name = str(self._ui.presetSelector.itemData(self._ui.presetSelector.currentIndex))
        self._ui.presetDescription.setText(preset_description(name))
        # Cleared first: a line edit that is deleted while it has the focus emits editingFinished.
        self._editors = []
        for layout in self._tiers.values():
            while layout.rowCount():
                layout.removeRow(0)
        # The preset determines the method.
        settings = [about for about in describe(load_preset(name)) if about.key != "method"]
        self._editors = [SettingEditor(about, self._on_edited) for about in settings]
        for tier, layout in self._tiers.items():
            editors = [editor for editor in self._editors if editor.tier == tier]
            for group, members in groupby(editors, lambda editor: editor.group):
                if group:
                    layout.addRow(qt.QLabel(f"<b>{group}</b>"))
                for editor in members:
                    layout.addRow(editor.label, editor.widget)

    def _on_reset_clicked(self) -> None:
        for editor in self._editors:
            editor.show({})
        self._on_edited()


def _vertical_layout(frame: Any) -> Any:  # noqa: ANN401
    layout = qt.QVBoxLayout(frame)
    layout.setContentsMargins(0, 0, 0, 0)
    return layout


def _delete(row: MovingRow) -> None:
    row.close()
    # Hidden first: Qt deletes it only when control returns to the event loop.
    row.widget.hide()
    row.widget.deleteLater()
