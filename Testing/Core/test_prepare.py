"""The working grid, foregrounds and checks, on synthetic images."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore import prepare as module
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid, transform_points
from MMRegCore.prepare import SMALLEST_AXIS, Prepared, check_image, crop_to_foreground, prepare
from MMRegCore.segmentation.field_of_view import with_field_of_view
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Channel, Volume
from phantoms import cone, textured, volume_of

IDENTITY = SpatialTransform.identity()


def prepared(fixed: Volume, *moving: Volume, initial: SpatialTransform = IDENTITY, **changes) -> Prepared:
    options = {"spacing_mm": "auto", "masked": True, "margin_mm": 4.0, **changes}
    return prepare(with_field_of_view(fixed), moving or (fixed,), initial, **options)


def counted(pair: Prepared) -> torch.Tensor:
    """(D, H, W) bool: where the fixed and the first moving image count."""
    return pair.weights[0][0, 0] > 0


class TestWorkingGrid:
    def test_native_is_the_fixed_grid(self, oblique_grid, smooth_volume):
        volume = smooth_volume(oblique_grid)
        assert prepared(volume, spacing_mm="native", masked=False).grid.matches(oblique_grid)

    def test_isotropic_oblique_and_around_the_mask(self, any_grid, smooth_volume):
        volume = smooth_volume(any_grid)
        mask = torch.zeros(any_grid.shape, dtype=torch.bool)
        mask[3:10, 4:14, 5:17] = True
        grid = prepared(volume.with_mask(mask), spacing_mm=0.9).grid
        assert grid.spacing_mm == pytest.approx([0.9] * 3)
        cosines = (grid.ras_from_ijk[:3, :3] / grid.spacing_mm).T @ (
            any_grid.ras_from_ijk[:3, :3] / any_grid.spacing_mm
        )
        assert cosines == pytest.approx(np.eye(3), abs=1e-6)
        points = any_grid.points_ras()[mask.numpy()]
        ijk = np.c_[points, np.ones(len(points))] @ grid.ijk_from_ras.T
        assert (ijk[:, :3] > -0.5).all()
        assert (ijk[:, :3] < np.array(grid.itk_size) - 0.5).all()

    def test_large_images_are_worked_on_coarsely(self, monkeypatch):
        image = textured(torch.ones(40, 40, 40, dtype=torch.bool), 0)
        volume = volume_of(image, spacing=0.05)
        assert prepared(volume).grid.spacing_mm == pytest.approx([0.05 * 40 / SMALLEST_AXIS] * 3)
        monkeypatch.setattr(module, "MOST_VOXELS", 100_000)
        wide = Volume(image[None], Grid((40, 40, 40), np.diag([6.0, 6.0, 0.5, 1.0])), name="wide")
        assert np.prod(prepared(wide).grid.shape) <= 1.1 * 100_000

    def test_margin_only_where_a_moving_image_reaches(self):
        mask = torch.zeros(30, 30, 30, dtype=torch.bool)
        mask[10:20, 10:20, 10:20] = True
        fixed = volume_of(textured(torch.ones_like(mask), 0), mask=mask)
        shifted = Grid((30, 30, 30), np.array([[1.0, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        moving = Volume(fixed.data, shifted, name="mr")
        grid = prepared(fixed, moving, margin_mm=5.0, spacing_mm=1.0).grid
        low, high = grid.corners_ras().min(axis=0), grid.corners_ras().max(axis=0)
        assert low == pytest.approx([10.0, 5.0, 5.0])
        assert high == pytest.approx([24.0, 24.0, 24.0])

    def test_smooth_images_survive_the_change_of_grid(self, any_grid, smooth_volume):
        volume = smooth_volume(any_grid)
        result = prepared(volume, spacing_mm=1.0, margin_mm=0.0)
        expected = smooth_volume(result.grid).data
        for channel in (result.fixed, result.moving[0]):
            assert float((channel.image[0] - expected)[0][counted(result)].abs().max()) < 0.1


class TestPrepare:
    def test_outside_the_mask_nothing_counts_and_the_edge_is_replicated(self):
        mask = cone()
        result = prepared(volume_of(textured(mask, -1024.0)), spacing_mm=1.0)
        weight = result.fixed.weight[0, 0]
        assert set(weight.unique().tolist()) == {0.0, 1.0}
        assert 0.6 * int(mask.sum()) < float(weight.sum()) <= 1.02 * int(mask.sum())
        assert float(result.fixed.image.min()) >= 1.0

    def test_unmasked_work_takes_the_images_as_they_are(self):
        volume = volume_of(textured(cone(), 0.0))
        result = prepared(volume, spacing_mm="native", masked=False)
        assert not result.masked
        for channel in (result.fixed, result.moving[0]):
            assert bool((channel.weight == 1).all())
            assert torch.allclose(channel.image[0], volume.data, atol=0.01)  # grid_sample's coordinates are float32

    def test_nan_and_infinite_voxels_do_not_count(self):
        image = textured(torch.ones(24, 24, 24, dtype=torch.bool), 0)
        holes = image.clone()
        holes[8:12, 8:12, 8:12], holes[15, 15, 15] = torch.nan, -torch.inf
        result = prepared(volume_of(holes), volume_of(holes, name="mr"), spacing_mm=1.0, margin_mm=0.0)
        for channel in (result.fixed, result.moving[0]):
            assert bool(torch.isfinite(channel.image).all())
            assert not channel.weight[0, 0, 8:12, 8:12, 8:12].any()
            assert not channel.weight[0, 0, 15, 15, 15]
            assert bool(channel.weight[0, 0, 18:22, 18:22, 18:22].all())

    def test_linear_and_nonlinear_initial_transforms_agree(self, oblique_grid, smooth_volume):
        volume = smooth_volume(oblique_grid)
        matrix = np.eye(4)
        matrix[:3, 3] = [1.5, -2.0, 0.7]
        linear = SpatialTransform.from_matrix(matrix)
        composite = SpatialTransform(
            sitk.CompositeTransform([linear.itk, _field_transform(oblique_grid, np.zeros((*oblique_grid.shape, 3)))])
        )
        results = [prepared(volume, initial=initial) for initial in (linear, composite)]
        assert not composite.is_linear
        assert torch.allclose(results[0].moving[0].image, results[1].moving[0].image, atol=1e-3)

    def test_nonlinear_initial_transform_moves_the_image_as_it_says(self, oblique_grid, smooth_volume):
        volume = smooth_volume(oblique_grid)
        initial = SpatialTransform(_wave(oblique_grid))
        result = prepared(volume, initial=initial, spacing_mm=1.2)
        core = counted(result)
        points = initial.apply(result.grid.points_ras()[core.numpy()])
        x, y, z = points.T
        expected = np.sin(x / 9) + np.cos(y / 7 + 0.3) * np.sin(z / 8) + 0.02 * x
        assert np.abs(result.moving[0].image[0, 0][core].numpy() - expected).max() < 0.1

    def test_inputs_are_not_altered(self):
        volume = volume_of(textured(cone(), 0.0))
        volume.data[0, 20, 20, 20] = torch.nan
        before = volume.data.clone()
        prepared(volume, volume)
        assert torch.equal(torch.nan_to_num(volume.data, nan=-1), torch.nan_to_num(before, nan=-1))


class TestPrepared:
    def test_where_all_images_count_and_on_another_device(self):
        ones = torch.ones(1, 1, 8, 8, 8)
        halves = [ones.clone(), ones.clone()]
        halves[0][..., :4], halves[1][..., 4:, :] = 0, 0
        channels = tuple(Channel(ones, weight) for weight in halves)
        pair = Prepared(Grid((8, 8, 8), np.diag([0.7, 0.7, 0.7, 1.0])), channels[0], (Channel(ones, ones), channels[1]))
        assert pair.spacing_mm == pytest.approx(0.7)
        assert torch.equal(pair.weights[0], halves[0])
        assert torch.equal(pair.weights[1], halves[0] * halves[1])
        elsewhere = pair.to(torch.device("meta"))
        assert {c.image.device.type for c in (elsewhere.fixed, *elsewhere.moving)} == {"meta"}
        assert elsewhere.masked


class TestCropToForeground:
    @pytest.mark.parametrize("margin_mm", [0.0, 3.0, 500.0])
    def test_the_part_keeps_its_place(self, any_grid, smooth_field, margin_mm):
        weight = torch.zeros(any_grid.shape)
        weight[3:13, 4:14, 5:17] = 1
        field, part = crop_to_foreground(smooth_field(any_grid), weight, margin_mm)
        assert float(part.sum()) == float(weight.sum())
        low = np.rint(transform_points(any_grid.ijk_from_ras, field.grid.points_ras()[0, 0, 0])).astype(int)[::-1]
        place = tuple(slice(a, a + n) for a, n in zip(low, field.grid.shape, strict=True))
        np.testing.assert_allclose(field.grid.points_ras(), any_grid.points_ras()[place], atol=1e-9)
        assert torch.equal(field.displacement_mm, smooth_field(any_grid).displacement_mm[place])
        pad = int(np.ceil(margin_mm / 0.8))
        wanted = [min(high + pad, n) - max(low - pad, 0) for (low, high), n in
                  zip(((3, 13), (4, 14), (5, 17)), any_grid.shape, strict=True)]  # fmt: skip
        assert list(field.grid.shape) == wanted

    def test_it_is_never_smaller_than_a_neighbourhood(self, any_grid):
        weight = torch.zeros(any_grid.shape)
        weight[0, 8, 19] = 1
        field, part = crop_to_foreground(DisplacementField.zero(any_grid), weight, 0.0)
        assert min(field.grid.shape) == SMALLEST_AXIS
        assert float(part.sum()) == 1


class TestBadInput:
    def test_no_overlap_says_how_far_apart(self):
        fixed = volume_of(textured(torch.ones(20, 20, 20, dtype=torch.bool), 0))
        away = Grid((20, 20, 20), np.array([[1.0, 0, 0, 50], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        with pytest.raises(GeometryError, match=r"to overlap .*; got 31 mm between them \(50 mm between"):
            prepared(fixed, Volume(fixed.data, away, name="mr"))

    def test_no_foreground(self):
        with pytest.raises(InputError, match="content in 'us'; found no voxel that differs"):
            prepared(volume_of(torch.full((12, 12, 12), 3.0)))

    @pytest.mark.parametrize("place", [20, 22])
    def test_mask_smaller_than_a_voxel_of_the_working_grid(self, place):
        """Between two of them, or within one."""
        mask = torch.zeros(40, 40, 40, dtype=torch.bool)
        mask[place, place, place] = True
        with pytest.raises(InputError, match=r"a mask of 'us' that holds voxels of the working grid \(4 mm\)"):
            prepared(volume_of(torch.rand(40, 40, 40), mask=mask), spacing_mm=4.0)

    @pytest.mark.parametrize(
        ("image", "mask", "message"),
        [
            (torch.full((12, 12, 12), 5.0), None, "structure in 'us'; got the constant 5"),
            (torch.full((12, 12, 12), torch.nan), None, "only NaN or infinite"),
            (torch.rand(12, 12, 1), None, "at least 8 voxels along every axis of 'us'; got 1 × 12 × 12"),
            (torch.rand(12, 12, 12), torch.zeros(12, 12, 12), "got an empty one"),
        ],
    )
    def test_unusable_images(self, image, mask, message):
        with pytest.raises(InputError, match=message):
            check_image(volume_of(image, mask=mask))

    def test_mask_on_a_part_that_is_not_finite(self):
        image = torch.rand(12, 12, 12)
        image[:6] = torch.nan
        mask = torch.zeros(12, 12, 12)
        mask[:6] = 1
        with pytest.raises(InputError, match="only NaN or infinite"):
            check_image(volume_of(image, mask=mask))

    def test_two_values_per_voxel(self):
        image = torch.rand(2, 12, 12, 12)
        with pytest.raises(InputError, match="one value per voxel in 'two'; got 2"):
            check_image(Volume(image, Grid((12, 12, 12), np.eye(4)), name="two"))

    def test_good_images_pass(self):
        image = torch.rand(12, 12, 12)
        image[0] = torch.nan
        check_image(volume_of(image))


def _field_transform(grid: Grid, displacement_lps: np.ndarray) -> sitk.Transform:
    return sitk.DisplacementFieldTransform(grid.to_itk(displacement_lps))


def _wave(grid: Grid) -> sitk.Transform:
    """A displacement field transform around ``grid``."""
    padded = grid.padded(4)
    x, y, z = np.moveaxis(padded.points_ras(), -1, 0)
    return _field_transform(padded, np.stack([1.5 * np.sin(y / 15), np.cos(z / 12), 2.0 * np.sin(x / 14)], axis=-1))
