"""Progress and cancellation: one object that goes through every method."""

from __future__ import annotations

import threading
from collections.abc import Callable

from MMRegCore.errors import Cancelled

Listener = Callable[[str, float], None]


class Monitor:
    """Report progress of a run and let the caller cancel it.

    ``listener(stage, fraction)`` is called with a short plain-words label and the share of the whole run done, in
    [0, 1].  Methods call :meth:`report` often; it raises `Cancelled` once :meth:`cancel` was called (from any thread),
    so that a run stops at its next report.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the run to stop; safe from any thread or signal handler."""
        self._cancelled.set()

    def report(self, stage: str, fraction: float) -> None:
        """Tell how far the run is; raises `Cancelled` when :meth:`cancel` was called before."""
        if self._cancelled.is_set():
            raise Cancelled("cancelled on request")
        if self._listener is not None:
            self._listener(stage, min(max(fraction, 0.0), 1.0))

    def part(self, start: float, stop: float, label: str = "") -> Monitor:
        """Give a sub-task its share [start, stop] of this monitor's progress.

        ``label``, when given, is put in front of every stage that the sub-task reports.
        """
        return _Part(self, start, stop, label)


class _Part(Monitor):
    def __init__(self, parent: Monitor, start: float, stop: float, label: str) -> None:
        self._parent = parent
        self._start = start
        self._span = stop - start
        self._label = label

    def cancel(self) -> None:
        self._parent.cancel()

    def report(self, stage: str, fraction: float) -> None:
        fraction = min(max(fraction, 0.0), 1.0)
        stage = f"{self._label}: {stage}" if self._label else stage
        self._parent.report(stage, self._start + self._span * fraction)
