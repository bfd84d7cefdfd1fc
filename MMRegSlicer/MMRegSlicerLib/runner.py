"""The process that registers: started, listened to, stopped; the application goes on meanwhile."""

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
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import slicer

import MMRegCore

# The process has been killed by then; only a computer that hangs needs longer.
_STOP_S = 10.0


class Worker:
    """Python in a process of its own, whose JSON lines are told on request.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``python``, such as ``-m MMRegCore register … --json-progress``.
    python : str, optional
        The interpreter; Slicer's own when None.

    Notes
    -----
    Two threads only read the pipes, so that the process never waits for the application. Everything else happens in
    the thread that calls. When the application ends, however it ends, the process ends too: either it is stopped, or
    it finds its pipe closed at its next progress line.
    """

    def __init__(self, arguments: Sequence[str], *, python: str | None = None) -> None:
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        interpreter = python or slicer_python()
        self._process = subprocess.Popen(
            [interpreter, *arguments],
            stdin=subprocess.DEVNULL,
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
            threading.Thread(target=_read, args=(stream, make, self._lines), daemon=True) for stream, make in readers
        ]
        for thread in self._threads:
            thread.start()
        self._finish = weakref.finalize(self, _stop, self._process, self._threads)

    @property
    def process_id(self) -> int:
        """The number of the process."""
        return self._process.pid

    def events(self) -> list[dict[str, Any]]:
        """What the process told since the last call; never waits.

        Returns
        -------
        list of dict
            ``event`` is what the process wrote ('progress', 'done' or 'error' of ``mmreg --json-progress``), or 'log'
            with the ``line`` of a person's log, or, last and once, 'exit' with the ``code``.
        """
        ended = self._process.poll() is not None and not any(thread.is_alive() for thread in self._threads)
        found = []
        while not self._lines.empty():
            found.append(self._lines.get())
        if ended and self._finish.alive:
            self.stop()
            found.append({"event": "exit", "code": self._process.returncode})
        return found

    def stop(self) -> None:
        """End the process and all that it started, at once; afterwards none is left. May be called again."""
        self._finish()


def slicer_python() -> str:
    """The interpreter that has Slicer's packages: ``PythonSlicer`` inside the application, otherwise this one."""
    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name) or sys.executable


def worker_environment(interpreter: str) -> dict[str, str]:
    """The environment in which ``interpreter`` finds MMRegCore and writes UTF-8.

    ``PythonSlicer`` sets Slicer's libraries by itself and must begin in the environment from before Slicer did.
    """
    launched = Path(interpreter).stem == "PythonSlicer" and hasattr(slicer, "app")
    environment = dict(slicer.util.startupEnvironment() if launched else os.environ)
    core = str(Path(MMRegCore.__file__).parents[1])
    paths = [core, *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}


def _read(stream: IO[str], make: Any, lines: queue.SimpleQueue[dict[str, Any]]) -> None:  # noqa: ANN401
    with stream:
        for line in stream:
            lines.put(make(line.rstrip("\n")))


def _json_event(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return _log_event(line)
    return content if isinstance(content, dict) and "event" in content else _log_event(line)


def _log_event(line: str) -> dict[str, Any]:
    return {"event": "log", "line": line}


def _stop(process: subprocess.Popen[str], threads: Sequence[threading.Thread]) -> None:
    if process.poll() is None:
        _kill_tree(process)
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
