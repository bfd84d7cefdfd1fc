import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore.geometry import Grid, lps_from_ras_matrix
from MMRegCore.volume import Volume
from MMRegCore.warp import inside, resample, resampling_coordinates, sample, voxel_coordinates, warp

TARGET = Grid.from_itk((15, 13, 11), (1.3, 0.9, 1.2), (10.0, -25.0, 52.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3))
def test_zero_displacement_changes_nothing(shape):
    image = noise(1, 2, *shape)
    torch.testing.assert_close(warp(image, torch.zeros(1, 3, *shape)), image, atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(shift=st.tuples(*[st.integers(-2, 2)] * 3))
def test_whole_voxel_translation_is_a_shift(shift):
    image = noise(1, 1, 9, 10, 11)
    field = torch.tensor(shift, dtype=torch.float32).reshape(1, 3, 1, 1, 1).expand(1, 3, 9, 10, 11)
    expected = torch.roll(image, [-s for s in shift], (2, 3, 4))
    core = (..., slice(2, -2), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(warp(image, field)[core], expected[core], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_flipping_the_axes_commutes_with_warping(axis):
    image, field = noise(1, 1, 6, 7, 8), 3 * noise(1, 3, 6, 7, 8) - 1.5
    flipped = field.flip(axis)
    flipped[:, axis - 2] *= -1
    torch.testing.assert_close(warp(image.flip(axis), flipped), warp(image, field).flip(axis), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("mode", "interpolator"), [("bilinear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)]
)
def test_resample_is_sitk_resample(any_grid, itk_on, smooth_volume, mode, interpolator):
    matrix = np.eye(4)
    angle = np.deg2rad(7)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    # Moves the middle of the target near the middle of the source, and some of it outside.
    matrix[:3, 3] = any_grid.centre_ras - matrix[:3, :3] @ TARGET.centre_ras + [3.03, -2.01, 1.07]
    volume = smooth_volume(any_grid)
    ours = resample(volume, TARGET, matrix, mode=mode, padding_mode="zeros")[0].numpy()

    matrix_lps = lps_from_ras_matrix(matrix)
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix_lps[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix_lps[:3, 3].tolist())
    source = itk_on(any_grid, volume.data[0].numpy())
    theirs = sitk.GetArrayFromImage(sitk.Resample(source, itk_on(TARGET), affine, interpolator, 0.0))

    coordinates = resampling_coordinates(any_grid, TARGET, matrix)[0].numpy()
    limit = np.array(any_grid.itk_size) - 1
    core = ((coordinates > 0.01) & (coordinates < limit - 0.01)).all(axis=-1)
    if mode == "nearest":  # at half-way voxels either neighbour is right
        core &= (np.abs(coordinates % 1 - 0.5) > 1e-3).all(axis=-1)
    assert core.mean() > 0.2
    np.testing.assert_allclose(ours[core], theirs[core], atol=2e-5)


def test_wrong_direction_would_be_noticed(any_grid, smooth_volume):
    """The comparison above is worth something only if the inverse matrix gives other values."""
    matrix = np.eye(4)
    matrix[:3, 3] = any_grid.centre_ras - TARGET.centre_ras + [3, -2, 1]
    inverse = np.linalg.inv(matrix)
    volume = smooth_volume(any_grid)
    assert (resample(volume, TARGET, matrix) - resample(volume, TARGET, inverse)).abs().max() > 0.1


def test_resampling_between_grids_of_one_function(any_grid, smooth_volume):
    """Sampling a smooth function on a finer grid of the same box gives the function there."""
    fine = any_grid.with_spacing((0.6, 0.6, 0.6))
    expected = smooth_volume(fine).data[0]
    got = resample(smooth_volume(any_grid), fine)[0]
    assert (got - expected)[3:-3, 3:-3, 3:-3].abs().max() < 0.01


def test_border_and_zeros_outside():
    image = torch.ones(1, 1, 4, 4, 4)
    far = torch.full((1, 1, 1, 1, 3), 40.0)
    assert float(sample(image, far)) == 1
    assert float(sample(image, far, padding_mode="zeros")) == 0


def test_an_axis_of_one_voxel_is_sampled():
    volume = Volume(noise(1, 1, 6, 7), Grid((1, 6, 7), np.eye(4)))
    torch.testing.assert_close(resample(volume, volume.grid), volume.data, atol=1e-5, rtol=0)


def test_inside_reaches_to_the_outer_faces():
    points = torch.tensor([[0.0, 0, 0], [-0.5, 0, 0], [-0.6, 0, 0], [3.5, 2.5, 1.5], [3.5, 2.5, 1.6]])
    expected = [True, True, False, True, False]
    assert inside(points.reshape(1, 1, 1, 5, 3), (2, 3, 4)).flatten().tolist() == expected
    assert inside(voxel_coordinates((2, 3, 4)), (2, 3, 4)).all()


def test_warp_passes_gradients():
    image = noise(1, 1, 4, 5, 4).double().requires_grad_()
    # Off the voxel centres, where trilinear sampling has a kink.
    field = (0.3 + 0.2 * noise(1, 3, 4, 5, 4).double()).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, field), atol=1e-4)
