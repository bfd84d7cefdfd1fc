"""What a person or a program sees of a run: a bar on a terminal, quiet lines in a log, JSON lines in a pipe."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any, TextIO

# Before this share of the run an estimate of the time left would be a guess.
_ESTIMATE_FROM = 0.03


class Screen:
    """Quiet lines on stderr: the stage now and then, nothing in a short run; the base of the other two.

    Call it as a `Monitor` listener: ``screen(stage, fraction)``.
    """

    interval_s = 5.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start_s = time.monotonic()
        # Input that is refused at once then leaves one line, not two.
        self._shown_s = self._start_s

    def __call__(self, stage: str, fraction: float) -> None:
        """Show how far the run is, unless that was shown a moment ago."""
        now_s = time.monotonic()
        if now_s - self._shown_s >= self.interval_s:
            self._shown_s = now_s
            self._show(stage, fraction, now_s - self._start_s)

    def _show(self, stage: str, fraction: float, elapsed_s: float) -> None:
        self._write(f"mmreg: {100 * fraction:3.0f} %  {stage}{_left(fraction, elapsed_s)}\n")

    def note(self, text: str) -> None:
        """Say something beside the progress."""
        self._write(f"{text}\n")

    def found(self, file: object, verdict: dict[str, Any]) -> None:
        """Say that there is a transform while the rest is still being measured; a person waits for the whole."""

    def done(self, output: object) -> None:
        """Say that the run is over and where its result lies."""
        self.note(f"mmreg: done in {_clock(time.monotonic() - self._start_s)}; the result is in {output}")

    def fail(self, message: str, *, kind: str, code: int) -> None:
        """Say in one line why the run ended without a result."""
        del kind, code  # a person reads the message
        self.note(f"mmreg: {message}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class BarScreen(Screen):
    """A bar that is drawn over itself, for a terminal."""

    interval_s = 0.1
    _drawn = False

    def _show(self, stage: str, fraction: float, elapsed_s: float) -> None:
        columns = shutil.get_terminal_size().columns
        filled = round(24 * fraction)
        text = f"[{'#' * filled}{'-' * (24 - filled)}] {100 * fraction:3.0f} %  {stage}{_left(fraction, elapsed_s)}"
        self._write(f"\r{text[: columns - 1]}\x1b[K")
        self._drawn = True

    def note(self, text: str) -> None:
        """Say something; the bar makes room and comes back below."""
        erase = "\r\x1b[K" if self._drawn else ""
        self._write(f"{erase}{text}\n")
        self._drawn = False


class JsonScreen(Screen):
    """One JSON object per line on stdout, for a program; what a person should read goes to stderr all the same."""

    interval_s = 0.1
    _stage = ""

    def __call__(self, stage: str, fraction: float) -> None:
        """Tell how far the run is; a new stage is always shown."""
        if stage != self._stage:
            self._stage, self._shown_s = stage, -float("inf")
        super().__call__(stage, fraction)

    def _show(self, stage: str, fraction: float, elapsed_s: float) -> None:
        left_s = _left_s(fraction, elapsed_s)
        times = {"elapsed_s": round(elapsed_s, 2), "left_s": None if left_s is None else round(left_s, 2)}
        self._send(event="progress", stage=stage, fraction=round(fraction, 4), **times)

    def note(self, text: str) -> None:
        """Say something on stderr, which leaves stdout to the program."""
        print(text, file=sys.stderr, flush=True)

    def found(self, file: object, verdict: dict[str, Any]) -> None:
        """Tell where the transform lies until the run is over, and the verdict on it."""
        self._send(event="transform", file=str(file), verdict=verdict, elapsed_s=self._elapsed_s())

    def done(self, output: object) -> None:
        """Tell that the run is over and where its result lies."""
        self._send(event="done", output=str(output), elapsed_s=self._elapsed_s())

    def fail(self, message: str, *, kind: str, code: int) -> None:
        """Tell why the run ended without a result, to the program and to a person."""
        self._send(event="error", kind=kind, message=message, exit_code=code)
        super().fail(message, kind=kind, code=code)

    def ready(self) -> None:
        """Tell that the first command can come."""
        self._send(event="ready")

    def exited(self, code: int) -> None:
        """Tell that one of several commands is over."""
        self._send(event="exit", code=code)

    def _elapsed_s(self) -> float:
        return round(time.monotonic() - self._start_s, 2)

    def _send(self, **content: Any) -> None:  # noqa: ANN401 - anything that JSON holds
        self._write(json.dumps(content) + "\n")


def make_screen(*, as_json: bool) -> Screen:
    """Choose by who is looking: a program, a terminal, a log file."""
    if as_json:
        return JsonScreen(sys.stdout)
    return BarScreen(sys.stderr) if sys.stderr.isatty() else Screen(sys.stderr)


def _left_s(fraction: float, elapsed_s: float) -> float | None:
    return elapsed_s * (1 - fraction) / fraction if fraction >= _ESTIMATE_FROM else None


def _left(fraction: float, elapsed_s: float) -> str:
    left_s = _left_s(fraction, elapsed_s)
    return "" if left_s is None or fraction >= 1 else f", {_clock(left_s)} left"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
