"""Damaged files for every reader: refused in one line, never a crash, an internal error, or memory out of proportion.

``python -m benchmarks fuzz [--inputs N] [READER …]``; each reader has a process of its own, so that a crash is seen.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks import record
from benchmarks.fuzz_inputs import TRUNCATIONS, Reader, damaged, readers
from MMRegCore.errors import MMRegError

INPUTS = 10_000
# Each of these is first tried in another process, which takes half a second.
_SLOW, _SLOWER = ("hdf5 transforms",), 50
# A reader may take so many times the size of a file, and this much besides.
_MEMORY_FACTOR, _MEMORY_BYTES = 8, 64 << 20


def main(words: Sequence[str] = ()) -> None:
    """Run each reader in a process of its own, and write ``results/fuzz``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuzz")
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"for each reader (default: {INPUTS})")
    parser.add_argument("readers", nargs="*")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        names = options.readers or list(readers(Path(folder)))
    counts = {name: options.inputs // (_SLOWER if name in _SLOW else 1) for name in names}
    rows = [_in_a_process(name, count) for name, count in counts.items()]
    if not options.readers:
        record.write("fuzz", rows, "Damaged files, and each sound file cut off at every fiftieth of its length.")


def _in_a_process(name: str, inputs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "benchmarks.fuzz", name, str(inputs), folder]
        done = subprocess.run(words, cwd=record.ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = max(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
            print(f"{name}: ended with {done.returncode} at {last.name}: {last.read_bytes()[:2000]!r}")
            print(done.stderr[-2000:], file=sys.stderr)
            return {"reader": name, "inputs": "", "read": "", "findings": f"process ended with {done.returncode}"}
    *found, numbers = done.stdout.strip().splitlines()
    count, read, findings = numbers.split()
    print("\n".join([*found, f"{name}: {count} inputs, {read} of them read, {findings} findings"]), flush=True)
    return {"reader": name, "inputs": int(count), "read": int(read), "findings": int(findings)}


class Hunt:
    """Reads inputs and keeps what should not have happened."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self._reader, self._folder = reader, folder
        self.inputs = self.read = 0
        self.findings: dict[str, tuple[str, bytes]] = {}

    def run(self, count: int) -> None:
        """Read every sample cut off, and ``count`` damaged ones."""
        for name, raw in self._reader.samples.items():
            for step in range(TRUNCATIONS + 1):
                self.check(name, raw[: len(raw) * step // TRUNCATIONS])

        @seed(0)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(damaged(self._reader))
        def read_one(file: tuple[str, bytes]) -> None:
            self.check(*file)

        read_one()

    def check(self, name: str, raw: bytes) -> None:
        """Read one file; a finding is known by its kind and its place."""
        path = self._folder / name
        path.write_bytes(raw)
        self.inputs += 1
        before = _peak_bytes()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self._reader.read(path)
            self.read += 1
        except MMRegError as error:
            if "\n" in str(error):
                self.findings.setdefault(f"several lines: {error!r}", (name, raw))
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.findings.setdefault(f"{type(error).__name__} at {place.filename}:{place.lineno}: {error}", (name, raw))
        grown = _peak_bytes() - before
        if grown > _MEMORY_FACTOR * len(raw) + _MEMORY_BYTES:
            self.findings.setdefault(f"{grown >> 20} MiB for {len(raw)} bytes", (name, raw))


def _peak_bytes() -> int:
    resource = import_module("resource")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def _worker(name: str, inputs: int, folder: Path) -> None:
    logging.getLogger("MMRegCore").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as samples:
        hunt = Hunt(readers(Path(samples))[name], folder)
        hunt.run(inputs)
    for finding, (file, raw) in hunt.findings.items():
        print(f"{finding}\n    {file}: {raw[:200]!r}")
    print(hunt.inputs, hunt.read, len(hunt.findings))


if __name__ == "__main__":
    _worker(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
