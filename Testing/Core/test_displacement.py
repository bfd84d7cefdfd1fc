import numpy as np
import pytest
import SimpleITK as sitk
import torch

from grids import itk_grid
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError
from MMRegCore.geometry import Grid, transform_points

CORE = (slice(3, -3),) * 3


def itk_transform(field):
    lps = field.displacement_mm.double().numpy() * [-1, -1, 1]
    return sitk.DisplacementFieldTransform(field.grid.to_itk(lps))


def test_units_round_trip_and_magnitude(any_grid, smooth_field):
    field = smooth_field(any_grid)
    again = DisplacementField.from_voxel(field.to_voxel(), any_grid)
    torch.testing.assert_close(again.displacement_mm, field.displacement_mm, atol=1e-5, rtol=0)
    expected = np.linalg.norm(field.displacement_mm.numpy(), axis=-1)
    np.testing.assert_allclose(field.magnitude_mm(), expected, rtol=1e-5)
    assert field.to_voxel().dtype == torch.float32


def test_a_displacement_in_voxels_leads_to_the_neighbour(any_grid):
    """One voxel along d, h or w is the step between neighbours in that axis of the tensor."""
    points = any_grid.points_ras()
    for axis, step in enumerate([points[1, 0, 0], points[0, 1, 0], points[0, 0, 1]]):
        voxel = torch.zeros(1, 3, *any_grid.shape)
        voxel[0, axis] = 1
        field = DisplacementField.from_voxel(voxel, any_grid)
        np.testing.assert_allclose(field.displacement_mm[4, 5, 6], step - points[0, 0, 0], atol=1e-6)


def test_voxels_of_another_grid(any_grid, oblique_grid, smooth_field):
    """The same millimetres in voxels of a grid with other axes."""
    field = smooth_field(any_grid)
    voxel = field.to_voxel(oblique_grid)[0].flip(0).permute(1, 2, 3, 0).double().numpy()
    np.testing.assert_allclose(voxel @ oblique_grid.ras_from_ijk[:3, :3].T, field.displacement_mm, atol=1e-4)


def test_a_linear_map_as_a_field(any_grid):
    matrix = np.eye(4)
    matrix[:3] = [[0.9, -0.2, 0.1, 3.0], [0.2, 1.1, 0.0, -4.0], [0.0, 0.1, 0.95, 1.0]]
    points = any_grid.points_ras()
    moved = points + DisplacementField.from_linear(matrix, any_grid).displacement_mm.double().numpy()
    np.testing.assert_allclose(moved, transform_points(matrix, points), atol=1e-5)
    assert float(DisplacementField.zero(any_grid).magnitude_mm().max()) == 0


def test_shape_is_checked():
    with pytest.raises(GeometryError, match="expected a displacement"):
        DisplacementField(torch.zeros(3, 4, 4, 4), Grid((4, 4, 4), np.eye(4)))


def test_compose_is_itk_composition(any_grid, smooth_field):
    outer, inner = smooth_field(any_grid, 1.0), smooth_field(any_grid, -0.8)
    composed = outer.compose(inner)
    # ITK's composite applies the transform that was added last first.
    oracle = sitk.CompositeTransform([itk_transform(outer), itk_transform(inner)])
    for d, h, w in [(7, 8, 10), (4, 5, 6), (9, 11, 13)]:
        point = any_grid.points_ras()[d, h, w]
        expected = np.array(oracle.TransformPoint((point * [-1, -1, 1]).tolist())) * [-1, -1, 1]
        np.testing.assert_allclose(point + composed.displacement_mm[d, h, w].numpy(), expected, atol=1e-4)
    assert (composed.displacement_mm - inner.compose(outer).displacement_mm).abs().max() > 1e-3


def test_compose_wants_one_grid(any_grid, smooth_field):
    with pytest.raises(GeometryError, match="one grid"):
        smooth_field(any_grid).compose(smooth_field(any_grid.padded(1)))


def test_on_grid_is_sitk_resampling(any_grid, smooth_field):
    field = smooth_field(any_grid)
    fine = any_grid.with_spacing((0.7, 0.7, 0.7))
    ours = field.on_grid(fine).displacement_mm.numpy()
    source = any_grid.to_itk(field.displacement_mm.numpy())
    theirs = sitk.GetArrayFromImage(sitk.Resample(source, fine.to_itk(), sitk.Transform(3, sitk.sitkIdentity)))
    np.testing.assert_allclose(ours[CORE], theirs[CORE], atol=1e-4)


def test_inverse_undoes_the_field_on_both_sides(any_grid, smooth_field):
    field = smooth_field(any_grid, 1.2)
    inverse = field.inverse()
    for both in (field.compose(inverse), inverse.compose(field)):
        assert both.magnitude_mm()[CORE].max() < 0.02
    assert field.magnitude_mm()[CORE].max() > 1


def test_inverse_is_sitk_inverse(smooth_field):
    grid = itk_grid((20, 22, 24), (1.1, 0.9, 1.3), (5.0, -8.0, 40.0))
    field = smooth_field(grid, 1.0)
    image = itk_transform(field).GetDisplacementField()
    theirs = sitk.GetArrayFromImage(
        sitk.InvertDisplacementField(image, maximumNumberOfIterations=50, maxErrorToleranceThreshold=1e-5,
                                     meanErrorToleranceThreshold=1e-6, enforceBoundaryCondition=False)
    ) * [-1, -1, 1]  # fmt: skip
    ours = field.inverse().displacement_mm.numpy()
    np.testing.assert_allclose(ours[5:-5, 5:-5, 5:-5], theirs[5:-5, 5:-5, 5:-5], atol=2e-3)


def test_jacobian_is_sitk_jacobian(smooth_field):
    # ITK's filter does not look at the direction of the image, so this one stands straight.
    grid = itk_grid((14, 16, 18), (1.1, 0.7, 1.6), (5.0, -8.0, 40.0))
    field = smooth_field(grid, 15.0)
    image = itk_transform(field).GetDisplacementField()
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))
    ours = field.jacobian_determinant().numpy()
    np.testing.assert_allclose(ours[1:-1, 1:-1, 1:-1], theirs[1:-1, 1:-1, 1:-1], atol=1e-5)
    assert theirs.std() > 0.01


def test_jacobian_of_a_matrix_is_its_determinant_in_every_orientation(any_grid):
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.1, 0.2, 0], [0.05, 0.9, -0.1], [0, 0.15, 1.2]]
    field = DisplacementField.from_linear(matrix, any_grid)
    expected = np.linalg.det(matrix[:3, :3])
    np.testing.assert_allclose(field.jacobian_determinant(), expected, atol=1e-4)


def test_folds_have_a_negative_jacobian(any_grid):
    points = any_grid.points_ras()
    mirrored = DisplacementField(torch.from_numpy(points * [-2.0, 0, 0]), any_grid)
    np.testing.assert_allclose(mirrored.jacobian_determinant(), -1, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 8, 9), (8, 1, 9), (8, 9, 1)])
def test_axes_of_one_voxel(shape):
    grid = Grid(shape, np.eye(4))
    field = DisplacementField(torch.full((*shape, 3), 0.5), grid)
    np.testing.assert_allclose(field.jacobian_determinant(), 1)
    assert field.inverse().displacement_mm.shape == (*shape, 3)
    torch.testing.assert_close(field.compose(field.inverse()).displacement_mm, torch.zeros(*shape, 3))


def test_relative_to_a_linear_map_is_what_it_leaves(any_grid, smooth_field):
    field = smooth_field(any_grid)
    linear = np.eye(4)
    linear[:3, :3] = [[0.9, -0.2, 0.1], [0.2, 1.1, 0.0], [0.0, 0.1, 0.95]]
    linear[:3, 3] = [3.0, -40.0, 12.0]
    points = any_grid.points_ras()
    rest = points + field.relative_to(linear).displacement_mm.double().numpy()
    found = rest @ linear[:3, :3].T + linear[:3, 3]
    np.testing.assert_allclose(found, points + field.displacement_mm.double().numpy(), atol=1e-4)
