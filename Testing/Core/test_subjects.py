"""The inter-subject data set of the benchmarks: split, alignment, contrasts, and the folder that training reads."""

from functools import cache

import numpy as np
import pytest
import torch

from benchmarks import subjects as made
from benchmarks.blended_subjects import blend, field_between
from benchmarks.training_subjects import write_training_data
from MMRegCore.geometry import Grid
from MMRegCore.training.data.subjects import read_training_data
from MMRegCore.volume import Volume


def test_no_subject_is_in_two_splits():
    numbers = [number for split in made.SPLITS.values() for number in split]
    assert len(numbers) == len(set(numbers)) == 16
    assert made.TEMPLATE in made.SPLITS["train"]


def test_every_scored_structure_is_part_of_the_brain():
    numbers = [number for group in made.STRUCTURES.values() for number in group]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(made.BRAIN)


def test_contrasts_are_inverse_of_each_other_and_stay_in_the_brain():
    labels = torch.zeros(24, 24, 24, dtype=torch.int64)
    labels[4:20, 4:20, 4:12] = 2
    labels[4:20, 4:20, 12:20] = 4
    t1, t2 = (made.rendered(labels, contrast, seed=3)[0] for contrast in ("t1", "t2"))
    white, fluid = (6, 8, 8), (6, 8, 16)
    assert t1[white] > 2 * t1[fluid]
    assert t2[fluid] > 2 * t2[white] > 0
    assert not t1[labels == 0].any()
    assert torch.equal(made.rendered(labels, "t1", seed=3)[0], t1)
    assert not torch.equal(made.rendered(labels, "t1", seed=4)[0], t1)


def test_dice_of_a_structure_is_the_mean_of_left_and_right():
    one, two = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)
    one[0], two[0] = 10, 10  # left thalamus: the same
    one[2], two[2, :2] = 49, 49  # right: half of it
    assert made.dice_of(one, two)["thalamus"] == pytest.approx((1 + 2 * 8 / 24) / 2)


def test_training_reads_the_folder_that_is_written(tmp_path, monkeypatch):
    grid = made.Grid((8, 9, 10), np.eye(4))
    labels = Volume(torch.randint(0, 3, (1, 8, 9, 10)).float(), grid)

    @cache
    def subject(number):
        return made.Subject(
            f"subject {number:02d}", labels, labels.with_data(labels.data * 2), labels.with_data(number + labels.data)
        )

    monkeypatch.setattr(made, "_subject", subject)
    data = read_training_data(write_training_data(tmp_path))
    assert len(data.training) == len(made.SPLITS["train"])
    assert data.validation.names == ("subject_11", "subject_12")
    # The template shows its T1 and all others their T2, so that 'different' contrasts are these.
    assert {s.name: set(s.images) for s in data.training} == {
        f"subject_{n:02d}": {"t1" if n == made.TEMPLATE else "t2"} for n in made.SPLITS["train"]
    }
    assert torch.equal(data.validation[0].labels, labels.data[0].short())


def test_random_contrasts_are_alike_on_both_sides_and_differ_from_each_other():
    labels = torch.zeros(1, 20, 20, 20)
    labels[..., 2:10], labels[..., 10:18] = 10, 49  # thalamus, left and right
    volume = Volume(labels, made.Grid((20, 20, 20), np.eye(4)))
    found = made.in_contrasts(made.Subject("one", volume, volume, volume), seed=3)
    for image in (found.t1, found.t2):
        left, right = (image.data[labels == number].mean() for number in (10, 49))
        assert (left - right).abs() < 0.5 * (image.data[labels == 0].mean() - left).abs() + 0.1
    assert not torch.equal(found.t1.data, found.t2.data)
    assert found.labels is volume


def test_the_real_subjects_overlap_after_the_affine(shared_data):
    pytest.importorskip("ants", reason="the affine registration of the benchmarks is that of antspyx")
    first, second = made.subjects("validation")
    assert first.labels.grid.shape == made.SHAPE
    assert first.labels.grid.matches(second.t2.grid)
    scores = made.dice_of(first.labels.data[0], second.labels.data[0])
    assert 0.4 < np.mean(list(scores.values())) < 0.8
    inside = first.labels.data > 0
    assert float((first.t1.data[inside] > 0.05).float().mean()) > 0.98
    assert float(first.t1.data[~inside].max()) < 1.5


def person(first, last):
    """A block of brain with a fluid core between two voxels along the first axis, on a grid of 2 mm."""
    labels = torch.zeros(1, 32, 32, 32)
    labels[:, 4:28, 4:28, 4:28] = 2
    labels[:, first:last, 10:22, 10:22] = 4
    volume = Volume(labels, Grid((32, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0])))
    return made.Subject("somebody", volume, volume, volume)


def test_a_blend_lies_between_a_subject_and_others():
    one, other = person(8, 18), person(14, 24)
    field = field_between(other, one, [0, 2, 4])
    assert float(field[0, 0, 15, 15, 15]) < -3  # what the other has there, the one has six voxels before
    random = np.random.default_rng(0)
    blends = [blend(one, field, random).data[0, :, 15, 15] == 4 for _ in range(6)]
    middles = [float(core.nonzero().float().mean()) for core in blends]
    assert all(12.5 <= middle <= 20 for middle in middles)  # 12.5 is the one, 18.5 the other, a fifth beyond it allowed
    assert len({round(middle, 1) for middle in middles}) > 3
    unchanged = blend(one, torch.zeros_like(field), random)
    assert torch.equal(unchanged.data, one.labels.data)
