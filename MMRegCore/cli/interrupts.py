"""Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from MMRegCore.monitor import Monitor

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handled(signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle signals meanwhile; only the main thread may, and another one leaves them to it."""
    mine = signals if threading.current_thread() is threading.main_thread() else ()
    before = {each: signal.signal(each, handler) for each in mine}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)


@contextmanager
def cancel_on_signals(monitor: Monitor) -> Iterator[Monitor]:
    """Make the first SIGINT or SIGTERM cancel the monitor's run at its next report; a second one kills the process.

    What is being written when the signal comes is thereby written to its end.
    """

    def cancel(number: int, frame: object) -> None:
        monitor.cancel()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    with handled(_SIGNALS, cancel):
        yield monitor
