"""Time and memory of whole processes on Case 24, one modality, against convexAdam in the same run, turn by turn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import record

ROUNDS = 3
PEER = "convexAdam 0.2.0, defaults"


def main() -> None:
    """Measure and write ``results/speed``."""
    folder = record.data_folder("resect")
    fixed, moving = folder / "Case24_US_0.5mm.nii.gz", folder / "Case24_T1_0.5mm.nii.gz"
    with tempfile.TemporaryDirectory() as scratch:
        commands = {
            PEER: [sys.executable, "-m", "benchmarks.peer_convex_adam", fixed, moving, f"{scratch}/field.npy"],
            "mcbo-published, --transform-only": _register(fixed, moving, "mcbo-published", scratch, "--transform-only"),
            "lc2 (default), --transform-only": _register(fixed, moving, "lc2", scratch, "--transform-only"),
            "lc2 (default), with images and report": _register(fixed, moving, "lc2", scratch),
            "mcbo, --transform-only": _register(fixed, moving, "mcbo", scratch, "--transform-only"),
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                runs[name].append(_timed([str(word) for word in command]))
                seconds, peak_gb = runs[name][-1]
                print(f"{name}: {seconds:.1f} s, {peak_gb:.2f} GB", flush=True)
    record.write(
        "speed",
        [_row(name, runs) for name in commands],
        f"Whole processes, --device cpu, {ROUNDS} rounds in turn; medians; ratios are to convexAdam of the same round.",
    )


def _register(fixed: Path, moving: Path, preset: str, scratch: str, *more: str) -> list[str | Path]:
    start: list[str | Path] = [sys.executable, "-m", "MMRegCore", "register", "--fixed", fixed, "--moving", moving]
    return [*start, "--preset", preset, "--device", "cpu", "--output", f"{scratch}/out", *more]


def _timed(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident memory (GB) of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=record.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"expected '{' '.join(command)}' to end well; got status {status}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


def _row(name: str, runs: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    ratios = [own / peer for (own, _), (peer, _) in zip(runs[name], runs[PEER], strict=True)]
    return {
        "what": name,
        "seconds": round(median(seconds for seconds, _ in runs[name]), 1),
        "ratio": round(median(ratios), 2),
        "ratio min–max": f"{min(ratios):.2f}–{max(ratios):.2f}",
        "peak GB": round(max(peak for _, peak in runs[name]), 2),
    }
