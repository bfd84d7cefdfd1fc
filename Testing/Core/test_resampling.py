"""Images brought onto other grids, against SimpleITK and against functions that are known everywhere."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from grids import itk_grid
from MMRegCore.geometry import Grid, lps_from_ras_matrix
from MMRegCore.ops import positions_between
from MMRegCore.resampling import resample, resample_smoothed, smooth_for
from MMRegCore.volume import Volume

TARGET = itk_grid((15, 13, 11), (1.3, 0.9, 1.2), (10.0, -25.0, 52.0))


@pytest.mark.parametrize(
    ("mode", "interpolator"), [("bilinear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)]
)
def test_resample_is_sitk_resample(any_grid, smooth_volume, mode, interpolator):
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
    source = any_grid.to_itk(volume.data[0].numpy())
    theirs = sitk.GetArrayFromImage(sitk.Resample(source, TARGET.to_itk(), affine, interpolator, 0.0, sitk.sitkFloat32))

    positions = positions_between(any_grid, TARGET, matrix)[0].numpy()
    limit = np.reshape(any_grid.shape, (3, 1, 1, 1)) - 1
    core = ((positions > 0.01) & (positions < limit - 0.01)).all(axis=0)
    if mode == "nearest":  # at half-way voxels either neighbour is right
        core &= (np.abs(positions % 1 - 0.5) > 1e-3).all(axis=0)
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


def test_an_axis_of_one_voxel_is_sampled():
    volume = Volume(torch.rand(1, 1, 6, 7), Grid((1, 6, 7), np.eye(4)))
    torch.testing.assert_close(resample(volume, volume.grid), volume.data, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_grid_as_fine_needs_no_smoothing(any_grid, smooth_volume, factor):
    image = smooth_volume(any_grid).data
    assert smooth_for(image, any_grid, any_grid.with_spacing(factor * any_grid.spacing_mm)) is image


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_axes_that_become_coarser_are_smoothed(any_grid, axis):
    """An image that varies along one axis of the tensor keeps its values, unless that axis becomes coarser."""
    noise = torch.rand(any_grid.shape[axis], generator=torch.Generator().manual_seed(0))
    image = noise.reshape([1, *(-1 if a == axis else 1 for a in range(3))]).expand(1, *any_grid.shape)
    factors = np.ones(3)
    factors[2 - axis] = 3.0
    along = smooth_for(image, any_grid, any_grid.with_spacing(factors * any_grid.spacing_mm))
    across = smooth_for(image, any_grid, any_grid.with_spacing(factors[[1, 2, 0]] * any_grid.spacing_mm))
    assert float(along.std()) < 0.6 * float(image.std())
    torch.testing.assert_close(across, image, atol=1e-5, rtol=0)


def test_what_a_coarse_grid_cannot_hold_is_averaged_and_outside_is_zero(any_grid):
    noise = Volume(torch.rand(1, *any_grid.shape, generator=torch.Generator().manual_seed(0)) + 1, any_grid)
    coarse = any_grid.padded(6).with_spacing((4.0, 4.0, 4.0))
    smoothed, plain = resample_smoothed(noise, coarse)[0], resample(noise, coarse, padding_mode="zeros")[0]
    centre = tuple(n // 2 for n in coarse.shape)
    core = tuple(slice(n - 1, n + 2) for n in centre)
    assert float(smoothed[core].std()) < 0.5 * float(plain[core].std())
    assert float(smoothed[core].mean()) == pytest.approx(1.5, abs=0.1)
    assert float(smoothed[0, 0, 0]) == 0
