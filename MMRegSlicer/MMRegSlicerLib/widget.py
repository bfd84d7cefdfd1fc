"""The panel of the module: parameter set, registration, result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from MMRegCore.errors import MMRegError
from MMRegSlicerLib import dependencies
from MMRegSlicerLib.bug_report import bug_report
from MMRegSlicerLib.devices import DeviceProbe
from MMRegSlicerLib.form import Form
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.parameters import (
    MODULE,
    ParameterSet,
    current_parameter_node,
    remove_unused_parameter_nodes,
    set_current_parameter_node,
)
from MMRegSlicerLib.registration_run import Callbacks, Progress
from MMRegSlicerLib.request import Node, Request
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.result_view import ResultView
from MMRegSlicerLib.translation import tr as _

_POLL_MS = 50
_BEFORE_SELECTORS = 1000.0


class Panel(VTKObservationMixin):  # type: ignore[misc]
    """Connects the widgets of ``MMRegSlicer.ui`` to the scene and to the logic.

    Parameters
    ----------
    ui : namespace
        The widgets by their names.
    logic : MMRegSlicerLogic
    """

    def __init__(self, ui: Any, logic: MMRegSlicerLogic) -> None:  # noqa: ANN401
        super().__init__()
        self.ui = ui
        self.logic = logic
        self._parameters: ParameterSet | None = None
        self._probe: DeviceProbe | None = None
        self._has_probed = False
        self._is_running = False
        self._stage = ""
        self._replaced: Node | None = None
        self.form = Form(ui, self._on_form_changed)
        self.result_view = ResultView(ui, self._show_result, self._on_result_discarded, self._on_again)
        self._timer = qt.QTimer()
        self._timer.setInterval(_POLL_MS)
        self._timer.connect("timeout()", self._poll)
        # Single: while a node is being removed, it is still in the scene.
        self._update_timer = qt.QTimer()
        self._update_timer.setSingleShot(True)
        self._update_timer.connect("timeout()", self._update_from_scene)
        ui.parameterSelector.baseName = MODULE
        ui.parameterSelector.setNodeTypeLabel(_("parameter set"), "vtkMRMLScriptedModuleNode")
        ui.parameterSelector.addAttribute("vtkMRMLScriptedModuleNode", "ModuleName", MODULE)
        ui.parameterSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_parameter_set_selected)
        ui.registerButton.connect("clicked()", lambda: self._start(self.form.request))
        ui.copyLogButton.connect("clicked()", self._on_copy_log_clicked)
        ui.cancelButton.connect("clicked()", self.logic.cancelAll)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_start_close)
        self.addObserver(scene, scene.EndCloseEvent, lambda _caller, _event: self._update_from_scene())
        self.addObserver(scene, scene.EndImportEvent, self._on_scene_end_import)
        # Before the node selectors, which would select a neighbour of the removed node.
        self.addObserver(
            scene, scene.NodeAboutToBeRemovedEvent, self._on_node_about_to_be_removed, priority=_BEFORE_SELECTORS
        )
        self.addObserver(scene, scene.NodeRemovedEvent, self._on_node_removed)

    def enter(self) -> None:
        """Update from the scene and enable the shortcuts, when the user switches to the module."""
        self.logic.warmUp()
        self._update_from_scene()
        self.result_view.set_active(True)

    def exit(self) -> None:
        """Leave keys and slice views to another module, when the user switches to it. A registration goes on."""
        self.result_view.set_active(False)

    def cleanup(self) -> None:
        """Stop all processes, timers and observers, when the module is reloaded or the application quits."""
        self.logic.close()
        self._timer.stop()
        self._update_timer.stop()
        if self._probe is not None:
            self._probe.stop()
            self._probe = None
        self._release_parameter_node()
        self.removeObservers()
        self.form.close()
        self.result_view.cleanup()

    def _update_from_scene(self) -> None:
        self._set_parameter_node(current_parameter_node(slicer.mrmlScene))
        self._detect_devices()

    def _on_scene_end_import(self, _caller: object, _event: str) -> None:
        remove_unused_parameter_nodes(slicer.mrmlScene)
        self._update_from_scene()

    def _on_parameter_set_selected(self, node: Node) -> None:
        """Show the selected parameter set; None while the scene is being closed or loaded, or the last one removed."""
        current = None if self._parameters is None else self._parameters.node
        if current is None or node is None or node is current or slicer.mrmlScene.IsBatchProcessing():
            return
        set_current_parameter_node(node)
        self._set_parameter_node(node)

    def _set_parameter_node(self, node: Node) -> None:
        if self._parameters is None or self._parameters.node is not node:
            self._release_parameter_node()
            self._parameters = ParameterSet(node)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._on_parameter_node_modified)
            self.ui.parameterSelector.setCurrentNode(node)
        self._update_from_parameter_node()

    def _release_parameter_node(self) -> None:
        if self._parameters is not None:
            self.removeObserver(self._parameters.node, vtk.vtkCommand.ModifiedEvent, self._on_parameter_node_modified)
            self._parameters = None

    def _on_parameter_node_modified(self, _caller: object, _event: str) -> None:
        self._update_from_parameter_node()

    def _update_from_parameter_node(self) -> None:
        if self._parameters is None:
            return
        if self.form.request != self._parameters.request:
            self.form.request = self._parameters.request
        self._update_register_button()
        transform = self._parameters.result_transform
        self.result_view.show(None if transform is None else Result(transform))

    def _on_form_changed(self) -> None:
        if self._parameters is not None:
            self._parameters.request = self.form.request
            set_current_parameter_node(self._parameters.node)
        self._update_register_button()

    def _update_register_button(self) -> None:
        """Enable *Register* if the request is valid, otherwise show why it is not."""
        if self._is_running:
            return
        error = self.form.request.validation_error()
        self.ui.registerButton.setEnabled(not error)
        self.ui.statusLabel.setText(error)

    def _on_again(self) -> None:
        """Register with the same settings, from where the MR is."""
        self._start(replace(self.form.request, initial_transform=None))

    def _on_copy_log_clicked(self) -> None:
        log = str(self.ui.logView.toPlainText())
        # The application's QClipboard.
        slicer.app.clipboard().setText(bug_report(self.form.request, log, slicer.mrmlScene))

    def _start(self, request: Request) -> None:
        try:
            if dependencies.ensure_installed(
                lambda question: bool(slicer.util.confirmOkCancelDisplay(question, _("MMReg")))
            ):
                self.logic.close()  # a process that started without the packages
            callbacks = Callbacks(
                self._on_progress, self._on_log, self._on_transform, self._on_finished, self._on_failed
            )
            self.logic.startRequest(request, callbacks)
        except MMRegError as error:
            self.ui.statusLabel.setText(str(error))
            self._on_log(str(error))
            return
        self.ui.logView.setPlainText("")
        self._stage = ""
        self._set_running(True)
        self.ui.statusLabel.setText(_("Starting…"))
        self._timer.start()

    def _poll(self) -> None:
        is_running = self.logic.poll()
        is_probing = self._probe is not None and self._probe.poll()
        if not is_probing:
            self._probe = None
        if not is_running and not is_probing:
            self._timer.stop()

    def _on_progress(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._on_log(progress.stage)
        self.ui.progressBar.setValue(round(1000 * progress.fraction))
        self.ui.statusLabel.setText(_progress_text(progress))

    def _on_log(self, line: str) -> None:
        self.ui.logView.appendPlainText(line)

    def _on_transform(self, result: Result) -> None:
        self._replaced = None if self._parameters is None else self._parameters.result_transform
        self._show_result(result)

    def _on_finished(self, result: Result) -> None:
        self._set_running(False)
        self._replaced = None
        self._show_result(result)
        self.ui.statusLabel.setText(_("Finished. Check the result before accepting."))

    def _on_failed(self, error: MMRegError) -> None:
        self._set_running(False)
        self._show_replaced()
        self._show_status(str(error))
        # The status is replaced when the parameter set changes; the log keeps the error.
        self._on_log(str(error))

    def _show_replaced(self) -> None:
        """Show the result that a preliminary one had replaced."""
        node, self._replaced = self._replaced, None
        if node is not None and node.GetScene() is not None:
            self._show_result(Result(node))

    def _set_running(self, running: bool) -> None:
        ui, self._is_running = self.ui, running
        ui.cancelButton.setVisible(running)
        ui.progressBar.setVisible(running)
        ui.progressBar.setValue(0)
        ui.registerButton.setVisible(not running)
        ui.parameterArea.setEnabled(not running)
        self.form.set_enabled(not running)
        ui.resultSection.setEnabled(not running)

    def _show_result(self, result: Result) -> None:
        if self._parameters is not None:
            self._parameters.result_transform = result.transform
        self.result_view.show(result)

    def _on_result_discarded(self) -> None:
        self.ui.statusLabel.setText(_("Result discarded. The original parent transforms were restored."))

    def _on_scene_start_close(self, _caller: object, _event: str) -> None:
        self.logic.cancelAll(_("Registration cancelled: the scene was closed."))
        self._release_parameter_node()
        self.result_view.clear()

    @vtk.calldata_type(vtk.VTK_OBJECT)  # type: ignore[untyped-decorator]
    def _on_node_about_to_be_removed(self, _caller: object, _event: str, node: Node) -> None:
        """Deselect a node that the user deletes, and say so."""
        for selector in (self.ui.fixedLandmarksSelector, self.ui.movingLandmarksSelector, self.ui.applySelector):
            if selector.currentNode() is node:
                selector.setCurrentNode(None)
        if self._parameters is None:
            return
        if node is self._parameters.node:
            self._release_parameter_node()
            self._update_timer.start()
            return
        request = self._parameters.request
        remaining = request.without(node)
        if remaining != request:
            self._parameters.request = remaining
            if not self._is_running:
                self._show_status(_("{name} was deleted and is no longer selected.").format(name=node.GetName()))

    def _show_status(self, text: str) -> None:
        """Show a sentence, and after it why *Register* is disabled, if it is."""
        self._update_register_button()
        self.ui.statusLabel.setText(f"{text} {self.form.request.validation_error()}".strip())

    def _on_node_removed(self, _caller: object, _event: str) -> None:
        if self._parameters is not None and self._parameters.result_transform is None:
            self.result_view.show(None)

    def _detect_devices(self) -> None:
        if self._has_probed:
            return
        missing = dependencies.missing_required()
        if missing:
            text = _("{names} will be installed before the first registration, after confirmation.")
            self.ui.deviceStatus.setText(text.format(names=missing))
            return
        self._has_probed = True
        self.ui.deviceStatus.setText(_("Detecting compute devices…"))
        self._probe = DeviceProbe(self.ui.deviceStatus.setText)
        self._timer.start()


def _progress_text(progress: Progress) -> str:
    if progress.remaining_s is None:
        return f"{progress.stage}…"
    minutes, seconds = divmod(round(progress.remaining_s), 60)
    remaining = _("{minutes}:{seconds:02d} remaining").format(minutes=minutes, seconds=seconds)
    return f"{progress.stage}, {remaining}"
