"""Accuracy against peers: ``python -m benchmarks accuracy [--set S …] [--method M …]``.

Six sets of cases (see `benchmarks.cases`), five peers (see `benchmarks.peers`), MMReg with its default preset or any
other named with ``--method``.  Every run is a process of its own, on one thread unless told otherwise.  A row is kept
in ``results/accuracy`` as soon as it is measured, and measured again only when the case or the method has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks import record, scores
from benchmarks.cases import SETS, Case
from benchmarks.peers import PEERS
from benchmarks.problem import Problem, digest, moving_paths
from MMRegCore import SpatialTransform, read_transform, read_volume
from MMRegCore.config import DEFAULT_PRESET

ROWS = record.RESULTS / "accuracy"
SAMPLED_VOXELS = 200
Row = dict[str, Any]

HARD = (
    "simulated whole heads with skull and scalp, as hard as patients, from starts up to 20 mm and 15° off. A case's "
    "error: mean distance from the known displacement over the cone."
)
MEANINGS = {
    "simulated": "Simulated ultrasound of four brains, mean shifts of 2, 5 and 9 mm, without and with a resection "
    "cavity. A case's error: mean distance from the known displacement over the cone without the cavity.",
    "far": "16 of the simulated cases, from starts 10 to 36 mm and 8° off besides the shift. A case's error: as for "
    "the simulated cases.",
    "case24": "RESECT Case 24, T1 and FLAIR, from 20 random rigid starts (up to 10 mm and 5° about the middle of the "
    "cone). A case's error: mean distance of 16 expert landmarks.",
    "hard-setting": f"24 {HARD} For setting constants: label maps 1 to 8.",
    "hard": f"24 {HARD} For judging: label maps 9 to 16.",
    "self": "14 real ultrasound volumes, each brought back onto a copy of itself deformed by a smooth field of up to "
    "6 mm. A case's error: mean distance from the known displacement over the cone.",
}
COLUMNS = (
    "Errors in mm over the cases: mean, median, 95th percentile and worst of the cases' means; cut: of the mean error "
    "of the start; worse: share of cases that end more than 0.1 mm above their start; within case: 95th percentile "
    "over voxels or landmarks, averaged; folds: voxels inside the cone with a Jacobian determinant of at most 0, all "
    "cases together; seconds and CPU seconds: medians of whole processes, for MMReg with quality maps, warped images "
    "and report; peak GB: the largest. MMReg finds the cone by itself; peers are given it where they take a mask."
)

CONFIDENCE = (
    "How well MMReg's expected error and verdict tell the true error. Spearman's correlation over voxels "
    f"({SAMPLED_VOXELS} of each case) of all cases together and within each case, and over the cases' means; AUC: "
    "chance that a failure (mean error above 3 mm) has the larger expected error, or the sterner verdict, than a "
    "success."
)


@dataclass(frozen=True)
class Method:
    """A method to be measured: what its results depend on, its command, and where its transform then lies."""

    name: str
    version: str
    command: Callable[[Path, Path], list[str]]
    transform: Callable[[Path, Path], SpatialTransform]


def method(name: str) -> Method:
    """A peer by its name, or a preset of MMReg."""
    if name in PEERS:
        return Method(name, PEERS[name].version, _peer_command(name), _peer_transform)
    return Method(
        name, f"MMReg {_own_sources()}", _own_command(name), lambda _, out: read_transform(out / "transform.h5")
    )


def main(words: Sequence[str] = ()) -> None:
    """Measure what is missing and write ``results/accuracy-SET``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks accuracy")
    parser.add_argument("--set", nargs="+", choices=[*SETS], default=[*SETS])
    parser.add_argument("--method", nargs="+", default=[DEFAULT_PRESET, *PEERS], help=f"{', '.join(PEERS)} or a preset")
    parser.add_argument("--case", type=int, nargs="+", help="numbers of cases, for a part of a set")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(words)
    for name in options.set:
        cases = SETS[name]()
        chosen = cases if options.case is None else [cases[number] for number in options.case if number < len(cases)]
        for how in options.method:
            measure(name, chosen, method(how), options.threads)
        write_table(name, cases)


def measure(set_name: str, cases: Sequence[Case], how: Method, threads: int) -> None:
    """Measure the cases that have no current row, and keep each row at once."""
    path = _rows_path(set_name, how.name)
    rows = read_rows(path)
    for case in cases:
        folder = case.folder()
        known = rows.get(case.name, {})
        if (known.get("digest"), known.get("version")) == (digest(folder), how.version):
            continue
        rows[case.name] = {"case": case.name, "digest": digest(folder), "version": how.version} | _run(
            folder, how, threads
        )
        write_rows(path, rows)
        row = rows[case.name]
        print(f"{how.name}, {case.name}: {row['start_mm']} to {row['mean_mm']} mm, {row['seconds']} s", flush=True)


def write_table(set_name: str, cases: Sequence[Case]) -> None:
    """Write the tables of a set from all rows that belong to its present cases."""
    paths = sorted((ROWS / set_name).glob("*.jsonl"), key=_order)
    measured = {path.stem: current_rows(path, cases) for path in paths}
    measured = {name: rows for name, rows in measured.items() if rows}
    starts = {row["case"]: _unmoved(row) for rows in measured.values() for row in rows}
    table: list[Row] = [{"method": "start", **scores.summary(list(starts.values()))}] if starts else []
    table += [{"method": name, **scores.summary(rows)} for name, rows in measured.items()]
    versions = "; ".join(f"{name}: {_versions(rows)}" for name, rows in measured.items())
    notes = f"{MEANINGS[set_name]} {COLUMNS} Measured with {versions}."
    record.write(f"accuracy-{set_name}", table, notes, f"accuracy --set {set_name}")
    judged = {name: rows for name, rows in measured.items() if any(row.get("verdict") for row in rows)}
    if set_name == "far":
        # Failures alone cannot show that they are told from successes.
        simulated = SETS["simulated"]()
        judged = {name: rows + current_rows(_rows_path("simulated", name), simulated) for name, rows in judged.items()}
    if judged:
        told = [{"method": name, "cases": len(rows), **scores.confidence(rows)} for name, rows in judged.items()]
        also = f" Together with the simulated cases. {MEANINGS['simulated']}" if set_name == "far" else ""
        notes = f"{CONFIDENCE} {MEANINGS[set_name]}{also}"
        record.write(f"confidence-{set_name}", told, notes, f"accuracy --set {set_name}")


def read_rows(path: Path) -> dict[str, Row]:
    """Rows by case; one JSON object per line."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["case"]: row for row in rows}


def current_rows(path: Path, cases: Sequence[Case]) -> list[Row]:
    """The rows that were measured on the cases as they now are."""
    present = {case.name: digest(case.folder()) for case in cases}
    return [row for name, row in read_rows(path).items() if present.get(name) == row["digest"]]


def write_rows(path: Path, rows: dict[str, Row]) -> None:
    """Replace the file at once, so that a stopped run leaves what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values()), encoding="utf-8")
    part.replace(path)


def _run(folder: Path, how: Method, threads: int) -> Row:
    count = str(threads)
    environment = os.environ | {"OMP_NUM_THREADS": count, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": count}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "out"
        command = [sys.executable, str(record.ROOT / "benchmarks" / "measured.py"), *how.command(folder, output)]
        ran = subprocess.run(command, cwd=record.ROOT, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise SystemExit(f"expected {how.name} to end well on {folder}; got\n{ran.stderr[-2000:]}")
        problem = Problem.read(folder)
        transform = how.transform(folder, output)
        return _errors(problem, transform) | json.loads(ran.stdout) | _own_report(problem, transform, output)


def _errors(problem: Problem, transform: SpatialTransform) -> Row:
    before = problem.errors_mm(SpatialTransform.from_matrix(problem.start_ras))
    after = problem.errors_mm(transform)
    determinant = transform.displacement_field(problem.fixed.grid).jacobian_determinant()
    return {
        "start_mm": round(float(before.mean()), 3),
        "start_p95_mm": round(float(np.percentile(before, 95)), 3),
        "mean_mm": round(float(after.mean()), 3),
        "median_mm": round(float(np.median(after)), 3),
        "p95_mm": round(float(np.percentile(after, 95)), 3),
        "max_mm": round(float(after.max()), 3),
        "folds": int((determinant[problem.fixed.mask] <= 0).sum()),
    }


def _own_report(problem: Problem, transform: SpatialTransform, output: Path) -> Row:
    """What MMReg said of its own result; empty for others."""
    if not (output / "result.json").exists():
        return {}
    quality = json.loads((output / "result.json").read_text(encoding="utf-8"))["quality"]
    verdict, selection = quality["verdict"], quality["model_selection"] or {}
    row: Row = {
        "verdict": verdict.get("level"),
        "expected_mm": verdict.get("expected_error_mm"),
        "selected": selection.get("selected"),
    }
    maps = sorted(output.glob("expected_error*.nii.gz"))
    if maps and problem.truth is not None:
        expected = read_volume(maps[0]).data[0][problem.region]
        true = problem.error_map_mm(transform)[problem.region]
        # Enough for a rank correlation, and little enough to be kept.
        drawn = torch.from_numpy(np.random.default_rng(0).choice(len(true), SAMPLED_VOXELS, replace=False))
        pairs = torch.stack([expected[drawn], true[drawn]], dim=1)
        row["expected_and_true_mm"] = [[round(v, 2) for v in pair] for pair in pairs.tolist()]
    return row


def _own_command(preset: str) -> Callable[[Path, Path], list[str]]:
    def command(folder: Path, output: Path) -> list[str]:
        words = [sys.executable, "-m", "MMRegCore", "register", "--fixed", folder / "fixed.nii.gz"]
        words += ["--moving", *moving_paths(folder), "--initial-transform", folder / "start.h5", "--preset", preset]
        return [str(word) for word in [*words, "--device", "cpu", "--output", output]]

    return command


def _peer_command(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda folder, out: [sys.executable, "-m", "benchmarks.peers", name, str(folder), f"{out}.mha"]


def _peer_transform(folder: Path, output: Path) -> SpatialTransform:
    """A peer's displacement and, after it, the start from which it was given the moving image."""
    field = sitk.ReadImage(f"{output}.mha", sitk.sitkVectorFloat64)
    return SpatialTransform(sitk.DisplacementFieldTransform(field)).then(read_transform(folder / "start.h5"))


def _own_sources() -> str:
    """A digest of everything in MMRegCore that a registration can depend on."""
    total = hashlib.sha256()
    core = record.ROOT / "MMRegCore"
    for path in sorted([*core.rglob("*.py"), *core.rglob("*.json")]):
        if path.relative_to(core).parts[0] not in {"simulate", "cli", "demo.py", "doctor.py", "evaluate"}:
            total.update(path.read_bytes())
    return total.hexdigest()[:10]


def _unmoved(row: Row) -> Row:
    return {"start_mm": row["start_mm"], "mean_mm": row["start_mm"], "p95_mm": row["start_p95_mm"], "folds": 0}


def _rows_path(set_name: str, method_name: str) -> Path:
    return ROWS / set_name / f"{method_name.replace(' ', '-')}.jsonl"


def _versions(rows: Sequence[Row]) -> str:
    return " and ".join(sorted({row["version"] for row in rows}))


def _order(path: Path) -> tuple[bool, str]:
    """MMReg before its peers."""
    return path.stem in {name.replace(" ", "-") for name in PEERS}, path.stem.lower()
