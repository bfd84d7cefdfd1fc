"""Target registration error and overlap of labels."""

import numpy as np
import pytest
import torch

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.evaluate.landmarks import paired_points, target_registration_error
from MMRegCore.evaluate.overlap import dice
from MMRegCore.io.landmarks import Landmarks, read_landmark_pairs
from MMRegCore.transform import SpatialTransform


def landmarks(points, labels=None) -> Landmarks:
    return Landmarks(np.array(points, dtype=float), tuple(labels or [""] * len(points)))


@pytest.fixture
def shift() -> SpatialTransform:
    matrix = np.eye(4)
    matrix[:3, 3] = [3.0, 0.0, -4.0]
    return SpatialTransform.from_matrix(matrix)


def test_numbers_by_hand(shift):
    fixed = landmarks([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
    # The moving points lie 0, 1, 2 and 3 mm beside where the transform takes the fixed ones.
    beside = np.array([[0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 3, 0]])
    moving = landmarks(fixed.points_ras + np.array([3, 0, -4]) + beside)
    result = target_registration_error(fixed, moving, shift)
    assert result.after.per_point == pytest.approx([0, 1, 2, 3])
    assert result.after.mean == pytest.approx(1.5)
    assert result.after.median == pytest.approx(1.5)
    assert result.after.max == pytest.approx(3)
    assert result.after.quantile_30 == pytest.approx(0.9)
    assert result.before.per_point == pytest.approx(np.sqrt(25 + np.arange(4) ** 2))
    assert (result.count, result.unit) == (4, "mm")


def test_direction_is_fixed_to_moving(shift):
    fixed = landmarks([[1, 2, 3]])
    assert target_registration_error(fixed, landmarks([[4, 2, -1]]), shift).after.mean == pytest.approx(0)
    assert target_registration_error(fixed, landmarks([[-2, 2, 7]]), shift).after.mean == pytest.approx(10)


def test_initial_transform_is_what_before_means(shift):
    fixed = landmarks([[1, 2, 3]])
    result = target_registration_error(fixed, landmarks([[4, 2, -1]]), SpatialTransform.identity(), initial=shift)
    assert result.before.mean == pytest.approx(0)
    assert result.after.mean == pytest.approx(5)


def test_same_labels_in_another_order_belong_together():
    fixed = landmarks([[0, 0, 0], [1, 0, 0], [2, 0, 0]], ["a", "b", "c"])
    moving = landmarks([[2, 0, 0], [0, 0, 0], [1, 0, 0]], ["c", "a", "b"])
    result = target_registration_error(fixed, moving, SpatialTransform.identity())
    assert result.after.max == pytest.approx(0)
    assert result.labels == ("a", "b", "c")


@pytest.mark.parametrize("labels", [["M-1", "M-2"], ["", ""], ["a", "a"]])
def test_other_labels_leave_the_order(labels):
    fixed, moving = landmarks([[0, 0, 0], [1, 0, 0]], ["a", "b"]), landmarks([[5, 0, 0], [6, 0, 0]], labels)
    assert np.array_equal(paired_points(fixed, moving)[1], moving.points_ras)


@pytest.mark.parametrize(("fixed", "moving"), [(2, 3), (0, 0), (1, 0)])
def test_unequal_or_no_landmarks(fixed, moving):
    with pytest.raises(InputError, match=f"got {fixed} fixed and {moving} moving"):
        paired_points(landmarks(np.zeros((fixed, 3))), landmarks(np.zeros((moving, 3))))


def test_case24_starts_where_the_literature_says(case24):
    fixed, moving = read_landmark_pairs(case24["landmarks"])
    result = target_registration_error(fixed, moving, SpatialTransform.identity())
    assert result.count == 16
    assert result.before.mean == pytest.approx(1.10, abs=0.005)


class TestDice:
    def test_by_hand(self):
        first = torch.tensor([0, 1, 1, 1, 2, 3])
        second = torch.tensor([0, 1, 1, 2, 2, 0])
        assert dice(first, second) == pytest.approx({1: 4 / 5, 2: 2 / 3, 3: 0.0})
        assert dice(first.float(), second.to(torch.uint8), labels=[1]) == pytest.approx({1: 4 / 5})

    def test_a_map_with_itself_and_a_label_that_is_not_there(self):
        labels = torch.arange(24).reshape(2, 3, 4) % 4
        assert dice(labels, labels) == {1: 1.0, 2: 1.0, 3: 1.0}
        assert np.isnan(dice(labels, labels, labels=[9])[9])

    def test_shapes_must_agree(self):
        with pytest.raises(GeometryError, match=r"one shape; got \(2, 3\) and \(3, 2\)"):
            dice(torch.zeros(2, 3), torch.zeros(3, 2))
