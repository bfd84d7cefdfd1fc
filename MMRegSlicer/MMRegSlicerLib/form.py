"""The form: widgets on one side, a `Request` on the other."""

from __future__ import annotations

import re
from typing import Any

import qt

from MMRegCore.config import Described, describe, load_preset, preset_description, preset_names
from MMRegSlicerLib.controls import Changed, MaskSelector, MovingRow, SettingEditor
from MMRegSlicerLib.request import Request
from MMRegSlicerLib.translation import tr as _


class Form:
    """Fills and reads the sections *Images*, *Settings* and *Advanced*.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    changed : callable
        Called after a person changed something; not while `request` is being set.
    """

    def __init__(self, ui: Any, changed: Changed) -> None:  # noqa: ANN401
        self._ui = ui
        self._tell = changed
        self._quiet = True
        self._rows: list[MovingRow] = []
        self._editors: list[SettingEditor] = []
        self._headings: list[Any] = []
        tip = _("Where the ultrasound is evidence. Without one the cone is found where the outside has a single value.")
        self._fixed_mask = MaskSelector(tip, self._changed)
        _stacked(ui.fixedMaskPlace).addWidget(self._fixed_mask.widget)
        self._moving_rows = _stacked(ui.movingPlace)
        self._advanced = qt.QFormLayout(ui.advancedPlace)
        self._advanced.setContentsMargins(0, 0, 0, 0)
        for name in preset_names():
            ui.presetSelector.addItem(name, name)
        for text, device in ((_("Automatic"), "auto"), (_("Processor (CPU)"), "cpu"), (_("GPU (CUDA)"), "cuda")):
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
            start=ui.startSelector.currentNode(),
            preset=str(ui.presetSelector.currentText),
            changes={key: text for key, text in changes.items() if text is not None},
            device=str(ui.deviceSelector.itemData(ui.deviceSelector.currentIndex)),
            name=str(ui.nameEdit.text),
        )

    @request.setter
    def request(self, request: Request) -> None:
        ui, self._quiet = self._ui, True
        try:
            ui.fixedSelector.setCurrentNode(request.fixed)
            self._fixed_mask.mask = request.fixed_mask
            self._match_rows(len(request.moving))
            for row, moving in zip(self._rows, request.moving, strict=True):
                row.moving = moving
            ui.startSelector.setCurrentNode(request.start)
            ui.presetSelector.setCurrentIndex(max(0, ui.presetSelector.findData(request.preset)))
            ui.deviceSelector.setCurrentIndex(max(0, ui.deviceSelector.findData(request.device)))
            ui.nameEdit.setText(request.name)
            self._show_preset()
            for editor in self._editors:
                editor.show(request.changes)
        finally:
            self._quiet = False
        self._explain()

    def set_enabled(self, enabled: bool) -> None:
        """Lock the form while a registration runs."""
        for section in (self._ui.imagesSection, self._ui.settingsSection, self._ui.advancedSection):
            section.setEnabled(enabled)

    def _connect(self) -> None:
        ui = self._ui
        ui.fixedSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._changed())
        ui.startSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._changed())
        ui.addMovingButton.connect("clicked()", self._add_clicked)
        ui.presetSelector.connect("currentIndexChanged(int)", lambda _index: self._preset_chosen())
        ui.deviceSelector.connect("currentIndexChanged(int)", lambda _index: self._changed())
        ui.nameEdit.connect("editingFinished()", self._changed)
        ui.resetButton.connect("clicked()", self._reset_clicked)

    def _changed(self) -> None:
        if not self._quiet:
            self._explain()
            self._tell()

    def _explain(self) -> None:
        advice = self.request.start_advice()
        self._ui.startAdvice.setText(advice)
        self._ui.startAdvice.setVisible(bool(advice))

    def _add_clicked(self) -> None:
        self._match_rows(len(self._rows) + 1)
        self._changed()

    def _remove_row(self, row: MovingRow) -> None:
        self._rows.remove(row)
        _delete(row.widget)
        self._match_rows(len(self._rows))
        self._changed()

    def _match_rows(self, count: int) -> None:
        while len(self._rows) < count:
            row = MovingRow(self._changed, self._remove_row)
            self._moving_rows.addWidget(row.widget)
            self._rows.append(row)
        while len(self._rows) > count:
            _delete(self._rows.pop().widget)
        for row in self._rows:
            row.set_removable(count > 1)

    def _preset_chosen(self) -> None:
        if self._quiet:
            return
        self._quiet = True
        self._show_preset()
        self._quiet = False
        self._changed()

    def _show_preset(self) -> None:
        """Another preset brings other values, so that changes of the one before are gone."""
        name = str(self._ui.presetSelector.currentText)
        self._ui.presetAbout.setText(preset_description(name))
        gone = [*self._headings, *(editor.widget for editor in self._editors)]
        # A line that is deleted with the cursor in it says that its text is final: nobody must read the old ones then.
        self._headings, self._editors = [], []
        for widget in gone:
            self._advanced.removeRow(widget)
        self._editors = [SettingEditor(about, self._changed) for about in settings_of(name)]
        group = ""
        for editor in self._editors:
            if editor.group != group:
                group = editor.group
                self._headings.append(qt.QLabel(f"<b>{group.replace('.', ': ')}</b>"))
                self._advanced.addRow(self._headings[-1])
            self._advanced.addRow(editor.label, editor.widget)

    def _reset_clicked(self) -> None:
        for editor in self._editors:
            editor.show({})
        self._changed()


def settings_of(preset: str) -> list[Described]:
    """The settings that matter in a preset: not its method, which the preset stands for, nor those of other methods."""
    settings = load_preset(preset)
    described = list(describe(settings))
    method = next(about for about in described if about.key == "method")
    unused = {"method", "learned", *re.findall(r"'([^']+)'", method.kind)} - {settings.method_group}
    return [about for about in described if about.key.partition(".")[0] not in unused]


def _stacked(place: Any) -> Any:  # noqa: ANN401
    layout = qt.QVBoxLayout(place)
    layout.setContentsMargins(0, 0, 0, 0)
    return layout


def _delete(widget: Any) -> None:  # noqa: ANN401
    # Hidden first: Qt deletes later, and until then the row must not be seen.
    widget.hide()
    widget.deleteLater()
