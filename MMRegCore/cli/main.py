"""From a command line to an exit code."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from MMRegCore.cli.arguments import build_parser
from MMRegCore.cli.interrupts import handled
from MMRegCore.cli.screen import Screen, make_screen
from MMRegCore.errors import Cancelled, MMRegError
from MMRegCore.threads import use_threads, wait_briefly

DONE, INTERNAL, BAD_INPUT, CANCELLED = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, by default that of the process: 0 done, 2 bad input, 3 cancelled, 1 anything else."""
    _print_anything()
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what was wrong, or shown the help
        return int(stop.code or DONE)
    wait_briefly()
    screen = make_screen(as_json=getattr(arguments, "json_progress", False))
    # SIGTERM unwinds as Ctrl-C does, so that temporary files are removed.
    with _log_on(screen, verbose=arguments.verbose), handled([signal.SIGTERM], signal.default_int_handler):
        return _guarded(arguments, screen)


def _print_anything() -> None:
    """Let texts through that the encoding of stdout or stderr lacks (a Windows pipe): escaped, and not as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _guarded(arguments: argparse.Namespace, screen: Screen) -> int:
    try:
        use_threads(getattr(arguments, "threads", None))
        code: int | None = arguments.run(arguments, screen)
        sys.stdout.flush()
        return code or DONE
    except (Cancelled, KeyboardInterrupt) as error:
        return _failed(arguments, screen, error, CANCELLED, "cancelled; nothing was written")
    except MMRegError as error:
        return _failed(arguments, screen, error, BAD_INPUT, f"error: {error}")
    except BrokenPipeError:
        # The reader of our output has gone (`mmreg presets | head`); Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERNAL
    except Exception as error:
        hint = "" if arguments.verbose else " (mmreg … --verbose shows where)"
        return _failed(arguments, screen, error, INTERNAL, f"internal error: {type(error).__name__}: {error}{hint}")


def _failed(arguments: argparse.Namespace, screen: Screen, error: BaseException, code: int, message: str) -> int:
    if arguments.verbose:
        screen.note("".join(traceback.format_exception(error)).rstrip())
    screen.fail(" ".join(message.split()), kind=type(error).__name__, code=code)
    return code


class _ScreenHandler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note(f"mmreg: {record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def _log_on(screen: Screen, *, verbose: bool) -> Iterator[None]:
    """Show the library's log, warnings or all of it, without tearing the progress bar."""
    logger, handler = logging.getLogger("MMRegCore"), _ScreenHandler(screen)
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
    before = logger.level, logger.handlers
    logger.handlers = [handler]  # a command that `serve` runs speaks for itself
    logger.setLevel(handler.level)
    try:
        yield
    finally:
        logger.handlers = before[1]
        logger.setLevel(before[0])
