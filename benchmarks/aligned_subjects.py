"""The subjects of `subjects`, aligned by the best affine map between the centres of their structures.

Registration networks are trained and judged on these: what an affine map can do is done before they begin, for every
subject alike, so that a gain over 'affine only' is a gain of the deformation.  The split is that of `subjects`.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from benchmarks import record
from benchmarks.subjects import BRAIN, SPLITS, STRUCTURES, Subject, label_map, rendered
from MMRegCore import Grid, Volume, read_volume, write_volume
from MMRegCore.geometry import Array, transform_points
from MMRegCore.warp import resample

CACHE = record.ROOT / "build" / "learned" / "subjects"
SPACING_MM, SHAPE = 2.0, (80, 96, 80)
# The subject in whose space the mean of the centres is formed; its head is upright.
_UPRIGHT = 2
_ROUNDS = 3
_NUMBERS = tuple(number for numbers in STRUCTURES.values() for number in numbers)


def aligned(split: str) -> list[Subject]:
    """The subjects of a split, from ``build/learned``; made there when they are asked for the first time."""
    return [_subject(number) for number in SPLITS[split]]


def write_training_data(folder: Path) -> Path:
    """A folder for each subject, training and validation, for ``mmreg train --data``; gives ``folder``."""
    for name, split in (("training", "train"), ("validation", "validation")):
        for subject in aligned(split):
            place = folder / name / subject.name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            write_volume(subject.t1, place / "t1.nii.gz")
            write_volume(subject.t2, place / "t2.nii.gz")
            write_volume(subject.labels, place / "labels.nii.gz", dtype="uint8")
    return folder


def _subject(number: int) -> Subject:
    folder = CACHE / f"{number:02d}-{_key()}"
    names = ("labels", "t1", "t2")
    if not (folder / "t2.nii.gz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        grid = _grid()
        whole = _brain_only(number)
        labels = resample(whole, grid, _subject_from_common(number), mode="nearest", padding_mode="zeros")
        images = [rendered(labels[0].long(), contrast, seed=number) for contrast in ("t1", "t2")]
        for name, data in zip(names, (labels, *images), strict=True):
            write_volume(Volume(data, grid), folder / f"{name}.nii.gz")
    return Subject(f"subject {number:02d}", *(read_volume(folder / f"{name}.nii.gz", name=name) for name in names))


def _grid() -> Grid:
    """Axes along RAS, about the middle of the upright subject's brain."""
    brain = _brain_only(_UPRIGHT)
    points = brain.grid.points_ras()[(brain.data[0] > 0).numpy()]
    matrix = np.diag([SPACING_MM] * 3 + [1.0])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    matrix[:3, 3] = middle - (np.array(SHAPE[::-1]) - 1) / 2 * SPACING_MM
    return Grid(SHAPE, matrix)


def _subject_from_common(number: int) -> Array:
    """(4, 4), RAS mm: the affine map that best brings the common centres of the structures onto a subject's."""
    return _affine(_common_centres(), _centres(number))


@lru_cache(maxsize=1)
def _common_centres() -> Array:
    """(N, 3): the mean over the training subjects, in the space of the upright one."""
    common = _centres(_UPRIGHT)
    for _ in range(_ROUNDS):
        brought = [transform_points(_affine(_centres(n), common), _centres(n)) for n in SPLITS["train"]]
        common = np.mean(brought, axis=0)
    return common


@cache
def _centres(number: int) -> Array:
    """(N, 3), RAS mm: the centre of each structure, left and right on their own."""
    labels = label_map(number)
    values = labels.data[0].numpy()
    index = [np.argwhere(values == n).mean(axis=0)[::-1] for n in _NUMBERS]
    return transform_points(labels.grid.ras_from_ijk, np.array(index))


def _affine(source: Array, target: Array) -> Array:
    """(4, 4): the least-squares affine map from points (N, 3) to points (N, 3)."""
    solution = np.linalg.lstsq(np.c_[source, np.ones(len(source))], target, rcond=None)[0]
    return np.r_[solution.T, [[0.0, 0.0, 0.0, 1.0]]]


def _brain_only(number: int) -> Volume:
    head = label_map(number)
    return head.with_data(head.data * torch.isin(head.data, torch.tensor(BRAIN, dtype=torch.float32)))


def _key() -> str:
    """Changes with what the subjects are made of."""
    sources = (Path(__file__), Path(__file__).with_name("subjects.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


if __name__ == "__main__":
    print(write_training_data(record.ROOT / "build" / "learned" / "data"))
