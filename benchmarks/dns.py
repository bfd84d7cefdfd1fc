"""What descriptors are worth: ``python -m benchmarks dns [PART …]``.

``subjects``: T1 and T2 of different people, by label overlap; ``random``: the same people in random contrasts;
``contrasts``: T1 and T2 of one patient, by known truth; ``ultrasound``: MR onto simulated ultrasound, by known truth;
``case24``: the real patient with the preset; ``chance``: what its model selection was set on; ``sizes``: memory;
``landscape`` and ``similarity``: figures, see `benchmarks.dns_figures`.

Every kind of descriptor goes through the same instance optimisation.  The preset ``dns-mr`` and `MIND_REGULARISATION`
were set on the validation subjects 11 and 12, and on nothing that is measured here.  Rows are kept as soon as they are
measured, and measured again when the weights or the settings have changed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks import record
from benchmarks.accuracy import read_rows, write_rows
from benchmarks.cases import simulated
from benchmarks.dns_descriptors import error_row, error_table, methods, subject_pair, version_of
from benchmarks.peers import PEERS
from benchmarks.problem import Problem
from benchmarks.subjects import SUBJECTS_KEY, Subject, dice_of, in_contrasts, subjects
from MMRegCore import DisplacementField, SpatialTransform, Volume, write_volume
from MMRegCore.ops import warp
from MMRegCore.prepare import Prepared, prepare

ROWS = record.RESULTS / "dns"
Row = dict[str, Any]
# Name, fixed and moving subject, their contrasts.
SubjectPair = tuple[str, Subject, Subject, tuple[str, str]]

# Of the 24 simulated cases: every brain, shifts of 2 and 5 mm, with and without a cavity.
_CASES = (1, 6, 13, 21)
_ULTRASOUND_SPACING_MM = 1.5


def main(words: Sequence[str] = ()) -> None:
    """Measure what is missing and write ``results/dns-PART``."""
    from benchmarks import dns_checks, dns_contrasts, dns_figures

    parts: dict[str, Callable[[], None]] = {
        "similarity": dns_figures.similarity,
        "landscape": dns_figures.landscape,
        "subjects": between_subjects,
        "random": in_random_contrasts,
        "contrasts": dns_contrasts.between_contrasts,
        "ultrasound": onto_ultrasound,
        "case24": dns_checks.case24,
        "chance": dns_checks.chance,
        "sizes": dns_checks.sizes,
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks dns")
    parser.add_argument("part", nargs="*", help=", ".join(parts))
    chosen = parser.parse_args(words).part
    if unknown := [name for name in chosen if name not in parts]:
        raise SystemExit(f"expected parts among {', '.join(parts)}; got {', '.join(unknown)}")
    for name in chosen or parts:
        parts[name]()


def between_subjects() -> None:
    """Instance optimisation and SyN between the test subjects, T1 and T2 in turn."""
    _measure_subjects(
        "subjects",
        list(_subject_pairs(subjects("test"))),
        "T1 and T2 of different subjects that no training saw (synthetic contrasts of label maps 13 to 16, 2 mm, "
        "aligned to a template by the affine registration of antspyx).",
    )


def in_random_contrasts() -> None:
    """The same subjects, each in contrasts that are drawn at random."""
    drawn = [in_contrasts(subject, seed) for seed, subject in enumerate(subjects("test"), start=1)]
    _measure_subjects(
        "random",
        list(_subject_pairs(drawn)),
        "Different subjects that no training saw (label maps 13 to 16, 2 mm, aligned to a template by the affine "
        "registration of antspyx), each in a random contrast of its own, drawn as MASR-Net's training draws them.",
    )


def _measure_subjects(part: str, pairs: Sequence[SubjectPair], what: str) -> None:
    path = ROWS / f"{part}.jsonl"
    rows = read_rows(path)
    for name, fixed, moving, contrast in pairs:
        prepared = subject_pair(fixed, moving, contrast)
        for how, run in _between_subjects(prepared, fixed, moving, contrast).items():
            key, version = f"{name}, {how}", f"{version_of(how)} {SUBJECTS_KEY}"
            if rows.get(key, {}).get("version") == version:
                continue
            start = time.perf_counter(), time.process_time()
            displacement = run()
            spent = {"seconds": time.perf_counter() - start[0], "CPU seconds": time.process_time() - start[1]}
            rows[key] = {"case": key, "method": how, "version": version} | _subject_row(
                displacement, prepared, fixed, moving, spent
            )
            write_rows(path, rows)
            print(rows[key], flush=True)
        _write_subjects(part, rows.values(), what)


def _write_subjects(part: str, rows: Iterable[Row], what: str) -> None:
    """The table of all pairs that every method has been measured on."""
    current = [row for row in rows if row["version"] == f"{version_of(row['method'])} {SUBJECTS_KEY}"]
    order = ["start", *methods(), "SyN MI"]
    pairs = [row["case"].removesuffix(f", {row['method']}") for row in current]
    complete = {pair for pair in pairs if pairs.count(pair) == len(order)}
    if not complete:
        return
    current = [row for row, pair in zip(current, pairs, strict=True) if pair in complete]
    table = [_mean_row(how, [r for r in current if r["method"] == how]) for how in order]
    record.write(
        f"dns-{part}",
        table,
        f"{what} Dice: mean over 13 structures, left and right; folds: share of the brain with a Jacobian determinant "
        "of at most 0. All but SyN (antspyx, SyNOnly, Mattes MI) are the same instance optimisation on different "
        "descriptors; the regularisation of DNS and that of MIND were set on two other subjects, and the untrained "
        "networks have that of DNS. CPU seconds of one thread; for SyN, which is a library of its own, wall clock.",
        f"dns {part}",
    )


def _between_subjects(
    prepared: Prepared, fixed: Subject, moving: Subject, contrast: tuple[str, str]
) -> dict[str, Callable[[], torch.Tensor]]:
    zero = torch.zeros(1, 3, *prepared.grid.shape)
    found: dict[str, Callable[[], torch.Tensor]] = {"start": lambda: zero}
    for how, kind in methods().items():
        found[how] = lambda kind=kind: kind.displacement(prepared)
    found["SyN MI"] = lambda: _syn(getattr(fixed, contrast[0]), getattr(moving, contrast[1]))
    return found


def _subject_pairs(test: Sequence[Subject]) -> Iterator[SubjectPair]:
    for number, fixed in enumerate(test):
        moving = test[(number + 1) % len(test)]
        contrast = ("t1", "t2") if number % 2 == 0 else ("t2", "t1")
        yield f"{moving.name} to {fixed.name}, {contrast[1]} to {contrast[0]}", fixed, moving, contrast


def _subject_row(
    displacement: torch.Tensor, prepared: Prepared, fixed: Subject, moving: Subject, spent: dict[str, float]
) -> Row:
    warped = warp(moving.labels.data[None], displacement, mode="nearest")[0, 0]
    overlap = dice_of(warped, fixed.labels.data[0])
    determinant = DisplacementField.from_voxel(displacement, prepared.grid).jacobian_determinant()
    brain = fixed.labels.data[0] > 0
    return {
        "dice": round(float(np.mean(list(overlap.values()))), 4),
        "folds": float((determinant[brain] <= 0).float().mean()),
        **{name: round(value, 1) for name, value in spent.items()},
    }


def _syn(fixed: Volume, moving: Volume) -> torch.Tensor:
    """SyN with mutual information, as in `benchmarks.peers`, as a displacement in voxels."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_volume(fixed, folder / "fixed.nii.gz")
        write_volume(moving, folder / "moving_from_start.nii.gz")
        (folder / "case.json").write_text(json.dumps({"moving": ["moving"]}), encoding="utf-8")
        field = sitk.Cast(PEERS["SyN MI"].run(folder), sitk.sitkVectorFloat64)
    transform = SpatialTransform(sitk.DisplacementFieldTransform(field))
    return transform.displacement_field(fixed.grid).to_voxel()


def _mean_row(how: str, rows: Sequence[Row]) -> Row:
    dice = [row["dice"] for row in rows]
    return {
        "method": how,
        "pairs": len(rows),
        "Dice [%]": round(100 * float(np.mean(dice)), 1),
        "lowest [%]": round(100 * min(dice), 1),
        "folds [%]": round(100 * float(np.mean([row["folds"] for row in rows])), 4),
        "CPU seconds": round(
            float(np.median([row["CPU seconds" if how != "SyN MI" else "seconds"] for row in rows])), 1
        ),
    }


def onto_ultrasound() -> None:
    """MR onto simulated ultrasound from where it lies, without a rigid search before."""
    path = ROWS / "ultrasound.jsonl"
    rows = read_rows(path)
    cases = [simulated()[number] for number in _CASES]
    for case in cases:
        problem = Problem.read(case.folder())
        prepared = prepare(
            problem.fixed,
            problem.moving,
            SpatialTransform.identity(),
            spacing_mm=_ULTRASOUND_SPACING_MM,
            masked=True,
            margin_mm=4.0,
        )
        for how, kind in {"start": None, **methods()}.items():
            key, version = f"{case.name}, {how}", version_of(how) + case.folder().name[-12:]
            if rows.get(key, {}).get("version") == version:
                continue
            displacement = torch.zeros(1, 3, *prepared.grid.shape) if kind is None else kind.displacement(prepared)
            field = DisplacementField.from_voxel(displacement, prepared.grid)
            found = field.on_grid(problem.fixed.grid).displacement_mm
            error = (found - problem.truth.displacement_mm).norm(dim=-1)[problem.region]
            folds = (field.jacobian_determinant()[prepared.fixed.weight[0, 0] > 0] <= 0).float().mean()
            about = {"case": key, "of": case.name, "method": how, "version": version}
            rows[key] = about | error_row(error, folds)
            write_rows(path, rows)
            print(rows[key], flush=True)
    names = {case.name for case in cases}
    table = error_table([row for row in rows.values() if row["of"] in names], ["start", *methods()], "case")
    record.write(
        "dns-ultrasound",
        table,
        f"MR onto simulated ultrasound of brains that no training saw ({'; '.join(sorted(names))}), from where "
        "it lies, without rigid search, prior or model selection: instance optimisation alone on different "
        f"descriptors, at {_ULTRASOUND_SPACING_MM} mm. Error: distance from the known displacement over the cone.",
        "dns ultrasound",
    )
