"""A Python process that works for the application: started, polled, stopped; the application is never blocked."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import slicer

import MMRegCore
from MMRegCore import errors
from MMRegCore.errors import MMRegError

# The process has been killed by then; only a computer that hangs needs longer.
_STOP_S = 10.0

Event = dict[str, Any]
Handlers = Mapping[str, Callable[[Event], None]]


class Worker:
    """A Python process that reports by JSON lines.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``python``, such as ``-m MMRegCore simulate … --json-progress``.
    python : str, optional
        The interpreter; Slicer's own when None.

    Notes
    -----
    Two threads only read the pipes, so that the process never waits for the application. Everything else happens in
    the thread that calls. When the application ends, the process ends too: either it is stopped, or it finds its pipes
    closed, at its next progress line or while it waits for a command.
    """

    def __init__(self, arguments: Sequence[str], *, python: str | None = None) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        interpreter = python or slicer_python()
        self._process = subprocess.Popen(
            [interpreter, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=worker_environment(interpreter),
            # Slicer's interpreter is a launcher that starts the real one: both must be stopped together.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        readers = ((self._process.stdout, _json_event), (self._process.stderr, _log_event))
        self._threads = [
            threading.Thread(target=_read, args=(stream, parse, self._events), daemon=True) for stream, parse in readers
        ]
        for thread in self._threads:
            thread.start()
        self._finish = weakref.finalize(self, _stop, self._process, self._threads)

    @property
    def process_id(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended, nor been stopped."""
        return self._process.poll() is None

    def send(self, arguments: Sequence[str]) -> None:
        """Have a process of ``mmreg serve`` run a command; that it has ended, `poll` will tell."""
        with suppress(OSError):
            print(json.dumps({"arguments": list(arguments)}), file=self._process.stdin, flush=True)

    def poll(self, handlers: Handlers) -> bool:
        """Pass all events since the last call to their handlers, up to an 'exit'; never waits.

        Parameters
        ----------
        handlers : mapping of str to callable
            By the name of the event: what the process writes ('progress', 'done' or 'error' of
            ``mmreg --json-progress``), 'log' with a ``line`` of its log, and last 'exit' with the ``code`` of a command
            of ``mmreg serve`` or, once, of the process; not called any more after `stop`. Events without a handler are
            dropped.

        Returns
        -------
        bool
            Whether the process is still running.
        """
        # Before the queue is emptied: then everything that the threads read is in it.
        has_ended = self._process.poll() is not None and not any(thread.is_alive() for thread in self._threads)
        while self._finish.alive and not self._events.empty():
            event = self._events.get()
            _dispatch(event, handlers)
            if event["event"] == "exit":
                return self._finish.alive
        if self._finish.alive and has_ended:
            self.stop()
            _dispatch({"event": "exit", "code": self._process.returncode}, handlers)
        return self._finish.alive

    def stop(self) -> None:
        """Kill the process and all its children at once. May be called again."""
        self._finish()


def reported_error(event: Event) -> MMRegError:
    """The error of an 'error' event, of the same class if it is one of MMRegCore's."""
    kind = getattr(errors, str(event.get("kind")), MMRegError)
    message = str(event.get("message", "")).removeprefix("error: ")
    return kind(message) if isinstance(kind, type) and issubclass(kind, MMRegError) else MMRegError(message)


def slicer_python() -> str:
    """The interpreter that has Slicer's packages: ``PythonSlicer`` inside the application, otherwise this one."""
    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    sibling = Path(sys.executable).with_name(name)
    return str(sibling) if sibling.is_file() else shutil.which(name) or sys.executable


def worker_environment(interpreter: str) -> dict[str, str]:
    """The environment in which ``interpreter`` finds MMRegCore and writes UTF-8.

    ``PythonSlicer`` sets the paths of Slicer's libraries by itself; it must be started in the environment that the
    application was started in.
    """
    launched = Path(interpreter).stem == "PythonSlicer" and hasattr(slicer, "app")
    environment = dict(slicer.util.startupEnvironment() if launched else os.environ)
    core = str(Path(MMRegCore.__file__).parents[1])
    paths = [core, *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}


def _dispatch(event: Event, handlers: Handlers) -> None:
    handler = handlers.get(event["event"])
    if handler is not None:
        handler(event)


def _read(stream: IO[str], parse: Callable[[str], Event], events: queue.SimpleQueue[Event]) -> None:
    with stream:
        for line in stream:
            events.put(parse(line.rstrip("\n")))


def _json_event(line: str) -> Event:
    try:
        content = json.loads(line)
    except ValueError:
        return _log_event(line)
    return content if isinstance(content, dict) and "event" in content else _log_event(line)


def _log_event(line: str) -> Event:
    return {"event": "log", "line": line}


def _stop(process: subprocess.Popen[str], threads: Sequence[threading.Thread]) -> None:
    if process.poll() is None:
        _kill_tree(process)
    if process.stdin is not None:
        with suppress(OSError):  # when it did not read all of it
            process.stdin.close()
    process.wait(_STOP_S)
    for thread in threads:
        thread.join(_STOP_S)


def _kill_tree(process: subprocess.Popen[str]) -> None:
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
