"""The section *Result*: what came out, whether to believe it, what else moves along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from MMRegSlicerLib.apply_view import ApplyView
from MMRegSlicerLib.landmark_view import LandmarkView
from MMRegSlicerLib.qa_view import QaView
from MMRegSlicerLib.result import Result, results_in
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.undo import Undo

# Background and text, dark enough on light to read in both of Slicer's themes.
_COLOURS = {"accept": "#d9f2d9", "review": "#fff0c2", "reject": "#f8d0d0"}


class ResultView:
    """Shows one result and acts on it.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    chosen : callable
        Called with another result of the scene that a person chose.
    discarded : callable
        Called after a result was discarded.
    """

    def __init__(self, ui: Any, chosen: Callable[[Result], None], discarded: Callable[[], None]) -> None:  # noqa: ANN401
        self._ui = ui
        self._told_chosen = chosen
        self._told_discarded = discarded
        self._result: Result | None = None
        self._undo = Undo()
        self._qa = QaView(ui)
        self._landmarks = LandmarkView(ui)
        self._apply = ApplyView(ui, self._undo, self._show_again)
        ui.resultSelector.connect("currentIndexChanged(int)", self._choose)
        ui.afterBox.connect("toggled(bool)", self._toggled)
        ui.previousButton.connect("clicked()", lambda: self._step(-1))
        ui.nextButton.connect("clicked()", lambda: self._step(1))
        ui.reportButton.connect("clicked()", self._save_report)
        ui.acceptButton.connect("clicked()", self._accept)
        ui.discardButton.connect("clicked()", self._discard)
        ui.undoButton.connect("clicked()", self._take_back)
        # The arrows alone belong to Slicer, which steps through slices with them.
        self._shortcuts = [
            _shortcut(ui, keys, action)
            for keys, action in (
                ("b", self._flip),
                ("Ctrl+Left", lambda: self._step(-1)),
                ("Ctrl+Right", lambda: self._step(1)),
            )
        ]

    def show(self, result: Result | None) -> None:
        """Show a result, or nothing."""
        if result is None or self._result is None or result.transform is not self._result.transform:
            self._qa.show(result)
            self._landmarks.show(result)
        self._result = result
        self._apply.show(result)
        self._ui.undoButton.setVisible(bool(self._undo.title))
        self._ui.undoButton.setText(_("Undo: {step}").format(step=self._undo.title))
        self._ui.resultSection.setVisible(result is not None)
        if result is None:
            return
        self._list_results(result)
        text, colour = verdict_text(result)
        self._ui.verdictLabel.setText(text)
        self._ui.verdictLabel.setStyleSheet(f"background: {colour}; color: black; padding: 6px" if colour else "")
        self._ui.afterBox.blockSignals(True)
        self._ui.afterBox.setChecked(result.is_shown_after)
        self._ui.afterBox.blockSignals(False)
        self._ui.reportButton.setEnabled(bool(result.report))
        self._ui.acceptButton.setEnabled(not result.accepted)

    def forget(self) -> None:
        """Show nothing, and take nothing back any more: the scene is closed."""
        self._undo.forget()
        self.show(None)

    def take_keys(self, active: bool) -> None:
        """Listen to *B* and to *Ctrl* with an arrow, or leave them to others."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(active)

    def cleanup(self) -> None:
        """Give the keys back, and leave nothing in the views."""
        self._qa.stop()
        self._result = None
        self.take_keys(False)
        for shortcut in self._shortcuts:
            shortcut.deleteLater()

    def _show_again(self) -> None:
        self.show(self._result)

    def _list_results(self, shown: Result) -> None:
        selector, results = self._ui.resultSelector, results_in(slicer.mrmlScene)
        selector.blockSignals(True)
        selector.clear()
        for each in results:
            selector.addItem(each.transform.GetName(), each.transform.GetID())
        selector.setCurrentIndex(selector.findData(shown.transform.GetID()))
        self._ui.resultArea.setVisible(len(results) > 1)
        selector.blockSignals(False)

    def _choose(self, index: int) -> None:
        results = results_in(slicer.mrmlScene)
        if self._result is None or not 0 <= index < len(results):
            return
        # Back from one before on to the other, so that each remembers where the MR was without the other.
        self._result.show(after=False)
        results[index].show(after=True)
        self._told_chosen(results[index])

    def _step(self, by: int) -> None:
        selector, count = self._ui.resultSelector, len(results_in(slicer.mrmlScene))
        if self._result is not None and count > 1:
            selector.setCurrentIndex((int(selector.currentIndex) + by) % count)

    def _flip(self) -> None:
        if self._result is not None:
            self._ui.afterBox.setChecked(not self._result.is_shown_after)

    def _toggled(self, after: bool) -> None:
        if self._result is not None:
            self._result.show(after=after)

    def _save_report(self) -> None:
        if self._result is None:
            return
        name = "".join(letter if letter.isalnum() else "_" for letter in self._result.transform.GetName())
        path = qt.QFileDialog.getSaveFileName(
            self._ui.resultSection, _("Save the report"), f"{name}.html", "HTML (*.html)"
        )
        if path:
            Path(path).write_text(self._result.report, encoding="utf-8")

    def _accept(self) -> None:
        if self._result is None:
            return
        harden = bool(self._ui.hardenBox.checked)
        question = _("Write the movement into everything under the transform? This cannot be undone.")
        if not harden or slicer.util.confirmOkCancelDisplay(question, _("MMReg")):
            self._undo.accept(self._result, harden=harden)
            self.show(self._result)

    def _discard(self) -> None:
        if self._result is None:
            return
        question = _("Remove everything that this registration made, and put back what it moved?")
        if slicer.util.confirmOkCancelDisplay(question, _("MMReg")):
            result = self._result
            self.show(None)
            self._undo.discard(result)
            self._told_discarded()
            left = results_in(slicer.mrmlScene)
            if left:
                self._told_chosen(left[-1])
            else:
                self.show(None)

    def _take_back(self) -> None:
        if not self._undo.title:
            return
        shown, result = self._result, self._undo.result
        changes = shown is None or shown.transform is not result.transform
        if shown is not None and changes:
            shown.show(after=False)
        self._undo.back()
        if result.transform.GetScene() is None:  # it was deleted by hand meanwhile
            self._show_again()
            return
        if shown is not None and changes:
            result.show(after=True)
        self._told_chosen(result)


def _shortcut(ui: Any, keys: str, action: Callable[[], None]) -> Any:  # noqa: ANN401
    shortcut = qt.QShortcut(qt.QKeySequence(keys), slicer.util.mainWindow() or ui.resultSection)
    shortcut.connect("activated()", action)
    return shortcut


def verdict_text(result: Result) -> tuple[str, str]:
    """What to tell about a result, and the colour of the banner ('' for none).

    Results without a verdict (of an older MMReg) show the findings instead.
    """
    verdict = result.numbers.get("verdict") or {}
    level = str(verdict.get("level", ""))
    titles = {
        "accept": _("Nothing speaks against this result. Look at it all the same."),
        "review": _("Review this result with care:"),
        "reject": _("Do not use this result:"),
    }
    reasons = verdict.get("reasons") if level else result.numbers.get("notes")
    title = titles.get(level, _("No verdict was made; judge by the images."))
    lines = [title, *(f"• {reason}" for reason in reasons or [])]
    if result.accepted:
        lines.append(_("Accepted."))
    return "\n".join(lines), _COLOURS.get(level, "")
