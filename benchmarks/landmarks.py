"""Three landmarks, set with an error, bring in simulated images that are 60 mm and 60° off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.cases import Case, _middle, _simulated, simulated
from benchmarks.problem import Problem
from MMRegCore import SpatialTransform, register
from MMRegCore.geometry import Array
from MMRegCore.ops import rotation_matrix
from MMRegCore.search.landmarks import LandmarkPairs

START_MM, START_DEG = 60.0, 60.0
ERROR_MM = 2.0  # along each axis, of every landmark
APART_MM = 20.0  # as a surgeon would spread three of them
EVERY = 4  # of the 24 simulated cases: every brain, shift and contrast


def main() -> None:
    """Measure and write ``results/landmarks``."""
    rows: list[dict[str, Any]] = []
    for case in simulated()[::EVERY]:
        rows.append({"case": case.name, **_measured(_far_off(case), case.recipe["seed"])})
        print(rows[-1], flush=True)
        # After every case: a run that is stopped leaves what it has.
        _write(rows)


def _write(measured: list[dict[str, Any]]) -> None:
    lengths = [key for key in measured[0] if key.endswith(" mm")]
    totals = [
        {"case": name, **{key: round(float(total([row[key] for row in measured])), 2) for key in lengths}}
        for name, total in (("mean", np.mean), ("worst", np.max))
    ]
    record.write(
        "landmarks",
        [*measured, *totals],
        f"Three landmarks at least {APART_MM:g} mm apart, drawn in the field of view, each set with a normal error of "
        f"{ERROR_MM:g} mm along each axis, bring in a start that is {START_MM:g} mm and {START_DEG:g}° off (simulated "
        "cases, MR without skull). Mean error over the field of view against the known truth, mm: of that start, of "
        "the rigid transform fitted to the landmarks, of the registration from there without them, and of the "
        "registration with them (`--landmarks`), which keeps them as evidence; mean distance of the given landmarks "
        "at the end; preset lc2.",
    )


def _measured(problem: Problem, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(1000 + seed)
    initial = SpatialTransform.from_matrix(problem.start_ras)
    points = _spread(problem, random)
    moved = problem.fixed.grid
    index = np.rint(np.einsum("ij,nj->ni", moved.ijk_from_ras[:3, :3], points) + moved.ijk_from_ras[:3, 3]).astype(int)
    there = points + problem.truth.displacement_mm.numpy()[index[:, 2], index[:, 1], index[:, 0]]
    there = there + random.normal(0, ERROR_MM, there.shape)
    fit = LandmarkPairs(points, there, ERROR_MM).start(initial).transform
    given = {"landmarks": (points, there), "landmark_error_mm": ERROR_MM}
    alone = register(problem.fixed, problem.moving, initial_transform=fit, device="cpu")
    result = register(problem.fixed, problem.moving, initial_transform=initial, device="cpu", **given)
    quality = result.assessment.quality
    return {
        "start mm": _error(problem, initial),
        "landmarks' fit mm": _error(problem, fit),
        "from there mm": _error(problem, alone.transform),
        "with landmarks mm": _error(problem, result.transform),
        "landmarks after mm": round(quality.landmarks.after.mean, 2),
        "expected mm": round(quality.verdict.expected_error_mm, 2),
        "verdict": quality.verdict.level,
        "seconds": round(result.provenance.timings_s["total"], 1),
    }


def _far_off(case: Case) -> Problem:
    """The case with more of the MR around it, from the far start."""
    problem = _simulated(**case.recipe, far_mm=START_MM)
    random = np.random.default_rng(case.recipe["seed"])
    shift, axis = (v / np.linalg.norm(v) for v in random.standard_normal((2, 3)))
    middle = _middle(problem.fixed, problem.region)
    start = np.eye(4)
    start[:3, :3] = rotation_matrix(axis * np.radians(START_DEG))
    start[:3, 3] = middle - start[:3, :3] @ middle + shift * START_MM
    return replace(problem, start_ras=start)


def _spread(problem: Problem, random: np.random.Generator) -> Array:
    """(3, 3), RAS mm: three voxels of the field of view, so far apart and not on one line."""
    inside = problem.fixed.grid.points_ras()[problem.region.numpy()]
    while True:
        points = inside[random.integers(len(inside), size=3)]
        far = np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).min() >= APART_MM
        if far and LandmarkPairs(points, points, ERROR_MM).start(SpatialTransform.identity()).motion == "rigid":
            return points


def _error(problem: Problem, transform: SpatialTransform) -> float:
    return round(float(problem.errors_mm(transform).mean()), 2)
