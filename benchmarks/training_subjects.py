"""What registration networks are trained on: the subjects of `benchmarks.subjects` as ``mmreg train`` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import record
from benchmarks.subjects import RIGHT, STRUCTURES, Subject, subjects, template
from MMRegCore import Volume, write_volume
from MMRegCore.geometry import Array, transform_points
from MMRegCore.warp import resample

_NUMBERS = tuple(number for numbers in STRUCTURES.values() for number in numbers)


def write_training_data(folder: Path, *, mirrored: bool = False) -> Path:
    """The T1 of the template and the T2 of the others, with labels, for ``mmreg train --data``; gives ``folder``.

    Each training subject but the template may be there a second time, mirrored: ten anatomies are few.
    """
    for name, split in (("training", "train"), ("validation", "validation")):
        there = subjects(split)
        if split == "train" and mirrored:
            there += [_mirrored(subject) for subject in there if subject is not template()]
        for subject in there:
            place = folder / name / subject.name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            if subject is template():
                write_volume(subject.t1, place / "t1.nii.gz")
            else:
                write_volume(subject.t2, place / "t2.nii.gz")
            write_volume(subject.labels, place / "labels.nii.gz", dtype="uint8")
    return folder


def _mirrored(subject: Subject) -> Subject:
    """Left is right, brought to the template again by the affine map between the centres of the structures."""
    labels = subject.labels.with_data(subject.labels.data.flip(3))
    exchanged = labels.data.clone()
    for right, left in RIGHT.items():
        exchanged[labels.data == right], exchanged[labels.data == left] = left, right
    labels = labels.with_data(exchanged)
    source = np.c_[_centres(template().labels), np.ones(len(_NUMBERS))]
    solution = np.linalg.lstsq(source, _centres(labels), rcond=None)[0]
    matrix = np.r_[solution.T, [[0.0, 0.0, 0.0, 1.0]]]

    def brought(volume: Volume, mode: str) -> Volume:
        return volume.with_data(resample(volume, volume.grid, matrix, mode=mode, padding_mode="zeros"))

    images = (brought(image.with_data(image.data.flip(3)), "bilinear") for image in (subject.t1, subject.t2))
    return Subject(f"{subject.name} mirrored", brought(labels, "nearest"), *images)


def _centres(labels: Volume) -> Array:
    """(N, 3), RAS mm: the centre of each structure, left and right on their own."""
    values = labels.data[0].numpy()
    index = [np.argwhere(values == number).mean(axis=0)[::-1] for number in _NUMBERS]
    return transform_points(labels.grid.ras_from_ijk, np.array(index))


if __name__ == "__main__":
    print(write_training_data(record.ROOT / "build" / "learned" / "data"))
    print(write_training_data(record.ROOT / "build" / "learned" / "data-mirrored", mirrored=True))
