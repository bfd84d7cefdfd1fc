"""Before and after a restructuring: the size and the shape of the code, and whether registrations come out the same.

``python -m benchmarks house BEFORE AFTER`` compares two checkouts.  Registrations run as whole processes, turn by turn,
each checkout on the same files; transforms are compared at points in and around the ultrasound.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks import record

ROUNDS = 3
LONG, COMPLEX = 40, 8
_BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.Assert)


def main(arguments: Sequence[str]) -> None:
    """Compare two checkouts and write ``results/house-code`` and ``results/house-transforms``."""
    if len(arguments) < 2:
        raise SystemExit("expected two checkouts, BEFORE and AFTER")
    before, after = (Path(path).resolve() for path in arguments[:2])
    rows = [
        {"what": name, "before": old, "after": new}
        for (name, old), new in zip(shape_of(before).items(), shape_of(after).values(), strict=True)
    ]
    record.write(
        "house-code",
        rows,
        f"Size and shape of MMRegCore and its tests; a function is long above {LONG} lines, complex above {COMPLEX}.",
    )
    if "--code-only" not in arguments:
        record.write("house-transforms", transforms(before, after), _NOTES, "house BEFORE AFTER")


_NOTES = (
    "Largest and mean distance between the transforms of two checkouts, at 500 points of the ultrasound and 8 points "
    "50 mm around it; wall seconds and peak memory of whole processes, medians. 'by threads' is the same distance "
    "between two runs of the first checkout, on one thread and on all: what rounding alone does."
)


def shape_of(tree: Path) -> dict[str, int]:
    """Numbers of the code of one checkout."""
    core = sorted((tree / "MMRegCore").rglob("*.py"))
    parsed = [ast.parse(path.read_text(encoding="utf-8")) for path in core]
    functions = [node for module in parsed for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    names = [node for module in parsed for node in ast.walk(module) if isinstance(node, ast.Name)]
    tests = [ast.parse(path.read_text(encoding="utf-8")) for path in (tree / "Testing").rglob("*.py")]
    return {
        "lines of MMRegCore": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in core),
        f"functions over {LONG} lines": sum(_code_lines(function) > LONG for function in functions),
        f"complexity over {COMPLEX}": sum(_complexity(function) > COMPLEX for function in functions),
        "Any": sum(name.id == "Any" for name in names),
        "casts": sum(name.id == "cast" for name in names),
        "axis flips and permutations": sum(_is_flip(node) for module in parsed for node in ast.walk(module)),
        "test functions": sum(_is_test(node) for module in tests for node in ast.walk(module)),
    }


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - (body[0].lineno if body else function.lineno) + 2


def _complexity(function: ast.FunctionDef) -> int:
    inner = [node for node in ast.walk(function) if isinstance(node, _BRANCHES)]
    operators = [len(node.values) - 1 for node in ast.walk(function) if isinstance(node, ast.BoolOp)]
    return 1 + len(inner) + sum(operators)


def _is_flip(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("flip", "permute", "movedim", "moveaxis")


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def transforms(before: Path, after: Path) -> list[dict[str, Any]]:
    """A row for each registration."""
    with tempfile.TemporaryDirectory() as scratch:
        return [
            _compared(name, old, new, (before, after), Path(scratch))
            for name, old, new in _registrations(before, Path(scratch))
        ]


def _registrations(before: Path, scratch: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Name, and the options of ``mmreg register`` in the one checkout and in the other."""
    folder = record.data_folder("resect")
    images = [
        "--fixed",
        str(folder / "Case24_US_0.5mm.nii.gz"),
        "--moving",
        str(folder / "Case24_T1_0.5mm.nii.gz"),
        str(folder / "Case24_FLAIR_0.5mm.nii.gz"),
    ]
    for preset in ("lc2", "mcbo", "mcbo-published", "dns"):
        yield f"Case 24, {preset}", [*images, "--preset", preset], [*images, "--preset", preset]
    for seed, more in (("0", ["--mean-shift-mm", "5"]), ("1", ["--cavity"]), ("2", ["--render", "flair"])):
        case = scratch / f"case{seed}"
        _run(before, ["simulate", "--seed", seed, *more, "--output", str(case)])
        mr = [str(path) for path in sorted(case.glob("mr_*.nii.gz"))]
        options = ["--fixed", str(case / "ultrasound.nii.gz"), "--moving", *mr]
        yield f"simulated, {' '.join(['seed', seed, *more])}", options, options


def _compared(name: str, old: list[str], new: list[str], trees: tuple[Path, Path], scratch: Path) -> dict[str, Any]:
    seconds: tuple[list[float], list[float]] = ([], [])
    memory: tuple[list[float], list[float]] = ([], [])
    outputs = (scratch / "before", scratch / "after")
    for _ in range(ROUNDS):
        for side, (tree, options, output) in enumerate(zip(trees, (old, new), outputs, strict=True)):
            took = _run(tree, ["register", *options, "--transform-only", "--output", str(output)])
            seconds[side].append(took["seconds"])
            memory[side].append(took["peak_gb"])
    distance = _distances(*(output / "transform.h5" for output in outputs), Path(old[1]))
    _run(trees[0], ["register", *old, "--transform-only", "--output", str(scratch / "one")], threads=1)
    rounding = _distances(scratch / "one" / "transform.h5", outputs[0] / "transform.h5", Path(old[1]))
    row = {"case": name, "largest mm": round(float(distance.max()), 5), "mean mm": round(float(distance.mean()), 5)}
    row |= {"by threads largest mm": round(float(rounding.max()), 5), "mean": round(float(rounding.mean()), 5)}
    for side, word in enumerate(("before", "after")):
        row |= {f"s {word}": median(seconds[side]), f"GB {word}": median(memory[side])}
    print(row, flush=True)
    return row


def _distances(first: Path, second: Path, ultrasound: Path) -> np.ndarray:
    image = sitk.ReadImage(str(ultrasound))
    size, random = np.array(image.GetSize()), np.random.default_rng(0)
    inside = random.uniform(0, size - 1, (500, 3))
    margin = 50 / np.array(image.GetSpacing())
    corners = np.array(np.meshgrid(*([-m, n - 1 + m] for m, n in zip(margin, size, strict=True)))).reshape(3, -1).T
    points = [
        image.TransformContinuousIndexToPhysicalPoint(index.tolist()) for index in np.concatenate([inside, corners])
    ]
    one, other = (sitk.ReadTransform(str(path)) for path in (first, second))
    moved = [np.subtract(one.TransformPoint(point), other.TransformPoint(point)) for point in points]
    return np.linalg.norm(moved, axis=1)


def _run(tree: Path, arguments: list[str], threads: int | None = None) -> dict[str, float]:
    """Run ``mmreg`` of a checkout; what it took."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [
        sys.executable,
        str(Path(__file__).with_name("measured.py")),
        sys.executable,
        "-m",
        "MMRegCore",
        *arguments,
    ]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"expected mmreg {arguments[0]} of {tree} to run; it said: {done.stderr.strip()[-400:]}")
    took: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return took
