"""The controls that compare ultrasound and MR in the slice views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import qt

from MMRegSlicerLib.deformation import CONTOURS, GLYPHS, GRID, show_deformation, shown_deformation
from MMRegSlicerLib.map_style import style_of
from MMRegSlicerLib.overlay import Overlay
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.translation import tr as _

_SLOWEST_MS, _FASTEST_MS = 1000, 100
_SMALLEST_TILE_MM, _LARGEST_TILE_MM = 2.0, 30.0


@dataclass(frozen=True)
class _Mode:
    """A way of comparing: its key, what the slider does, where the slider begins (0 to 100)."""

    key: str
    title: str
    slider: str
    begin: int
    map: Node = None


class QaView:
    """Fills the list of ways, and turns slider and choice into what the views show.

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
        self._is_mr_shown = True
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._flicker)
        ui.viewSelector.connect("currentIndexChanged(int)", lambda _index: self._mode_chosen())
        ui.viewSlider.connect("valueChanged(int)", lambda _value: self._draw())
        for title, drawing in (
            (_("Not drawn"), ""),
            (_("Warped grid"), GRID),
            (_("Arrows"), GLYPHS),
            (_("Lines of equal displacement"), CONTOURS),
        ):
            ui.deformationSelector.addItem(title, drawing)
        ui.deformationSelector.connect("currentIndexChanged(int)", self._drawing_chosen)

    def show(self, result: Result | None) -> None:
        """Compare the images of a result; with None, leave the views alone and nothing behind."""
        self.stop()
        if result is None or result.fixed is None or not result.moving:
            return
        self._overlay = Overlay(result)
        self._modes = _modes(result)
        selector = self._ui.viewSelector
        selector.blockSignals(True)
        selector.clear()
        for mode in self._modes:
            selector.addItem(mode.title, mode.key)
        selector.blockSignals(False)
        self._result = result
        self._show_drawing(result)
        self._mode_chosen()

    def stop(self) -> None:
        """Stop the flicker, and take away what was made for showing."""
        self._timer.stop()
        if self._overlay is not None:
            self._overlay.clear()
            self._overlay = None
        if self._result is not None:
            show_deformation(self._result, "")
            self._result = None

    def _show_drawing(self, result: Result) -> None:
        """What a loaded scene shows is chosen; otherwise what is chosen is shown of this result too."""
        drawings, seen = self._ui.deformationSelector, shown_deformation(result.transform)
        if seen:
            drawings.setCurrentIndex(drawings.findData(seen))
        else:
            self._drawing_chosen(int(drawings.currentIndex))

    def _drawing_chosen(self, index: int) -> None:
        if self._result is not None:
            show_deformation(self._result, str(self._ui.deformationSelector.itemData(index) or ""))

    def _mode_chosen(self) -> None:
        if self._overlay is None:
            return
        mode = self._mode()
        self._ui.viewSliderLabel.setText(mode.slider)
        self._ui.viewSlider.setVisible(bool(mode.slider))
        self._ui.viewSlider.blockSignals(True)
        self._ui.viewSlider.setValue(mode.begin)
        self._ui.viewSlider.blockSignals(False)
        self._timer.stop()
        self._draw()

    def _mode(self) -> _Mode:
        return self._modes[max(0, int(self._ui.viewSelector.currentIndex))]

    def _draw(self) -> None:
        if self._overlay is None:
            return
        mode, share = self._mode(), self._ui.viewSlider.value / 100
        if mode.key == "flicker":
            self._timer.setInterval(round(_SLOWEST_MS + share * (_FASTEST_MS - _SLOWEST_MS)))
            self._timer.start()
            self._flicker()
        elif mode.key == "checkerboard":
            self._overlay.checkerboard(_SMALLEST_TILE_MM + share * (_LARGEST_TILE_MM - _SMALLEST_TILE_MM))
        elif mode.key == "difference":
            self._overlay.difference()
        elif mode.map is not None:
            self._overlay.overlay_map(mode.map, share)
        else:
            self._overlay.blend(share)

    def _flicker(self) -> None:
        if self._overlay is not None:
            self._is_mr_shown = not self._is_mr_shown
            self._overlay.blend(float(self._is_mr_shown))


def _modes(result: Result) -> list[_Mode]:
    modes = [
        _Mode("blend", _("Blend"), _("Share of the MR:"), 50),
        _Mode("flicker", _("Flicker"), _("Speed:"), 50),
    ]
    if result.warped:
        modes += [
            _Mode("checkerboard", _("Checkerboard (after)"), _("Size of tiles:"), 30),
            _Mode("difference", _("Difference (after)"), "", 0),
        ]
    for node in result.maps:
        modes.append(_Mode(node.GetID(), style_of(node).title, _("Share of the map:"), 60, node))
    return modes
