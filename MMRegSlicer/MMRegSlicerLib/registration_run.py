"""One run of a registration, from nodes to nodes; needs no Qt."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import vtk

from MMRegCore.errors import Cancelled, InputError, MMRegError
from MMRegSlicerLib import dependencies
from MMRegSlicerLib.command import write_inputs
from MMRegSlicerLib.dependencies import DependencyError
from MMRegSlicerLib.request import Node, Request
from MMRegSlicerLib.result import Result, add_outputs, add_result, add_transform
from MMRegSlicerLib.runner import Event, reported_error
from MMRegSlicerLib.staleness import checksums, store_checksums
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.warm import WarmWorker
from MMRegSlicerLib.workspace import Workspace

_POLL_S = 0.02


@dataclass(frozen=True)
class Progress:
    """Progress of a registration: current stage, fraction done (0 to 1), remaining time (None while unknown)."""

    stage: str
    fraction: float
    remaining_s: float | None


def ignore(_unused: object) -> None:
    """The default callback."""


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a registration, in the thread that polls; it ends with either ``on_finished`` or ``on_failed``.

    Attributes
    ----------
    on_progress : callable
        With a `Progress`.
    on_log : callable
        With a line of the registration log.
    on_transform : callable
        With a `Result` that has a transform and a verdict only, while the quality is still being measured. The same one
        is then finished; it is discarded when the registration is cancelled or fails.
    on_finished : callable
        With the `Result`.
    on_failed : callable
        With an `MMRegError`; it is `Cancelled` after a cancellation.
    """

    on_progress: Callable[[Progress], None] = ignore
    on_log: Callable[[str], None] = ignore
    on_transform: Callable[[Result], None] = ignore
    on_finished: Callable[[Result], None] = ignore
    on_failed: Callable[[MMRegError], None] = ignore


class RegistrationRun:
    """One run of a registration. However it ends, its temporary folder is removed, and its process is idle or stopped.

    Parameters
    ----------
    request : Request
    callbacks : Callbacks
    warm : WarmWorker
        Where the process comes from, and goes to after a success.

    Raises
    ------
    InputError
        When the request is not valid, or a node cannot be written.
    DependencyError
        When a package is missing.
    """

    def __init__(self, request: Request, callbacks: Callbacks, warm: WarmWorker) -> None:
        problem = request.validation_error()
        if problem:
            raise InputError(problem)
        missing = dependencies.missing_required()
        if missing:
            raise DependencyError(
                _("{names} must be installed first: call MMRegSlicerLib.dependencies.ensure_installed.").format(
                    names=missing
                )
            )
        self._request = request
        self._callbacks = callbacks
        self._warm = warm
        self._error: MMRegError | None = None
        self._preliminary: Result | None = None
        self.result: Result | None = None
        self._workspace = Workspace()
        self._worker = warm.take()
        try:
            self._worker.send(write_inputs(request, self.folder))
        except BaseException:
            warm.give_back(self._worker)
            self._workspace.close()
            raise
        self._output = self.folder / "result"
        # Of what was written: an image may change while it is being registered.
        self._checksums = checksums((request.fixed, *request.moving_nodes))
        self._scene, self._observers = _observe(request, self)
        self.is_running = True

    def poll(self) -> bool:
        """Call back what happened since the last call; load the result when the process has finished.

        Returns
        -------
        bool
            Whether it is still running.
        """
        if self.is_running:
            self._worker.poll(
                {
                    "progress": self._on_progress,
                    "log": self._on_log,
                    "transform": self._on_transform,
                    "error": self._on_error,
                    "exit": self._on_exit,
                }
            )
        return self.is_running

    def wait(self) -> Result:
        """Wait for the end.

        Returns
        -------
        Result

        Raises
        ------
        MMRegError
            When there is no result; `Cancelled` after a cancellation.
        """
        while self.poll():
            time.sleep(_POLL_S)
        if self.result is None:
            raise self._error or Cancelled(_("Registration cancelled."))
        return self.result

    def cancel(self, reason: str = "") -> None:
        """Stop at once, without leaving anything in the scene or on disk. Does nothing when it has ended already."""
        if self.is_running:
            self._end(Cancelled(reason or _("Registration cancelled. The scene was not changed.")))

    @property
    def folder(self) -> Path:
        """The temporary folder; exists while it is running."""
        return self._workspace.folder

    @property
    def process_id(self) -> int:
        """The number of the worker process."""
        return self._worker.process_id

    def _on_progress(self, event: Event) -> None:
        self._callbacks.on_progress(Progress(event["stage"], event["fraction"], event.get("left_s")))

    def _on_log(self, event: Event) -> None:
        self._callbacks.on_log(event["line"])

    def _on_transform(self, event: Event) -> None:
        # A quick registration may be over by now: then the file has moved, and the whole result comes at once.
        file = Path(event["file"])
        with suppress(InputError):
            if file.is_file():
                self._preliminary = add_transform(file, self._request, event["verdict"])
                store_checksums(self._preliminary, self._checksums)
                self._callbacks.on_transform(self._preliminary)

    def _on_error(self, event: Event) -> None:
        self._error = reported_error(event)

    def _on_exit(self, event: Event) -> None:
        if event["code"] == 0:
            try:
                self.result = self._loaded()
                store_checksums(self.result, self._checksums)
            except Exception as error:  # whatever it is, a callback must be called
                self._error = MMRegError(_("The result could not be loaded: {error}").format(error=error))
        elif self._error is None:
            self._error = MMRegError(
                _("The registration process ended unexpectedly (code {code}).").format(code=event["code"])
            )
        self._end(self._error)

    def _loaded(self) -> Result:
        if self._preliminary is None or self._preliminary.is_deleted:
            return add_result(self._output, self._request)
        return add_outputs(self._output, self._preliminary)

    def _end(self, error: MMRegError | None) -> None:
        self.is_running = False
        self._error = error
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        if error is None:
            self._warm.give_back(self._worker)
        else:
            self._worker.stop()
        self._workspace.close()
        if error is not None:
            self._undo(error)
        elif self.result is not None:
            self._callbacks.on_finished(self.result)

    def _undo(self, error: MMRegError) -> None:
        if self._preliminary is not None and not self._preliminary.is_deleted:
            self._preliminary.discard()
        self._callbacks.on_failed(error)
        self._warm.prepare()


def _observe(request: Request, run: RegistrationRun) -> tuple[Node, list[int]]:
    """Add observers that cancel a run when the scene is closed or an input is deleted."""
    scene = request.fixed.GetScene()
    names = {node.GetID(): str(node.GetName()) for node in (request.fixed, *request.moving_nodes)}
    # An observer with a strong reference would keep the run, and its process, alive with the scene.
    reference = weakref.ref(run)

    def cancel(reason: str) -> None:
        observed = reference()
        if observed is not None:
            observed.cancel(reason)

    def on_scene_close(_caller: Node, _event: str) -> None:
        cancel(_("Registration cancelled: the scene was closed."))

    def on_node_removal(_caller: Node, _event: str, node: Node) -> None:
        if node.GetID() in names:
            cancel(_("Registration cancelled: {name} was deleted.").format(name=names[node.GetID()]))

    # What vtk.calldata_type does, which has no types.
    on_node_removal.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return scene, [
        scene.AddObserver(scene.StartCloseEvent, on_scene_close),
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, on_node_removal),
    ]
