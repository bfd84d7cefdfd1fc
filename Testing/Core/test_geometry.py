import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from grids import DIRECTIONS, itk_grid, itk_image
from MMRegCore.errors import GeometryError
from MMRegCore.geometry import (
    Grid,
    check_affine,
    ijk_target_from_source,
    lps_from_ras_matrix,
    lps_from_ras_points,
    ras_from_lps_matrix,
    ras_from_lps_points,
    transform_points,
)

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
    return itk_grid(size, spacing, origin, direction)


@pytest.mark.parametrize("direction", list(DIRECTIONS))
def test_voxels_lie_where_itk_says(direction):
    image = itk_image((20, 17, 14), (0.8, 1.1, 1.7), (12.5, -31.0, 47.0), DIRECTIONS[direction])
    grid = Grid.from_itk(image)
    for ijk in [(0, 0, 0), (19, 0, 0), (0, 16, 0), (0, 0, 13), (7, 3, 11)]:
        expected = np.array(image.TransformIndexToPhysicalPoint(ijk)) * [-1, -1, 1]
        i, j, k = ijk
        np.testing.assert_allclose(grid.points_ras()[k, j, i], expected, atol=1e-9)
        np.testing.assert_allclose(transform_points(grid.ijk_from_ras, expected[None])[0], ijk, atol=1e-9)
    assert grid.itk_size == (20, 17, 14)
    np.testing.assert_allclose(grid.spacing_mm, [0.8, 1.1, 1.7])
    assert grid.voxel_volume_mm3 == pytest.approx(0.8 * 1.1 * 1.7)


@pytest.mark.parametrize("direction", list(DIRECTIONS))
def test_itk_geometry_comes_back(direction):
    image = itk_image((20, 17, 14), (0.8, 1.1, 1.7), (12.5, -31.0, 47.0), DIRECTIONS[direction])
    again = Grid.from_itk(image).to_itk()
    assert again.GetSize() == image.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(again, name)(), getattr(image, name)(), atol=1e-9)


@pytest.mark.parametrize("kind", ["uint8", "int16", "float32", "float64"])
def test_values_become_an_itk_image_voxel_by_voxel(any_grid, kind):
    values = np.random.default_rng(0).uniform(0, 100, any_grid.shape).astype(kind)
    image = any_grid.to_itk(values)
    assert image[7, 3, 11] == values[11, 3, 7]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values)
    assert sitk.GetArrayFromImage(image).dtype == np.dtype(kind)
    assert Grid.from_itk(image).matches(any_grid, tolerance_mm=1e-9)


def test_a_fourth_axis_makes_a_vector_image(any_grid):
    values = np.random.default_rng(0).random((*any_grid.shape, 3))
    # Not contiguous, as a permuted tensor is.
    image = any_grid.to_itk(np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -1, 0)), 0, -1))
    assert image.GetNumberOfComponentsPerPixel() == 3
    np.testing.assert_array_equal(image[7, 3, 11], values[11, 3, 7])


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


def test_cropped_grid_keeps_its_voxels_in_place(any_grid):
    cropped = any_grid.cropped((2, 3, 4), (5, 6, 7))
    np.testing.assert_allclose(cropped.points_ras(), any_grid.points_ras()[4:9, 3:9, 2:9], atol=1e-9)


def test_padded_grid_keeps_its_voxels_in_place(any_grid):
    padded = any_grid.padded(3)
    assert padded.shape == (20, 23, 26)
    np.testing.assert_allclose(padded.points_ras()[3:-3, 3:-3, 3:-3], any_grid.points_ras(), atol=1e-9)


def test_with_spacing_keeps_box_and_orientation(any_grid):
    new = any_grid.with_spacing((0.5, 0.5, 0.5))
    np.testing.assert_allclose(new.spacing_mm, 0.5)
    np.testing.assert_allclose(new.centre_ras, any_grid.centre_ras, atol=1e-9)
    np.testing.assert_allclose(new.to_itk().GetDirection(), any_grid.to_itk().GetDirection(), atol=1e-12)
    extent = np.array(new.itk_size) * new.spacing_mm - np.array(any_grid.itk_size) * any_grid.spacing_mm
    assert np.abs(extent).max() <= 0.25 + 1e-9
    assert any_grid.with_spacing(any_grid.spacing_mm).matches(any_grid)


def test_axis_aligned_grid_holds_the_box(any_grid):
    aligned = any_grid.axis_aligned(0.9)
    np.testing.assert_allclose(aligned.ras_from_ijk[:3, :3], 0.9 * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(aligned.centre_ras, any_grid.centre_ras, atol=1e-9)
    ijk = transform_points(aligned.ijk_from_ras, any_grid.padded(1).corners_ras())
    # Half-way between the outer voxels and those one further out are the outer faces.
    faces = (ijk + transform_points(aligned.ijk_from_ras, any_grid.corners_ras())) / 2
    assert (faces > -0.51).all()
    assert (faces < np.array(aligned.itk_size) - 0.49).all()


def test_with_spacing_never_loses_an_axis():
    thin = Grid((1, 8, 8), np.diag([1.0, 1.0, 0.2, 1.0]))
    assert thin.with_spacing((2.0, 2.0, 2.0)).shape == (1, 4, 4)


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
        np.diag([1.0, np.inf, 1, 1]),
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
    direction = np.reshape(grid.to_itk().GetDirection(), (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(source=grids(), target=grids())
def test_ijk_between_grids_goes_through_space(source, target):
    ijk = np.array([[1.0, 2.0, 3.0]])
    direct = transform_points(ijk_target_from_source(target, source), ijk)
    np.testing.assert_allclose(
        transform_points(target.ras_from_ijk, direct), transform_points(source.ras_from_ijk, ijk), atol=1e-6
    )


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


def test_slices_hold_the_points_of_the_whole(any_grid):
    stacked = np.concatenate([part.points_ras() for part in any_grid.slices()])
    np.testing.assert_allclose(stacked, any_grid.points_ras(), atol=1e-9)
