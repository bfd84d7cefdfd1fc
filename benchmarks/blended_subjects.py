"""More anatomies from ten: each training subject deformed part of the way towards others, here more and there less.

Networks without a matching of their own learn ten subjects by heart.  Between two people lie others: a field from one
to the other, taken for a share that changes smoothly over the head, leads to one of them.  The fields come from the
labels of the training subjects; validation and test subjects take no part.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import record
from benchmarks.subjects import SPACING_MM, Subject, rendered, subjects
from benchmarks.training_subjects import write_training_data
from MMRegCore import Volume, write_volume
from MMRegCore.ops import avg_pool, box_mean, warp
from MMRegCore.optimisation.instance import refine_field
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.simulate.noise import random_stream, white_noise

FOLDER = record.ROOT / "build" / "learned" / "blended"
# Of each subject: others that it is deformed towards, and blends that are made of that.
_TOWARDS, _COPIES = 4, 12
# Shares of the fields change over this length; beyond 1 a blend may go past the other subject.
_LENGTH_MM, _SHARPNESS, _FARTHEST = 40.0, 2.0, 1.2
# By labels, a field may be rougher than by images: there is no noise in them.
_INSTANCE = InstanceSettings(iterations=60, learning_rate=0.3, regularisation=0.05, final_smoothing_passes=1)


def main() -> None:
    """Write the training data, and the blends beside the training subjects, to ``build/learned/blended``."""
    torch.set_num_threads(1)
    write_training_data(FOLDER)
    everyone = subjects("train")
    random = random_stream(0, "blends")
    numbers = sorted({int(n) for subject in everyone for n in subject.labels.data.unique()})
    for index, subject in enumerate(everyone):
        others = random.permutation([n for n in range(len(everyone)) if n != index])[:_TOWARDS]
        fields = torch.cat([field_between(everyone[other], subject, numbers) for other in others])
        for copy in range(_COPIES):
            labels = blend(subject, fields, random)
            image = rendered(labels.data[0].long(), "t2", seed=int(random.integers(2**31)))
            place = FOLDER / "training" / f"{subject.name.replace(' ', '_')}_blend_{copy:02d}"
            place.mkdir(parents=True, exist_ok=True)
            write_volume(labels.with_data(image), place / "t2.nii.gz")
            write_volume(labels, place / "labels.nii.gz", dtype="uint8")
        print(subject.name, flush=True)


def blend(subject: Subject, fields: torch.Tensor, random: np.random.Generator) -> Volume:
    """The labels of a subject, taken along random shares of fields (N, 3, D, H, W) that lead to N others."""
    shape = subject.labels.grid.shape
    coarse = [max(2, round(n * SPACING_MM / _LENGTH_MM) + 1) for n in shape]
    # One share more than there are fields: that of staying as it is.
    noise = _SHARPNESS * white_noise((1, len(fields) + 1, *coarse), random)
    share = F.interpolate(noise, size=shape, mode="trilinear", align_corners=True).softmax(dim=1)[0, 1:, None]
    field = (_FARTHEST * share * fields).sum(dim=0, keepdim=True)
    return subject.labels.with_data(warp(subject.labels.data[None], field, mode="nearest")[0].round())


def field_between(fixed: Subject, moving: Subject, numbers: list[int]) -> torch.Tensor:
    """(1, 3, D, H, W): displacement_voxel that brings the labels of one subject onto those of another."""
    features = [
        avg_pool(box_mean(torch.stack([(subject.labels.data[0].round() == n).float() for n in numbers])[None], 1), 2)
        for subject in (fixed, moving)
    ]
    start = torch.zeros(1, 3, *fixed.labels.grid.shape)
    return refine_field(features[0], [features[1]], start, _INSTANCE)


if __name__ == "__main__":
    main()
