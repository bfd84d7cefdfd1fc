import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore.errors import GeometryError
from MMRegCore.geometry import (
    Grid,
    check_affine,
    displacement_mm_from_voxel,
    displacement_voxel_from_mm,
    ijk_target_from_source,
    lps_from_ras_matrix,
    lps_from_ras_points,
    normalised_from_voxel,
    ras_from_lps_matrix,
    ras_from_lps_points,
    transform_points,
)

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
finite = st.floats(-200, 200, allow_nan=False)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Grids with any rotation (from a quaternion), handedness, spacing and origin."""
    q = np.array(draw(st.lists(st.floats(-1, 1), min_size=4, max_size=4)))
    q = q / np.linalg.norm(q) if np.linalg.norm(q) > 0.1 else np.array([1.0, 0, 0, 0])
    w, x, y, z = q
    direction = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    direction[:, 0] *= draw(st.sampled_from([1.0, -1.0]))
    size = draw(st.lists(st.integers(1, 40), min_size=3, max_size=3))
    spacing = draw(st.lists(st.floats(0.1, 5), min_size=3, max_size=3))
    origin = draw(st.lists(finite, min_size=3, max_size=3))
    return Grid.from_itk(size, spacing, origin, direction.ravel().tolist())


def test_voxels_lie_where_itk_says(any_grid, itk_on):
    image = itk_on(any_grid)
    for ijk in [(0, 0, 0), (19, 0, 0), (0, 16, 0), (0, 0, 13), (7, 3, 11)]:
        expected = np.array(image.TransformIndexToPhysicalPoint(ijk)) * [-1, -1, 1]
        i, j, k = ijk
        np.testing.assert_allclose(any_grid.points_ras()[k, j, i], expected, atol=1e-9)
        np.testing.assert_allclose(transform_points(any_grid.ijk_from_ras, expected[None])[0], ijk, atol=1e-9)


def test_itk_geometry_comes_back(any_grid, itk_on):
    image = itk_on(any_grid)
    again = Grid.from_itk(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    assert again.matches(any_grid, tolerance_mm=1e-9)
    assert any_grid.itk_size == image.GetSize() == (20, 17, 14)
    np.testing.assert_allclose(any_grid.spacing_mm, [0.8, 1.1, 1.7])
    assert any_grid.voxel_volume_mm3 == pytest.approx(0.8 * 1.1 * 1.7)


def test_centre_and_corners(any_grid):
    points = any_grid.points_ras()
    np.testing.assert_allclose(any_grid.centre_ras, points.reshape(-1, 3).mean(axis=0), atol=1e-9)
    ends = points[np.ix_([0, -1], [0, -1], [0, -1])].reshape(-1, 3)
    expected = sorted(np.round(ends, 6).tolist())
    np.testing.assert_allclose(sorted(np.round(any_grid.corners_ras(), 6).tolist()), expected, atol=1e-5)


def test_matches_tells_grids_apart(any_grid):
    moved = any_grid.ras_from_ijk.copy()
    moved[0, 3] += 0.01
    assert any_grid.matches(any_grid)
    assert not any_grid.matches(Grid(any_grid.shape, moved))
    assert any_grid.matches(Grid(any_grid.shape, moved), tolerance_mm=0.1)
    assert not any_grid.matches(Grid((14, 17, 19), any_grid.ras_from_ijk))
    assert not any_grid.matches(Grid(any_grid.shape, any_grid.ras_from_ijk @ np.diag([-1.0, 1, 1, 1])))


def test_grid_matrix_is_copied_and_cannot_be_changed():
    matrix = np.eye(4)
    grid = Grid((2, 2, 2), matrix)
    matrix[0, 3] = 99
    assert grid.ras_from_ijk[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.ras_from_ijk[0, 3] = 1


def test_pooled_voxels_are_the_means_of_their_blocks(any_grid):
    pooled = any_grid.pooled(2, (7, 8, 10))
    blocks = any_grid.points_ras()[:14, :16, :20].reshape(7, 2, 8, 2, 10, 2, 3).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(pooled.points_ras(), blocks, atol=1e-9)
    assert any_grid.pooled(3).shape == (5, 6, 7)


def test_padded_grid_keeps_its_voxels_in_place(any_grid):
    padded = any_grid.padded(3)
    assert padded.shape == (20, 23, 26)
    np.testing.assert_allclose(padded.points_ras()[3:-3, 3:-3, 3:-3], any_grid.points_ras(), atol=1e-9)


def test_with_spacing_keeps_box_and_orientation(any_grid):
    new = any_grid.with_spacing((0.5, 0.5, 0.5))
    np.testing.assert_allclose(new.spacing_mm, 0.5)
    np.testing.assert_allclose(new.centre_ras, any_grid.centre_ras, atol=1e-9)
    np.testing.assert_allclose(new.itk_direction_lps, any_grid.itk_direction_lps, atol=1e-12)
    extent = np.array(new.itk_size) * new.spacing_mm - np.array(any_grid.itk_size) * any_grid.spacing_mm
    assert np.abs(extent).max() <= 0.25 + 1e-9
    assert any_grid.with_spacing(any_grid.spacing_mm).matches(any_grid)


def test_with_spacing_never_loses_an_axis():
    thin = Grid((1, 8, 8), np.diag([1.0, 1.0, 0.2, 1.0]))
    assert thin.with_spacing((2.0, 2.0, 2.0)).shape == (1, 4, 4)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan")), (float("inf"), 1, 1)])
def test_bad_spacing_is_refused(spacing):
    with pytest.raises(GeometryError, match="positive spacings"):
        Grid.from_itk((4, 4, 4), spacing, (0, 0, 0), IDENTITY)


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4), (4, -1, 4)])
def test_bad_sizes_are_refused(shape):
    with pytest.raises(GeometryError, match="three sizes"):
        Grid(shape, np.eye(4))


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1, 0, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.full((4, 4), np.nan),
        np.eye(3),
    ],
)
def test_singular_or_broken_matrices_are_refused(matrix):
    with pytest.raises(GeometryError, match="expected"):
        Grid((4, 4, 4), matrix)


def test_small_voxels_are_not_singular():
    check_affine(np.diag([1e-5, 1e-5, 1e-5, 1.0]), "a microscope's matrix")


@settings(max_examples=40, deadline=None)
@given(grid=grids(), point=st.lists(finite, min_size=3, max_size=3))
def test_voxel_and_mm_round_trip(grid, point):
    ijk = transform_points(grid.ijk_from_ras, np.array([point]))
    np.testing.assert_allclose(transform_points(grid.ras_from_ijk, ijk)[0], point, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(np.reshape(grid.itk_direction_lps, (3, 3)), axis=0), 1, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(source=grids(), target=grids())
def test_ijk_between_grids_goes_through_space(source, target):
    ijk = np.array([[1.0, 2.0, 3.0]])
    direct = transform_points(ijk_target_from_source(target, source), ijk)
    np.testing.assert_allclose(
        transform_points(target.ras_from_ijk, direct), transform_points(source.ras_from_ijk, ijk), atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(grid=grids())
def test_displacement_units_round_trip(grid):
    small = Grid((2, 3, 4), grid.ras_from_ijk)
    voxel = torch.randn(1, 3, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    again = displacement_voxel_from_mm(displacement_mm_from_voxel(voxel, small), small)
    torch.testing.assert_close(again, voxel, atol=1e-9, rtol=0)


def test_displacement_in_voxels_leads_to_the_neighbour(any_grid):
    """One voxel along d, h or w is the step between neighbours in that axis of the tensor."""
    points = any_grid.points_ras()
    for axis, step in enumerate([points[1, 0, 0], points[0, 1, 0], points[0, 0, 1]]):
        voxel = torch.zeros(1, 3, *any_grid.shape, dtype=torch.float64)
        voxel[0, axis] = 1
        millimetres = displacement_mm_from_voxel(voxel, any_grid)
        np.testing.assert_allclose(millimetres[4, 5, 6], step - points[0, 0, 0], atol=1e-9)


@given(point=st.lists(finite, min_size=3, max_size=3))
def test_lps_and_ras_are_each_others_inverse(point):
    points = np.array([point])
    np.testing.assert_array_equal(ras_from_lps_points(lps_from_ras_points(points)), points)


def test_matrix_and_points_agree_on_lps():
    matrix = np.random.default_rng(0).normal(size=(4, 4))
    matrix[3] = [0, 0, 0, 1]
    points = np.random.default_rng(1).normal(size=(5, 3))
    through_lps = ras_from_lps_points(transform_points(lps_from_ras_matrix(matrix), lps_from_ras_points(points)))
    np.testing.assert_allclose(through_lps, transform_points(matrix, points), atol=1e-12)
    np.testing.assert_allclose(ras_from_lps_matrix(lps_from_ras_matrix(matrix)), matrix)


def test_normalised_ends_are_the_outer_faces():
    ends = normalised_from_voxel(torch.tensor([[-0.5, -0.5, -0.5], [9.5, 4.5, 2.5]]), (3, 5, 10))
    torch.testing.assert_close(ends, torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))


def test_slices_hold_the_points_of_the_whole(any_grid):
    stacked = np.concatenate([part.points_ras() for part in any_grid.slices()])
    np.testing.assert_allclose(stacked, any_grid.points_ras(), atol=1e-9)
