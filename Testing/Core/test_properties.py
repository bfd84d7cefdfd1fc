"""What must hold whatever the images are: a registration knows no axes, no origin, no order of its MR."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from MMRegCore import SpatialTransform, register
from MMRegCore.config import with_changes
from MMRegCore.geometry import Grid
from MMRegCore.volume import Volume
from quick import QUICK
from scenes import box, inner_points, scene, translation

pytestmark = pytest.mark.slow

SETTINGS = with_changes(QUICK, {"lc2.search.extended_range_mm": 0})
SHIFT = translation((1.5, -1.0, 0.5))
GRID = box((20, 22, 24))
# Of the places that two searches end in, which sample the images at other points: 0.13 mm at most was seen, with these
# samples every 1.5 mm.
TOLERANCE_MM = 0.2


@pytest.fixture(scope="module")
def fixed() -> Volume:
    return scene(GRID, SHIFT.apply, name="us")


@pytest.fixture(scope="module")
def moving() -> Volume:
    return scene(box((28, 30, 32)), inverted=True, name="t1")


@pytest.fixture(scope="module")
def found(fixed, moving) -> SpatialTransform:
    return run(fixed, moving)


def run(fixed: Volume, *moving: Volume) -> SpatialTransform:
    return register(fixed, moving, settings=SETTINGS, device="cpu").transform


def distance_mm(first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance of points (N, 3)."""
    return float(np.linalg.norm(first - second, axis=1).max())


def stored_as(volume: Volume, order: tuple[int, int, int], flipped: tuple[int, ...]) -> Volume:
    """The same image in space with its voxels stored along other axes (of d, h, w) and backwards."""
    data = volume.data[0].permute(order)
    columns = volume.grid.ras_from_ijk[:, [2 - axis for axis in order[::-1]] + [3]]
    for axis in flipped:
        columns[:, 3] += (data.shape[axis] - 1) * columns[:, 2 - axis]
        columns[:, 2 - axis] *= -1
    return Volume(torch.flip(data, flipped)[None], Grid(tuple(data.shape), columns), name=volume.name)


def in_space(volume: Volume, ras: np.ndarray) -> Volume:
    """The image moved by a matrix (4, 4)."""
    return replace(volume, grid=Grid(volume.grid.shape, ras @ volume.grid.ras_from_ijk))


def test_the_truth_is_found(found):
    points = inner_points(GRID)
    assert distance_mm(found.apply(points), SHIFT.apply(points)) < 0.5


@pytest.mark.parametrize(("order", "flipped"), [((2, 0, 1), ()), ((0, 1, 2), (0, 2)), ((1, 0, 2), (1,))])
def test_how_voxels_are_stored_does_not_matter(fixed, moving, found, order, flipped):
    stored = stored_as(fixed, order, flipped)
    i, j, k = 3, 5, 7
    place = stored.grid.ras_from_ijk @ [i, j, k, 1]
    nearest = np.rint(fixed.grid.ijk_from_ras @ place).astype(int)
    assert stored.data[0, k, j, i] == fixed.data[0, nearest[2], nearest[1], nearest[0]]
    points = inner_points(GRID)
    again = run(stored, stored_as(moving, order[::-1], flipped))
    assert distance_mm(again.apply(points), found.apply(points)) < TOLERANCE_MM


@pytest.mark.parametrize(
    "linear",
    [np.diag([-1.0, 1, 1]), np.diag([1.0, -1, -1]), np.eye(3)[[1, 2, 0]]],
    ids=["mirrored", "turned over", "axes exchanged"],
)
def test_flips_and_permutations_of_space_commute_with_registration(fixed, moving, found, linear):
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    points = inner_points(GRID)
    again = run(in_space(fixed, matrix), in_space(moving, matrix))
    assert distance_mm(again.apply(points @ linear.T), found.apply(points) @ linear.T) < TOLERANCE_MM


def test_shifting_both_images_shifts_the_result(fixed, moving, found):
    vector = np.array([107.3, -41.9, 12.6])
    matrix = np.eye(4)
    matrix[:3, 3] = vector
    points = inner_points(GRID)
    again = run(in_space(fixed, matrix), in_space(moving, matrix))
    assert distance_mm(again.apply(points + vector), found.apply(points) + vector) < TOLERANCE_MM


def test_identity_stays_identity(moving):
    points = inner_points(GRID)
    again = run(scene(GRID, name="us"), moving)
    assert distance_mm(again.apply(points), points) < 0.3


def test_the_order_of_the_mr_does_not_matter(fixed, moving):
    other = moving.with_data(100 - moving.data + 20 * torch.sin(moving.data))
    points = inner_points(GRID)
    one, two = run(fixed, moving, replace(other, name="t2")), run(fixed, replace(other, name="t2"), moving)
    assert distance_mm(one.apply(points), two.apply(points)) < TOLERANCE_MM


def test_scaling_intensities_does_not_matter(fixed, moving, found):
    points = inner_points(GRID)
    again = run(fixed.with_data(3 * fixed.data), moving.with_data(0.25 * moving.data))
    assert distance_mm(again.apply(points), found.apply(points)) < TOLERANCE_MM
