"""``mmreg serve``: a process that stays, with everything imported, and runs one command after another."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from MMRegCore.cli.screen import JsonScreen, Screen
from MMRegCore.errors import InputError, MMRegError
from MMRegCore.threads import threads_kept

# What a registration imports, the last one only where matplotlib is there.
_HEAVY = ("pipeline", "result", "io.transforms", "io.volumes", "report.figures")


def serve(arguments: argparse.Namespace, screen: Screen) -> None:
    """Stay, with everything imported, and run a command for every line of stdin, for another program.

    A line is a JSON object such as ``{"arguments": ["register", …]}``. The command does what it does on a command line,
    and tells its exit code in an event 'exit' besides.
    """
    del screen  # a person has nothing to see here
    events = JsonScreen(sys.stdout)
    with suppress(MMRegError):
        for name in _HEAVY:
            import_module(f"MMRegCore.{name}")
    events.ready()
    for line in _lines(60 * arguments.idle_minutes):
        with threads_kept():
            code = _run(line, events)
        events.exited(code)
        _free_memory()


def _run(line: bytes, events: JsonScreen) -> int:
    from MMRegCore.cli.main import BAD_INPUT, main

    try:
        argv = _arguments_of(line)
    except InputError as error:
        events.fail(f"error: {error}", kind="InputError", code=BAD_INPUT)
        return BAD_INPUT
    return main(argv)


def _arguments_of(line: bytes) -> list[str]:
    with suppress(ValueError):
        content = json.loads(line)
        found = content.get("arguments") if isinstance(content, dict) else None
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    shown = line.decode("utf-8", errors="replace").strip()
    raise InputError(f'expected a line such as {{"arguments": ["register", …]}}; got {shown[:80]!r}')


def _lines(idle_s: float) -> Iterator[bytes]:
    """The lines of stdin, each as soon as it is there; ends after ``idle_s`` seconds without one."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    with suppress(queue.Empty):
        while line := lines.get(timeout=idle_s):
            yield line


def _read(lines: queue.SimpleQueue[bytes]) -> None:
    # Without a buffer: Python cannot end while a thread that still waits holds the lock of one.
    with open(0, "rb", buffering=0, closefd=False) as stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _free_memory() -> None:
    """Give back what the last command held, and let the peak of the next one be its own."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim is not None:
            trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
