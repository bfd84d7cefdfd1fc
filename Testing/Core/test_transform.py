import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError
from MMRegCore.geometry import Grid, transform_points
from MMRegCore.transform import SpatialTransform, check_invertible, composite_from_field

small = st.floats(-0.4, 0.4)
shift = st.floats(-60, 60)


def euler_ras(angles, translation):
    """A rigid matrix (4, 4) that was made by SimpleITK, in coordinates that we call RAS."""
    euler = sitk.Euler3DTransform((0, 0, 0), *angles)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(euler.GetMatrix(), (3, 3))
    matrix[:3, 3] = translation
    return matrix


def far_points(grid, n=60, reach_mm=300.0):
    return grid.centre_ras + np.random.default_rng(3).uniform(-reach_mm, reach_mm, (n, 3))


@pytest.fixture
def composite(oblique_grid, smooth_field):
    return composite_from_field(smooth_field(oblique_grid), torch.ones(oblique_grid.shape))


@settings(max_examples=30, deadline=None)
@given(angles=st.tuples(small, small, small), translation=st.tuples(shift, shift, shift))
def test_matrix_goes_in_and_comes_out(angles, translation):
    matrix = euler_ras(angles, translation)
    transform = SpatialTransform.from_matrix(matrix)
    points = np.array([[10.0, -20, 30], [0, 0, 0], [-100, 5, 7]])
    np.testing.assert_allclose(transform.linear_ras, matrix, atol=1e-9)
    np.testing.assert_allclose(transform.apply(points), transform_points(matrix, points), atol=1e-9)
    np.testing.assert_allclose(transform.apply_inverse(transform.apply(points)), points, atol=1e-9)
    assert transform.is_linear


def test_identity_and_no_points():
    identity = SpatialTransform.identity()
    np.testing.assert_array_equal(identity.apply(np.array([[1.0, 2, 3]])), [[1, 2, 3]])
    assert identity.apply(np.empty((0, 3))).shape == (0, 3)
    assert identity.apply_inverse(np.empty((0, 3))).shape == (0, 3)


def test_then_applies_this_first(composite):
    first = SpatialTransform.from_matrix(euler_ras((0.1, 0.2, -0.3), (5, 6, 7)))
    points = np.random.default_rng(0).uniform(-30, 30, (20, 3))
    for inner, outer in [(first, composite), (composite, first), (composite, composite), (first, first)]:
        chained = inner.then(outer)
        np.testing.assert_allclose(chained.apply(points), outer.apply(inner.apply(points)), atol=1e-9)
    assert first.then(first).is_linear
    assert not first.then(composite).is_linear
    np.testing.assert_allclose(first.then(composite).linear_ras, composite.linear_ras @ first.linear_ras, atol=1e-9)


def test_then_merges_neighbouring_matrices(composite):
    matrix = SpatialTransform.from_matrix(euler_ras((0.1, 0, 0), (1, 2, 3)))
    chained = matrix.then(matrix).then(composite).then(matrix)
    assert sitk.CompositeTransform(chained.itk.Downcast()).GetNumberOfTransforms() == 3


def test_composite_gives_the_field_on_its_grid(any_grid, smooth_field):
    field = smooth_field(any_grid)
    transform = composite_from_field(field, torch.ones(any_grid.shape))
    points = any_grid.points_ras()
    expected = points + field.displacement_mm.double().numpy()
    error = np.linalg.norm(transform.apply(points.reshape(-1, 3)).reshape(points.shape) - expected, axis=-1)
    # Between control points the spline is smooth; replicate padding has a kink at the edge, which it rounds.
    assert error[2:-2, 2:-2, 2:-2].max() < 0.02
    assert error.max() < 0.15
    sampled = transform.displacement_field(any_grid).displacement_mm
    np.testing.assert_allclose(points + sampled.double().numpy(), expected, atol=0.15)


def test_composite_is_linear_far_outside(composite, oblique_grid):
    far = far_points(oblique_grid)
    far = far[np.linalg.norm(far - oblique_grid.centre_ras, axis=1) > 150]
    assert len(far) > 20
    np.testing.assert_allclose(composite.apply(far), transform_points(composite.linear_ras, far), atol=1e-9)
    assert np.abs(composite.linear_ras - np.eye(4)).max() > 0.05


def test_composite_does_not_fold_on_its_way_to_linear(oblique_grid, smooth_field):
    transform = composite_from_field(smooth_field(oblique_grid, 5.0), torch.ones(oblique_grid.shape))
    around = oblique_grid.padded(30)
    assert transform.displacement_field(around).jacobian_determinant().min() > 0.2


def test_composite_inverse_everywhere(composite, oblique_grid):
    rng = np.random.default_rng(1)
    inside = oblique_grid.points_ras().reshape(-1, 3)[rng.integers(0, 20000, 100)]
    points = np.concatenate([inside, oblique_grid.corners_ras(), far_points(oblique_grid)])
    np.testing.assert_allclose(composite.apply_inverse(composite.apply(points)), points, atol=1e-4)


def test_composite_of_a_rigid_field_is_only_a_matrix(any_grid):
    matrix = euler_ras((0.05, -0.1, 0.07), (3, -2, 5))
    field = DisplacementField.from_linear(matrix, any_grid)
    transform = composite_from_field(field, torch.ones(any_grid.shape))
    assert transform.is_linear
    corners = any_grid.corners_ras()
    np.testing.assert_allclose(transform.apply(corners), transform_points(matrix, corners), atol=1e-3)


def test_nearest_rigid_looks_where_the_weight_is(any_grid):
    matrix = euler_ras((0.05, -0.1, 0.07), (3, -2, 5))
    points = any_grid.points_ras()
    displacement = transform_points(matrix, points) - points
    displacement[:5] = 40.0
    weight = torch.ones(any_grid.shape)
    weight[:5] = 0
    field = DisplacementField(torch.from_numpy(displacement), any_grid)
    np.testing.assert_allclose(field.nearest_rigid(weight), matrix, atol=1e-3)
    assert np.abs(field.nearest_rigid(torch.ones(any_grid.shape)) - matrix).max() > 1


def test_composite_of_an_affine_field_is_only_a_matrix_where_that_is_asked_for(any_grid):
    matrix = euler_ras((0.05, -0.1, 0.07), (3, -2, 5)) @ np.diag([1.1, 0.95, 1.05, 1.0])
    field = DisplacementField.from_linear(matrix, any_grid)
    weight = torch.ones(any_grid.shape)
    np.testing.assert_allclose(field.nearest_affine(weight), matrix, atol=1e-3)
    assert composite_from_field(field, weight, affine=True).is_linear
    assert not composite_from_field(field, weight).is_linear


@pytest.mark.parametrize("where", ["one plane", "nowhere"])
def test_nearest_affine_is_rigid_where_a_stretch_is_not_determined(any_grid, smooth_field, where):
    weight = torch.zeros(any_grid.shape)
    field = smooth_field(any_grid, 1.0)
    if where == "one plane":
        weight[3] = 1
        np.testing.assert_array_equal(field.nearest_affine(weight), field.nearest_rigid(weight))
    else:
        np.testing.assert_allclose(field.nearest_affine(weight), field.nearest_affine(weight + 1))


def test_nearest_rigid_never_mirrors(any_grid):
    points = any_grid.points_ras() - any_grid.centre_ras
    field = DisplacementField(torch.from_numpy(points * [-2.0, 0, 0]), any_grid)
    matrix = field.nearest_rigid(torch.ones(any_grid.shape))
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("where", ["nowhere", "one voxel", "one line"])
def test_nearest_rigid_with_hardly_any_weight(any_grid, smooth_field, where):
    weight = torch.zeros(any_grid.shape)
    if where == "one voxel":
        weight[3, 4, 5] = 1
    if where == "one line":
        weight[3, 4, :] = 1
    field = smooth_field(any_grid, 1.0)
    matrix = field.nearest_rigid(weight)
    assert np.isfinite(matrix).all()
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    if where == "one voxel":
        np.testing.assert_allclose(matrix[:3, 3], field.displacement_mm[3, 4, 5], atol=1e-4)
        np.testing.assert_allclose(matrix[:3, :3], np.eye(3))


@pytest.mark.parametrize("shape", [(1, 12, 14), (12, 1, 14), (12, 14, 1), (2, 2, 2)])
def test_composite_on_thin_grids(shape, smooth_field):
    grid = Grid(shape, np.diag([1.0, 1.2, 0.9, 1.0]))
    field = smooth_field(grid, 2.0)
    transform = composite_from_field(field, torch.ones(shape))
    expected = grid.points_ras() + field.displacement_mm.double().numpy()
    moved = transform.apply(grid.points_ras().reshape(-1, 3)).reshape(expected.shape)
    assert np.abs(moved - expected).max() < 0.15


def test_displacement_field_is_the_transform(composite, oblique_grid):
    other = oblique_grid.with_spacing((5.0, 4.0, 6.0)).padded(2)
    field = composite.displacement_field(other)
    points = other.points_ras().reshape(-1, 3)
    np.testing.assert_allclose(
        points + field.displacement_mm.reshape(-1, 3).numpy(), composite.apply(points), atol=1e-4
    )


def test_inverse_of_a_fold_is_an_error(any_grid):
    points = any_grid.points_ras() - any_grid.centre_ras
    folding = -30 * np.exp(-((points / 5) ** 2).sum(axis=-1, keepdims=True)) * np.sign(points)
    field = DisplacementField(torch.from_numpy(folding), any_grid)
    transform = composite_from_field(field, torch.zeros(any_grid.shape))
    targets = any_grid.points_ras()[::4, ::4, ::4].reshape(-1, 3)
    with pytest.raises(GeometryError, match="invertible at"):
        transform.apply_inverse(targets)


def test_singular_matrices_are_refused():
    flat = sitk.AffineTransform(3)
    flat.SetMatrix((1.0, 0, 0, 0, 1, 0, 0, 0, 0))
    with pytest.raises(GeometryError, match="the initial transform to be invertible"):
        check_invertible(SpatialTransform(flat), "the initial transform")
    with pytest.raises(GeometryError, match="invertible"):
        SpatialTransform.from_matrix(np.diag([1.0, 1, 0, 1]))
    check_invertible(SpatialTransform.identity(), "the initial transform")
