"""The section *Result*: verdict, comparison, Apply to, landmarks, report, Accept, Discard and Undo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from MMRegCore.errors import InputError
from MMRegSlicerLib.apply_view import ApplyView
from MMRegSlicerLib.landmark_view import LandmarkView
from MMRegSlicerLib.qa_view import QaView
from MMRegSlicerLib.result import Result, results_in
from MMRegSlicerLib.stale_view import StaleView
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.undo import UndoStack

# Backgrounds light enough for black text in both of Slicer's themes.
_COLOURS = {"accept": "#d9f2d9", "review": "#fff0c2", "reject": "#f8d0d0"}


class ResultView:
    """Shows one result and acts on it.

    Parameters
    ----------
    ui : namespace
        The widgets of ``MMRegSlicer.ui`` by their names.
    on_selected : callable
        Called with the result when the user, or *Undo*, selects another one of the scene.
    on_discarded : callable
        Called after a result was discarded.
    on_again : callable
        Called to register again; the MR is then at the position from which to start.
    """

    def __init__(
        self,
        ui: Any,  # noqa: ANN401
        on_selected: Callable[[Result], None],
        on_discarded: Callable[[], None],
        on_again: Callable[[], None],
    ) -> None:
        self._ui = ui
        self._on_again = on_again
        self._on_selected = on_selected
        self._on_discarded = on_discarded
        self._result: Result | None = None
        self._was_preliminary = False
        self._undo_stack = UndoStack()
        self._qa = QaView(ui)
        self._landmarks = LandmarkView(ui)
        self._stale = StaleView(ui)
        self._apply = ApplyView(ui, self._undo_stack, lambda: self.show(self._result))
        ui.resultSelector.connect("currentIndexChanged(int)", self._on_result_selected)
        ui.afterCheckBox.connect("toggled(bool)", self._on_after_toggled)
        ui.previousButton.connect("clicked()", lambda: self._select_next(-1))
        ui.nextButton.connect("clicked()", lambda: self._select_next(1))
        ui.reportButton.connect("clicked()", self._on_report_clicked)
        ui.againButton.connect("clicked()", self._on_again_clicked)
        ui.acceptButton.connect("clicked()", self._on_accept_clicked)
        ui.discardButton.connect("clicked()", self._on_discard_clicked)
        ui.undoButton.connect("clicked()", self._on_undo_clicked)
        # Keys that Slicer does not use itself: B and the arrows step through slices, Ctrl and arrows through modules.
        self._shortcuts = [
            _shortcut(ui, keys, action)
            for keys, action in (
                ("Ctrl+B", self._toggle_after),
                ("Ctrl+PgUp", lambda: self._select_next(-1)),
                ("Ctrl+PgDown", lambda: self._select_next(1)),
            )
        ]

    def show(self, result: Result | None) -> None:
        """Show a result; None hides the section."""
        is_preliminary = result is not None and result.is_preliminary
        if self._is_other(result) or is_preliminary != self._was_preliminary:
            # The slice views are left as they are until there is a result to stay.
            self._qa.show(None if is_preliminary else result)
            self._landmarks.show(result)
            self._stale.show(result)
        self._result, self._was_preliminary = result, is_preliminary
        self._apply.show(result)
        self._ui.undoButton.setVisible(bool(self._undo_stack.undo_text))
        self._ui.undoButton.setText(_("Undo: {command}").format(command=self._undo_stack.undo_text))
        self._ui.resultSection.setVisible(result is not None)
        if result is None:
            return
        self._update_selector(result)
        text, colour = verdict_text(result)
        self._ui.verdictLabel.setText(text)
        self._ui.verdictLabel.setStyleSheet(f"background: {colour}; color: black; padding: 6px" if colour else "")
        self._ui.afterCheckBox.blockSignals(True)
        self._ui.afterCheckBox.setChecked(result.is_shown_after)
        self._ui.afterCheckBox.setEnabled(result.can_be_shown_before)
        self._ui.afterCheckBox.blockSignals(False)
        self._ui.reportButton.setEnabled(bool(result.report))
        self._ui.acceptButton.setEnabled(not result.accepted)

    def clear(self) -> None:
        """Show nothing and clear the undo stack, when the scene is closed."""
        self._undo_stack.clear()
        self.show(None)

    def set_active(self, active: bool) -> None:
        """Say whether the module is shown: keys and slice views belong to another one otherwise."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(active)
        self._qa.set_active(active)

    def cleanup(self) -> None:
        """Remove the shortcuts and all temporary nodes."""
        self._qa.stop()
        self._stale.show(None)
        self._result = None
        self.set_active(False)
        for shortcut in self._shortcuts:
            shortcut.deleteLater()
        self._shortcuts = []

    def _is_other(self, result: Result | None) -> bool:
        return result is None or self._result is None or result.transform is not self._result.transform

    def _update_selector(self, current: Result) -> None:
        selector, results = self._ui.resultSelector, results_in(slicer.mrmlScene)
        selector.blockSignals(True)
        selector.clear()
        for each in results:
            selector.addItem(each.transform.GetName(), each.transform.GetID())
        selector.setCurrentIndex(selector.findData(current.transform.GetID()))
        self._ui.resultArea.setVisible(len(results) > 1)
        selector.blockSignals(False)

    def _on_result_selected(self, index: int) -> None:
        results = results_in(slicer.mrmlScene)
        if self._result is None or not 0 <= index < len(results):
            return
        # The current transform is removed first, so that each result stores the original parent of the MR.
        self._result.show(after=False)
        results[index].show(after=True)
        self._on_selected(results[index])

    def _select_next(self, step: int) -> None:
        selector, count = self._ui.resultSelector, len(results_in(slicer.mrmlScene))
        if self._result is not None and count > 1:
            selector.setCurrentIndex((int(selector.currentIndex) + step) % count)

    def _toggle_after(self) -> None:
        if self._result is not None and self._result.can_be_shown_before:
            self._ui.afterCheckBox.setChecked(not self._result.is_shown_after)

    def _on_after_toggled(self, after: bool) -> None:
        if self._result is not None:
            self._result.show(after=after)

    def _on_report_clicked(self) -> None:
        if self._result is None:
            return
        name = "".join(letter if letter.isalnum() else "_" for letter in self._result.transform.GetName())
        path = qt.QFileDialog.getSaveFileName(self._ui.resultSection, _("Save report"), f"{name}.html", "HTML (*.html)")
        if path:
            path = path if Path(path).suffix else f"{path}.html"
            Path(path).write_text(self._result.report, encoding="utf-8")

    def _on_again_clicked(self) -> None:
        """Move the MR to the last accepted result of the same MR, otherwise to the shown one, and register."""
        if self._result is None:
            return
        moving = self._result.moving
        accepted = [each for each in results_in(slicer.mrmlScene) if each.accepted and each.moving == moving]
        start = accepted[-1] if accepted else self._result
        self._result.show(after=False)
        start.show(after=True)
        self._on_again()

    def _on_accept_clicked(self) -> None:
        if self._result is None:
            return
        harden = bool(self._ui.hardenCheckBox.checked)
        question = _("Harden the transform on all transformed nodes? This cannot be undone.")
        if not harden or slicer.util.confirmOkCancelDisplay(question, _("MMReg")):
            self._undo_stack.accept(self._result, harden=harden)
            self.show(self._result)

    def _on_discard_clicked(self) -> None:
        if self._result is None:
            return
        question = _("Remove all nodes that this registration created, and restore the original parent transforms?")
        if slicer.util.confirmOkCancelDisplay(question, _("MMReg")):
            result = self._result
            self.show(None)
            self._undo_stack.discard(result)
            self._on_discarded()
            remaining = results_in(slicer.mrmlScene)
            if remaining:
                self._on_selected(remaining[-1])
            else:
                self.show(None)

    def _on_undo_clicked(self) -> None:
        if not self._undo_stack.undo_text:
            return
        current, result = self._result, self._undo_stack.result
        is_other = current is None or current.transform is not result.transform
        if current is not None and is_other:
            current.show(after=False)
        self._undo_stack.undo()
        if result.transform.GetScene() is None:  # its transform was deleted by hand
            self.show(self._result)
            return
        if current is not None and is_other:
            result.show(after=True)
        self._on_selected(result)


def _shortcut(ui: Any, keys: str, action: Callable[[], None]) -> Any:  # noqa: ANN401
    shortcut = qt.QShortcut(qt.QKeySequence(keys), slicer.util.mainWindow() or ui.resultSection)
    shortcut.connect("activated()", action)
    return shortcut


def verdict_text(result: Result) -> tuple[str, str]:
    """The text of the verdict with its reasons, and the background colour ('' for none)."""
    titles = {
        "accept": _("No problem detected. Verify visually before use."),
        "review": _("Review required:"),
        "reject": _("Rejected:"),
    }
    title, colour = _("Not assessed. Verify visually before use."), ""
    reasons: tuple[str, ...] = ()
    try:
        verdict = result.verdict
        if verdict is not None:
            title, colour = titles[verdict.level], _COLOURS[verdict.level]
            reasons = (*verdict.reasons, *result.warnings)
    except InputError as error:  # a scene of another version of MMReg
        reasons = (str(error),)
    lines = [title, *(f"• {reason}" for reason in reasons)]
    if result.is_preliminary:
        lines.append(_("The quality is still being measured."))
    if result.accepted:
        lines.append(_("Accepted."))
    return "\n".join(lines), colour
