"""What registration networks are trained on: the subjects of `benchmarks.subjects` as ``mmreg train`` reads them."""

from __future__ import annotations

from pathlib import Path

from benchmarks import record
from benchmarks.subjects import subjects, template
from MMRegCore import write_volume


def write_training_data(folder: Path) -> Path:
    """The T1 of the template and the T2 of the others, with labels, for ``mmreg train --data``; gives ``folder``."""
    for name, split in (("training", "train"), ("validation", "validation")):
        for subject in subjects(split):
            place = folder / name / subject.name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            if subject is template():
                write_volume(subject.t1, place / "t1.nii.gz")
            else:
                write_volume(subject.t2, place / "t2.nii.gz")
            write_volume(subject.labels, place / "labels.nii.gz", dtype="uint8")
    return folder


if __name__ == "__main__":
    print(write_training_data(record.ROOT / "build" / "learned" / "data"))
