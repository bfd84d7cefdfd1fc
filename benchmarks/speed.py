"""Time and memory of whole processes on Case 24, against convexAdam in the same round, turn by turn.

``python -m benchmarks speed [--rounds N]``; the machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import record

PEER = "convexAdam 0.2.0, defaults"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Took:
    """What one process took; ``transform`` is when it said that it had one, and the CPU seconds until then."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    transform_s: float | None
    transform_cpu_s: float | None


@dataclass(frozen=True)
class Case:
    """A command, and how many other processes keep a core busy meanwhile."""

    command: Sequence[object]
    busy: int = 0


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and write ``results/speed``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory() as scratch:
        cases = _cases(scratch)
        runs: dict[str, list[Took]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, case in cases.items():
                with _busy(case.busy):
                    runs[name].append(_timed([str(word) for word in case.command]))
                print(f"{name}: {runs[name][-1]}", flush=True)
    record.write(
        "speed",
        [_row(name, runs) for name in cases],
        f"Whole processes from their start, --device cpu, {rounds} rounds in turn; medians; ratios of wall time are to "
        "convexAdam of the same round. 'Transform' is when the process says that transform and verdict are there; a "
        "busy core is another process that counts.",
    )


def _cases(scratch: str) -> dict[str, Case]:
    folder = record.data_folder("resect")
    fixed, t1, flair = (folder / f"Case24_{name}_0.5mm.nii.gz" for name in ("US", "T1", "FLAIR"))

    def register(preset: str, *moving: Path, more: Sequence[str] = ()) -> list[object]:
        start = [sys.executable, "-m", "MMRegCore", "register", "--json-progress", "--device", "cpu", "--fixed", fixed]
        return [*start, "--moving", *moving, "--preset", preset, "--output", f"{scratch}/out", *more]

    only = ("--transform-only",)
    both = register("lc2", t1, flair)
    return {
        PEER: Case([sys.executable, "-m", "benchmarks.peer_convex_adam", fixed, t1, f"{scratch}/field.npy"]),
        "lc2, T1 + FLAIR, all files": Case(both),
        "lc2, T1 + FLAIR, all files, one thread": Case([*both, "--threads", "1"]),
        "lc2, FLAIR, transform only": Case(register("lc2", flair, more=only)),
        "lc2, T1, transform only": Case(register("lc2", t1, more=only)),
        "lc2, T1, no second search": Case(register("lc2", t1, more=(*only, "--set", "lc2.search.extended_range_mm=0"))),
        "lc2, T1 + FLAIR, all files, one busy core": Case(both, busy=1),
        "lc2, T1 + FLAIR, all files, two busy cores": Case(both, busy=2),
        "mcbo, T1 + FLAIR, transform only": Case(register("mcbo", t1, flair, more=only)),
        "mcbo-published, T1, transform only": Case(register("mcbo-published", t1, more=only)),
    }


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that count."""
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for load in loads:
            load.kill()
            load.wait()


def _timed(command: list[str]) -> Took:
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=record.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    transform_s = transform_cpu_s = None
    for line in process.stdout or ():
        if line.startswith('{"event": "transform"'):
            transform_s, transform_cpu_s = time.perf_counter() - start, _cpu_seconds(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"expected '{' '.join(command)}' to end well; got status {status}")
    seconds = time.perf_counter() - start
    return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9, transform_s, transform_cpu_s)


def _cpu_seconds(process: int) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _row(name: str, runs: dict[str, list[Took]]) -> dict[str, Any]:
    own = runs[name]
    ratios = [took.seconds / peer.seconds for took, peer in zip(own, runs[PEER], strict=True)]
    row: dict[str, Any] = {
        "what": name,
        "seconds": round(median(took.seconds for took in own), 1),
        "CPU s": round(median(took.cpu_seconds for took in own), 1),
        "ratio": round(median(ratios), 2),
        "ratio min–max": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "peak GB": round(max(took.peak_gb for took in own), 2),
    }
    for key, values in (
        ("transform after s", [took.transform_s for took in own]),
        ("its CPU s", [took.transform_cpu_s for took in own]),
    ):
        found = [value for value in values if value is not None]
        row[key] = round(median(found), 1) if found else None
    return row
