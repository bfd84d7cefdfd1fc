"""A process that has everything imported before it is needed, and is kept from one registration to the next."""

from __future__ import annotations

from MMRegSlicerLib import dependencies
from MMRegSlicerLib.runner import Worker

_SERVE = ("-m", "MMRegCore", "serve")


class WarmWorker:
    """At most one idle process of ``mmreg serve``.

    A registration takes it, or starts one where there is none, and gives it back when it has succeeded. After an error
    or *Cancel* that process is stopped, and a new one is started in the background. A process that is idle for half an
    hour ends by itself.
    """

    def __init__(self) -> None:
        self._idle: Worker | None = None

    def prepare(self) -> None:
        """Start the process in the background, unless it is there already or packages are missing."""
        if self._idle is not None and self._idle.is_alive:
            return
        self.stop()
        if not dependencies.missing_required():
            self._idle = Worker(_SERVE)

    def take(self) -> Worker:
        """The idle process, which belongs to the caller now; a new one when there is none."""
        idle, self._idle = self._idle, None
        if idle is None or not idle.is_alive:
            return Worker(_SERVE)
        idle.poll({})  # what it said since the last registration
        return idle

    def give_back(self, worker: Worker) -> None:
        """Keep a process for the next registration, unless one is idle already."""
        if self._idle is not None:
            worker.stop()
        else:
            self._idle = worker

    def stop(self) -> None:
        """Stop the idle process."""
        if self._idle is not None:
            self._idle.stop()
            self._idle = None
