"""The controls that compare ultrasound and MR in the slice views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import qt
import slicer

from MMRegSlicerLib.deformation import CONTOURS, GLYPHS, GRID, deformation_mode, show_deformation
from MMRegSlicerLib.map_style import SENTENCE, TITLE
from MMRegSlicerLib.overlay import Overlay, fit_slice_views
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _

_SLOWEST_MS, _FASTEST_MS = 1000, 100
_SMALLEST_TILE_MM, _LARGEST_TILE_MM = 2.0, 30.0


@dataclass(frozen=True)
class _Mode:
    """A comparison mode: key, title, label and initial value (0 to 100) of the slider, map, and what it shows."""

    key: str
    title: str
    slider_label: str
    slider_value: int
    map: Node = None
    sentence: str = ""


class QaView:
    """Fills the selectors, and updates the slice views when the user changes a control.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    """

    def __init__(self, ui: Any) -> None:  # noqa: ANN401
        self._ui = ui
        self._overlay: Overlay | None = None
        self._result: Result | None = None
        self._modes: list[_Mode] = []
        self._is_mr_visible = True
        self._is_active = False
        # Of the result that came while another module was shown.
        self._pending: Result | None = None
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._flicker)
        ui.comparisonSelector.connect("currentIndexChanged(int)", lambda _index: self._on_mode_selected())
        ui.comparisonSlider.connect("valueChanged(int)", lambda _value: self._update_views())
        for title, mode in (
            (_("None"), ""),
            (_("Warped grid"), GRID),
            (_("Glyphs"), GLYPHS),
            (_("Contours"), CONTOURS),
        ):
            ui.deformationSelector.addItem(title, mode)
        ui.deformationSelector.connect("currentIndexChanged(int)", self._on_deformation_selected)

    def show(self, result: Result | None) -> None:
        """Compare the images of a result, once the module is shown; None leaves the slice views unchanged."""
        self.stop()
        self._pending = None
        if result is None or result.fixed is None or not result.moving:
            return
        if not self._is_active:
            self._pending = result
            return
        self._overlay = Overlay(result)
        self._modes = _modes(result)
        selector = self._ui.comparisonSelector
        selector.blockSignals(True)
        selector.clear()
        for mode in self._modes:
            selector.addItem(mode.title, mode.key)
        selector.blockSignals(False)
        self._result = result
        self._update_deformation(result)
        fit_slice_views(slicer.app.applicationLogic(), result.fixed)
        self._on_mode_selected()

    def set_active(self, active: bool) -> None:
        """Say whether the module is shown; otherwise the slice views belong to another module."""
        self._is_active = active
        if not active:
            self._timer.stop()
        elif self._pending is not None:
            self.show(None if self._pending.is_deleted else self._pending)
        elif self._overlay is not None and self._mode().key == "flicker":
            self._timer.start()

    def stop(self) -> None:
        """Stop the flicker, and remove all temporary nodes."""
        self._timer.stop()
        if self._overlay is not None:
            self._overlay.clear()
            self._overlay = None
        if self._result is not None:
            show_deformation(self._result, "")
            self._result = None

    def _update_deformation(self, result: Result) -> None:
        """Select the mode that a loaded scene displays; otherwise display the selected mode."""
        selector, mode = self._ui.deformationSelector, deformation_mode(result.transform)
        if mode:
            selector.setCurrentIndex(selector.findData(mode))
        else:
            self._on_deformation_selected(int(selector.currentIndex))

    def _on_deformation_selected(self, index: int) -> None:
        if self._result is not None:
            show_deformation(self._result, str(self._ui.deformationSelector.itemData(index) or ""))

    def _on_mode_selected(self) -> None:
        if self._overlay is None or self._drop_deleted_maps():
            return
        mode = self._mode()
        sentence = mode.sentence if mode.map is None else str(mode.map.GetAttribute(SENTENCE))
        self._ui.mapSentence.setText(sentence)
        self._ui.mapSentence.setVisible(bool(sentence))
        self._ui.comparisonSliderLabel.setText(mode.slider_label)
        self._ui.comparisonSlider.setVisible(bool(mode.slider_label))
        self._ui.comparisonSlider.blockSignals(True)
        self._ui.comparisonSlider.setValue(mode.slider_value)
        self._ui.comparisonSlider.blockSignals(False)
        self._timer.stop()
        self._update_views()

    def _mode(self) -> _Mode:
        return self._modes[max(0, int(self._ui.comparisonSelector.currentIndex))]

    def _drop_deleted_maps(self) -> bool:
        """Start again without the maps that were deleted by hand; False when there are none."""
        if all(mode.map is None or mode.map.GetScene() is not None for mode in self._modes):
            return False
        self.show(self._result)
        return True

    def _update_views(self) -> None:
        if self._overlay is None or self._drop_deleted_maps():
            return
        mode, fraction = self._mode(), self._ui.comparisonSlider.value / 100
        if mode.key == "flicker":
            self._timer.setInterval(round(_SLOWEST_MS + fraction * (_FASTEST_MS - _SLOWEST_MS)))
            self._timer.start()
            self._flicker()
        elif mode.key == "checkerboard":
            self._overlay.checkerboard(_SMALLEST_TILE_MM + fraction * (_LARGEST_TILE_MM - _SMALLEST_TILE_MM))
        elif mode.key == "difference":
            self._overlay.difference()
        elif mode.key == "contours":
            self._overlay.contours(fraction)
        elif mode.key == "deformation":
            self._overlay.deformation(fraction)
        elif mode.map is not None:
            self._overlay.overlay_map(mode.map, fraction)
        else:
            self._overlay.blend(fraction)

    def _flicker(self) -> None:
        if self._overlay is not None:
            self._is_mr_visible = not self._is_mr_visible
            self._overlay.blend(float(self._is_mr_visible))


def _modes(result: Result) -> list[_Mode]:
    contours = _("Lines of equal grey value of the MR: blue before, yellow after registration.")
    shares = _("0: the MR before registration; 100 %: after registration.")
    modes = [
        _Mode("blend", _("Blend"), _("MR opacity:"), 50),
        _Mode("flicker", _("Flicker"), _("Flicker rate:"), 50),
        _Mode("contours", _("MR contours (before, after)"), _("Grey value:"), 50, sentence=contours),
        _Mode("deformation", _("Deformation 0–100 %"), _("Deformation:"), 100, sentence=shares),
    ]
    if result.warped:
        modes += [
            _Mode("checkerboard", _("Checkerboard (after)"), _("Tile size:"), 30),
            _Mode("difference", _("Difference (after)"), "", 0),
        ]
    for node in result.maps:
        modes.append(_Mode(node.GetID(), str(node.GetAttribute(TITLE)), _("Map opacity:"), 60, node))
    return modes
