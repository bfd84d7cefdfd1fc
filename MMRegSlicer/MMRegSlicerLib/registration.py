"""One registration on its way, from nodes to nodes; needs no Qt."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vtk

from MMRegCore import errors
from MMRegCore.errors import Cancelled, InputError, MMRegError
from MMRegSlicerLib import dependencies
from MMRegSlicerLib.command import write_inputs
from MMRegSlicerLib.dependencies import DependencyError
from MMRegSlicerLib.request import Node, Request
from MMRegSlicerLib.result import Result, add_result
from MMRegSlicerLib.runner import Worker
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.workspace import Workspace

_POLL_S = 0.02


@dataclass(frozen=True)
class Progress:
    """How far a registration is; ``left_s`` is None while an estimate would be a guess."""

    stage: str
    fraction: float
    left_s: float | None


def ignore(_unused: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Callbacks:
    """Whom a registration tells. Exactly one of ``done`` and ``failed`` is called, once, in the thread that polls.

    Attributes
    ----------
    progress : callable
        With a `Progress`.
    log : callable
        With a line of text for a person.
    done : callable
        With the `Result`.
    failed : callable
        With the error: `Cancelled` after a cancellation, else an `MMRegError`.
    """

    progress: Callable[[Progress], None] = ignore
    log: Callable[[str], None] = ignore
    done: Callable[[Result], None] = ignore
    failed: Callable[[MMRegError], None] = ignore


class Registration:
    """One registration on its way. Its process and its temporary folder are gone when it is over, however it ends.

    Parameters
    ----------
    request : Request
    callbacks : Callbacks

    Raises
    ------
    InputError
        When the request cannot be run, or a node cannot be written.
    DependencyError
        When a package is missing.
    """

    def __init__(self, request: Request, callbacks: Callbacks) -> None:
        problem = request.why_not()
        if problem:
            raise InputError(problem)
        lacking = ", ".join(package.name for package in dependencies.missing() if not package.optional)
        if lacking:
            raise DependencyError(
                _("{names} must be installed first: MMRegSlicerLib.dependencies.ensure asks and does it.").format(
                    names=lacking
                )
            )
        self._request = request
        self._callbacks = callbacks
        self._error: MMRegError | None = None
        self.result: Result | None = None
        self._workspace = Workspace()
        try:
            self._worker = Worker(write_inputs(request, self.folder))
        except BaseException:
            self._workspace.close()
            raise
        self._output = self.folder / "result"
        self._scene, self._observers = _observe(request, self)
        self.is_running = True

    def poll(self) -> bool:
        """Pass on what happened since the last call, and load the result when it is there.

        Returns
        -------
        bool
            Whether it is still running.
        """
        if self.is_running:
            for event in self._worker.events():
                self._take(event)
        return self.is_running

    def wait(self) -> Result:
        """Wait for the end.

        Returns
        -------
        Result

        Raises
        ------
        MMRegError
            When there is none; `Cancelled` after a cancellation.
        """
        while self.poll():
            time.sleep(_POLL_S)
        if self.result is None:
            raise self._error or Cancelled(_("cancelled"))
        return self.result

    def cancel(self, reason: str = "") -> None:
        """Stop at once; nothing is left in the scene or on disk. Does nothing when it is over already."""
        if self.is_running:
            self._end(Cancelled(reason or _("Cancelled. Nothing in the scene was changed.")))

    @property
    def folder(self) -> Path:
        """Where the files are exchanged; exists while it is running."""
        return self._workspace.folder

    @property
    def process_id(self) -> int:
        """The number of the worker process."""
        return self._worker.process_id

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if not self.is_running:
            return
        if kind == "progress":
            self._callbacks.progress(Progress(event["stage"], event["fraction"], event.get("left_s")))
        elif kind == "log":
            self._callbacks.log(event["line"])
        elif kind == "error":
            self._error = _error_from(event)
        elif kind == "exit":
            self._exited(event["code"])

    def _exited(self, code: int) -> None:
        if code == 0:
            try:
                self.result = add_result(self._output, self._request)
            except Exception as error:  # whatever it was, nobody must wait for an answer that never comes
                self._error = MMRegError(f"the result could not be loaded: {error}")
        elif self._error is None:
            self._error = MMRegError(_("The registration process ended unexpectedly (code {code}).").format(code=code))
        self._end(self._error)

    def _end(self, error: MMRegError | None) -> None:
        self.is_running = False
        self._error = error
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        self._worker.stop()
        self._workspace.close()
        if error is not None:
            self._callbacks.failed(error)
        elif self.result is not None:
            self._callbacks.done(self.result)


def _error_from(event: Mapping[str, Any]) -> MMRegError:
    """The error that the process met, as the same class where it is one of ours."""
    kind = getattr(errors, str(event.get("kind")), MMRegError)
    message = str(event.get("message", "")).removeprefix("error: ")
    return kind(message) if isinstance(kind, type) and issubclass(kind, MMRegError) else MMRegError(message)


def _observe(request: Request, registration: Registration) -> tuple[Node, list[int]]:
    """Cancel when the scene is closed or an input is deleted."""
    scene = request.fixed.GetScene()
    names = {node.GetID(): str(node.GetName()) for node in (request.fixed, *request.moving_nodes)}
    # An observer that held the registration would keep it, and its process, alive with the scene.
    reference = weakref.ref(registration)

    def cancel(reason: str) -> None:
        running = reference()
        if running is not None:
            running.cancel(reason)

    def on_close(_caller: Node, _event: str) -> None:
        cancel(_("Cancelled because the scene was closed."))

    def on_removal(_caller: Node, _event: str, node: Node) -> None:
        if node.GetID() in names:
            cancel(_("Cancelled because {name} was deleted.").format(name=names[node.GetID()]))

    # What vtk.calldata_type does, which has no types.
    on_removal.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return scene, [
        scene.AddObserver(scene.StartCloseEvent, on_close),
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, on_removal),
    ]
