"""Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from MMRegCore.monitor import Monitor

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def cancel_on_signals(monitor: Monitor) -> Iterator[Monitor]:
    """Make the first SIGINT or SIGTERM cancel the monitor's run at its next report; a second one kills the process.

    What is being written when the signal comes is thereby written to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield monitor  # only the main thread may handle signals; its owner cancels through the monitor
        return

    def cancel(number: int, frame: object) -> None:
        monitor.cancel()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, cancel) for each in _SIGNALS}
    try:
        yield monitor
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
