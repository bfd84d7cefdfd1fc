"""The section *Result*: what came out, whether to believe it, what else moves along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from MMRegSlicerLib.companions import may_move, with_folder
from MMRegSlicerLib.landmark_view import LandmarkView
from MMRegSlicerLib.qa_view import QaView
from MMRegSlicerLib.result import Result, results_in
from MMRegSlicerLib.translation import tr as _

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
        self._qa = QaView(ui)
        self._landmarks = LandmarkView(ui)
        ui.resultSelector.connect("currentIndexChanged(int)", self._choose)
        ui.afterBox.connect("toggled(bool)", self._toggled)
        ui.applySelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._refresh_apply())
        ui.applyButton.connect("clicked()", self._apply)
        ui.reportButton.connect("clicked()", self._save_report)
        ui.acceptButton.connect("clicked()", self._accept)
        ui.discardButton.connect("clicked()", self._discard)
        self._shortcut = qt.QShortcut(qt.QKeySequence("b"), slicer.util.mainWindow() or ui.resultSection)
        self._shortcut.connect("activated()", self._flip)

    def show(self, result: Result | None) -> None:
        """Show a result, or nothing."""
        if result is None or self._result is None or result.transform is not self._result.transform:
            self._qa.show(result)
            self._landmarks.show(result)
        self._result = result
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
        self._refresh_apply()

    def take_key(self, active: bool) -> None:
        """Listen to the key *B*, or leave it to others."""
        self._shortcut.setEnabled(active)

    def cleanup(self) -> None:
        """Give the key back, and leave nothing in the views."""
        self._qa.stop()
        self._result = None
        self._shortcut.setEnabled(False)
        self._shortcut.deleteLater()

    def _list_results(self, shown: Result) -> None:
        selector, results = self._ui.resultSelector, results_in(slicer.mrmlScene)
        selector.blockSignals(True)
        selector.clear()
        for each in results:
            selector.addItem(each.transform.GetName(), each.transform.GetID())
        selector.setCurrentIndex(selector.findData(shown.transform.GetID()))
        selector.setVisible(len(results) > 1)
        selector.blockSignals(False)

    def _choose(self, index: int) -> None:
        results = results_in(slicer.mrmlScene)
        if self._result is None or not 0 <= index < len(results):
            return
        # Back from one before on to the other, so that each remembers where the MR was without the other.
        self._result.show(after=False)
        results[index].show(after=True)
        self._told_chosen(results[index])

    def _flip(self) -> None:
        if self._result is not None:
            self._ui.afterBox.setChecked(not self._result.is_shown_after)

    def _toggled(self, after: bool) -> None:
        if self._result is not None:
            self._result.show(after=after)

    def _refresh_apply(self) -> None:
        node = self._ui.applySelector.currentNode()
        result = self._result
        self._ui.applyButton.setEnabled(result is not None and may_move(node, result))
        moved = result is not None and node in result.under
        self._ui.applyButton.setText(_("Put back") if moved else _("Put under the transform"))

    def _apply(self) -> None:
        """Move what is chosen, or, when it lies under the transform already, put it back."""
        if self._result is None:
            return
        node = self._ui.applySelector.currentNode()
        together = with_folder(node, self._result) if self._ui.applyFolderBox.checked else (node,)
        under = self._result.under
        for each in together:
            if node not in under:
                self._result.apply_to(each)
            elif each in under:
                self._result.take_from(each)
        self.show(self._result)

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
        if self._result is not None:
            self._result.accept()
            self.show(self._result)

    def _discard(self) -> None:
        if self._result is None:
            return
        question = _("Remove everything that this registration made, and put back what it moved?")
        if slicer.util.confirmOkCancelDisplay(question, _("MMReg")):
            result = self._result
            self.show(None)
            result.discard()
            self._told_discarded()
            left = results_in(slicer.mrmlScene)
            if left:
                self._told_chosen(left[-1])


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
