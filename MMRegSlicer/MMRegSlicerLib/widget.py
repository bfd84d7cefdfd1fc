"""The panel of the module: form, running, result."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from MMRegCore.errors import MMRegError
from MMRegSlicerLib import dependencies
from MMRegSlicerLib.devices import DeviceProbe
from MMRegSlicerLib.form import Form
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.parameters import MODULE, Parameters, make_current, parameter_node, remove_unused
from MMRegSlicerLib.registration import Callbacks, Progress
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result
from MMRegSlicerLib.result_view import ResultView
from MMRegSlicerLib.translation import tr as _

_POLL_MS = 50


class Panel(VTKObservationMixin):  # type: ignore[misc]
    """Ties the widgets of ``MMRegSlicer.ui`` to the scene and to the logic.

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
        self._parameters: Parameters | None = None
        self._probe: DeviceProbe | None = None
        self._probed = False
        self._running = False
        self.form = Form(ui, self._form_changed)
        self.result_view = ResultView(ui, self._result_chosen, self._discarded)
        self._timer = qt.QTimer()
        self._timer.setInterval(_POLL_MS)
        self._timer.connect("timeout()", self._poll)
        ui.parameterSelector.baseName = MODULE
        ui.parameterSelector.addAttribute("vtkMRMLScriptedModuleNode", "ModuleName", MODULE)
        ui.parameterSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._form_chosen)
        ui.registerButton.connect("clicked()", self._register_clicked)
        ui.cancelButton.connect("clicked()", self._cancel_clicked)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._scene_closes)
        self.addObserver(scene, scene.EndCloseEvent, lambda _caller, _event: self._show_scene())
        self.addObserver(scene, scene.EndImportEvent, lambda _caller, _event: self._scene_loaded())
        self.addObserver(scene, scene.NodeRemovedEvent, lambda _caller, _event: self._node_removed())

    def enter(self) -> None:
        """Show what the scene holds; called when a person comes to the module."""
        self.result_view.take_keys(True)
        self._show_scene()

    def exit(self) -> None:
        """Give the keys to other modules; called when a person leaves for one. A registration goes on."""
        self.result_view.take_keys(False)

    def cleanup(self) -> None:
        """Leave nothing behind: called when the module is reloaded and when the application quits."""
        self.logic.cancelAll()
        self._timer.stop()
        if self._probe is not None:
            self._probe.stop()
            self._probe = None
        self.removeObservers()
        self.result_view.cleanup()

    def _show_scene(self) -> None:
        self._show_form(parameter_node(slicer.mrmlScene))
        self._look_for_devices()

    def _scene_loaded(self) -> None:
        remove_unused(slicer.mrmlScene)
        self._show_scene()

    def _form_chosen(self, node: Node) -> None:
        """Show another form of the scene; while the scene is being closed or loaded there may be none."""
        scene = slicer.mrmlScene
        shown = None if self._parameters is None else self._parameters.node
        if shown is None or node is shown or scene.IsBatchProcessing():
            return
        if node is not None:
            make_current(node)
        self._show_form(node if node is not None else parameter_node(scene))

    def _show_form(self, node: Node) -> None:
        if self._parameters is None or self._parameters.node is not node:
            self._forget_parameters()
            self._parameters = Parameters(node)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, lambda _caller, _event: self._parameters_changed())
            self.ui.parameterSelector.setCurrentNode(node)
        self._parameters_changed()

    def _form_changed(self) -> None:
        if self._parameters is not None:
            self._parameters.request = self.form.request
            make_current(self._parameters.node)
        self._refresh()

    def _parameters_changed(self) -> None:
        if self._parameters is None:
            return
        if self.form.request != self._parameters.request:
            self.form.request = self._parameters.request
        self._refresh()
        transform = self._parameters.result_transform
        self.result_view.show(None if transform is None else Result(transform))

    def _refresh(self) -> None:
        """Enable *Register* when it can run, and otherwise say why it cannot."""
        if self._running:
            return
        problem = self.form.request.why_not()
        self.ui.registerButton.setEnabled(not problem)
        self.ui.statusLabel.setText(problem)

    def _register_clicked(self) -> None:
        try:
            dependencies.ensure(lambda question: bool(slicer.util.confirmOkCancelDisplay(question, _("MMReg"))))
            callbacks = Callbacks(self._progressed, self._logged, self._done, self._failed)
            self.logic.startRequest(self.form.request, callbacks)
        except MMRegError as error:
            self.ui.statusLabel.setText(str(error))
            self._logged(str(error))
            return
        self.ui.logView.setPlainText("")
        self._show_running(True)
        self.ui.statusLabel.setText(_("Starting…"))
        self._timer.start()

    def _cancel_clicked(self) -> None:
        self.logic.cancelAll()

    def _poll(self) -> None:
        running = self.logic.poll()
        probing = self._probe is not None and self._probe.poll()
        if not probing:
            self._probe = None
        if not running and not probing:
            self._timer.stop()

    def _progressed(self, progress: Progress) -> None:
        self.ui.progressBar.setValue(round(1000 * progress.fraction))
        self.ui.statusLabel.setText(_status(progress))

    def _logged(self, line: str) -> None:
        self.ui.logView.appendPlainText(line)

    def _done(self, result: Result) -> None:
        self._show_running(False)
        if self._parameters is not None:
            self._parameters.result_transform = result.transform
        self.ui.statusLabel.setText(_("Done. Look at the images before you believe it."))
        self.result_view.show(result)

    def _failed(self, error: MMRegError) -> None:
        self._show_running(False)
        self.ui.statusLabel.setText(str(error))
        # The line above the button goes with the next change of the form; the log keeps it.
        self._logged(str(error))

    def _show_running(self, running: bool) -> None:
        ui, self._running = self.ui, running
        ui.cancelButton.setVisible(running)
        ui.progressBar.setVisible(running)
        ui.progressBar.setValue(0)
        ui.registerButton.setVisible(not running)
        ui.parameterArea.setEnabled(not running)
        self.form.set_enabled(not running)
        ui.resultSection.setEnabled(not running)

    def _result_chosen(self, result: Result) -> None:
        if self._parameters is not None:
            self._parameters.result_transform = result.transform
        self.result_view.show(result)

    def _discarded(self) -> None:
        self.ui.statusLabel.setText(_("Discarded. Everything is where it was before."))

    def _scene_closes(self, _caller: object, _event: str) -> None:
        self.logic.cancelAll(_("Cancelled because the scene was closed."))
        self._forget_parameters()
        self.result_view.forget()

    def _node_removed(self) -> None:
        if self._parameters is not None and self._parameters.result_transform is None:
            self.result_view.show(None)

    def _forget_parameters(self) -> None:
        if self._parameters is not None:
            node = self._parameters.node
            for observed, event, method, *_rest in list(self.Observations):
                if observed is node:
                    self.removeObserver(node, event, method)
            self._parameters = None

    def _look_for_devices(self) -> None:
        if self._probed:
            return
        lacking = [package.name for package in dependencies.missing() if not package.optional]
        if lacking:
            text = _("{names} will be installed before the first registration, after asking you.")
            self.ui.deviceFound.setText(text.format(names=", ".join(lacking)))
            return
        self._probed = True
        self.ui.deviceFound.setText(_("Looking for a GPU…"))
        self._probe = DeviceProbe(self.ui.deviceFound.setText)
        self._timer.start()


def _status(progress: Progress) -> str:
    if progress.left_s is None:
        return f"{progress.stage}…"
    minutes, seconds = divmod(round(progress.left_s), 60)
    left = _("{minutes}:{seconds:02d} left").format(minutes=minutes, seconds=seconds)
    return f"{progress.stage}, {left}"
