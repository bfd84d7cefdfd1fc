"""Field-of-view masks, edges carried on, the working grid, on synthetic cones and on every real ultrasound volume."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore import preprocess
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io import read_volume
from MMRegCore.preprocess import (
    SMALLEST_AXIS,
    field_of_view_mask,
    prepare,
    replicate_edge,
    with_field_of_view,
)
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

RESECT_CASES = (1, 4, 5, 6, 8, 12, 14, 15, 16, 18, 23, 24, 25, 26, 27)
IDENTITY = SpatialTransform.identity()


def cone(size: int = 40) -> torch.Tensor:
    """(D, H, W) bool: a cone with its tip near one face, all of it away from the border."""
    d, h, w = np.meshgrid(*(np.arange(size),) * 3, indexing="ij")
    radius = np.hypot(h - size / 2, w - size / 2)
    return torch.from_numpy((d > 4) & (d < size - 4) & (radius < 3 + 0.35 * d))


def textured(mask: torch.Tensor, background: float, seed: int = 0) -> torch.Tensor:
    """(D, H, W): noise from 1 to 100 in the mask, ``background`` elsewhere."""
    noise = torch.from_numpy(np.random.default_rng(seed).uniform(1, 100, tuple(mask.shape))).float()
    return torch.where(mask, noise, torch.tensor(float(background)))


def volume_of(data: torch.Tensor, spacing: float = 1.0, mask: torch.Tensor | None = None, name: str = "us") -> Volume:
    return Volume(data[None], Grid(tuple(data.shape), np.diag([spacing] * 3 + [1.0])), mask, name)


def prepared(fixed: Volume, *moving: Volume, initial: SpatialTransform = IDENTITY, **changes):
    options = {"spacing_mm": "auto", "masked": True, "margin_mm": 4.0, **changes}
    return prepare(fixed, moving or (fixed,), initial, **options)


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    image = sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), [radius] * 3, sitk.sitkBall)
    return sitk.GetArrayFromImage(image) > 0


class TestFieldOfView:
    @pytest.mark.parametrize("case", RESECT_CASES)
    def test_real_ultrasound(self, shared_data, case):
        volume = read_volume(shared_data / "resect" / f"Case{case}_US_0.5mm.nii.gz")
        image, mask = volume.data[0].numpy(), field_of_view_mask(volume).numpy()
        content = image != 0
        # What echoes is inside, but for specks off the cone.
        assert (content & ~mask).sum() <= 5
        # Zeros enclosed by echoes, and thin shadows, are inside too.
        enclosed = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(content.astype(np.uint8)))) > 0
        assert mask[enclosed & ~content].all()
        # What is far from every echo is outside, and the mask stays a cone's share of the box.
        assert not mask[~dilated(content, 4)].any()
        assert 0.2 < mask.mean() < 0.4
        assert (image[mask] == 0).mean() < 0.05

    def test_dark_ventricle_in_a_real_volume_stays_inside(self, case24):
        volume = read_volume(case24["us"])
        mask = field_of_view_mask(volume)
        d, h, w = (round(float(v)) for v in mask.nonzero().double().mean(dim=0))
        dark = volume.data.clone()
        dark[0, d - 6 : d + 6, h - 6 : h + 6, w - 6 : w + 6] = 0
        assert bool((field_of_view_mask(volume.with_data(dark)) == mask).all())

    @pytest.mark.parametrize("background", [0.0, -1024.0, 255.0, 0.1])
    def test_cone_on_any_background(self, background):
        mask = cone()
        found = field_of_view_mask(volume_of(textured(mask, background)))
        assert bool(found[mask].all())
        assert int((found & ~mask).sum()) < 0.02 * int(mask.sum())

    def test_image_without_background_is_content_everywhere(self):
        image = textured(torch.ones(20, 20, 20, dtype=torch.bool), 0)
        assert bool(field_of_view_mask(volume_of(image)).all())

    def test_voxels_that_are_not_finite_are_no_content(self):
        mask = cone()
        image = textured(mask, 0)
        image[20, 20, 20], image[21, 20, 20] = torch.nan, torch.inf
        found = field_of_view_mask(volume_of(image))
        assert not found[20:22, 20, 20].any()
        assert int((mask & ~found).sum()) == 2

    def test_background_of_nan(self):
        mask = cone()
        found = field_of_view_mask(volume_of(textured(mask, torch.nan)))
        assert bool((found == mask).all())

    def test_specks_are_left_out_but_a_second_half_is_not(self):
        mask = torch.zeros(30, 30, 60, dtype=torch.bool)
        mask[8:22, 8:22, 5:20] = mask[8:22, 8:22, 35:55] = True
        image = textured(mask, 0)
        image[2, 2, 28] = 50
        assert bool((field_of_view_mask(volume_of(image)) == mask).all())

    def test_constant_image_has_no_content(self):
        assert not field_of_view_mask(volume_of(torch.full((12, 12, 12), 3.0))).any()

    def test_mask_that_is_given_is_kept(self):
        mask = torch.zeros(40, 40, 40, dtype=torch.bool)
        mask[10:20, 10:20, 10:20] = True
        volume = volume_of(textured(cone(), 0))
        assert bool((with_field_of_view(volume.with_mask(mask)).mask == mask).all())
        assert bool((with_field_of_view(volume).mask == field_of_view_mask(volume)).all())


class TestReplicateEdge:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0.02, 0.6))
    def test_against_brute_force(self, seed, share):
        random = np.random.default_rng(seed)
        shape = tuple(random.integers(3, 8, 3))
        mask = random.random(shape) < share
        mask.flat[random.integers(mask.size)] = True
        image = torch.arange(float(mask.size)).reshape(shape)
        result = replicate_edge(image, torch.from_numpy(mask))
        inside = np.argwhere(mask)
        for place in np.ndindex(*shape):
            origin = np.array(np.unravel_index(int(result[place]), shape))
            # Nearest voxels can tie, and Danielsson's map may be off by a part of a voxel where many compete.
            smallest = np.linalg.norm(inside - place, axis=1).min()
            assert mask[tuple(origin)]
            assert np.linalg.norm(origin - place) < smallest + 1

    def test_inside_nothing_changes(self):
        mask = cone(24)
        image = textured(mask, 0)
        result = replicate_edge(image, mask)
        assert bool((result[mask] == image[mask]).all())
        assert float(result.min()) >= 1
        full = torch.ones_like(mask)
        assert replicate_edge(image, full) is image


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
        monkeypatch.setattr(preprocess, "MOST_VOXELS", 100_000)
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
        core = (result.fixed_weight[0, 0] > 0) & (result.moving_weight[0][0, 0] > 0)
        assert float((result.moving[0][0] - expected)[0][core].abs().max()) < 0.1
        assert float((result.fixed[0] - expected)[0][core].abs().max()) < 0.1


class TestPrepare:
    def test_outside_the_mask_there_is_no_evidence_and_no_edge(self):
        mask = cone()
        result = prepared(volume_of(textured(mask, -1024.0)), spacing_mm=1.0)
        weight = result.fixed_weight[0, 0]
        assert set(weight.unique().tolist()) == {0.0, 1.0}
        assert 0.6 * int(mask.sum()) < float(weight.sum()) <= 1.02 * int(mask.sum())
        assert float(result.fixed.min()) >= 1.0

    def test_unmasked_work_takes_the_images_as_they_are(self):
        volume = volume_of(textured(cone(), 0.0))
        result = prepared(volume, spacing_mm="native", masked=False)
        assert bool((result.fixed_weight == 1).all())
        for values in (result.fixed[0], result.moving[0][0]):
            assert torch.allclose(values, volume.data, atol=0.01)  # grid_sample's coordinates are float32

    def test_nan_and_infinite_voxels_are_no_evidence(self):
        image = textured(torch.ones(24, 24, 24, dtype=torch.bool), 0)
        holes = image.clone()
        holes[8:12, 8:12, 8:12], holes[15, 15, 15] = torch.nan, -torch.inf
        result = prepared(volume_of(holes), volume_of(holes, name="mr"), spacing_mm=1.0, margin_mm=0.0)
        for values, weight in ((result.fixed, result.fixed_weight), (result.moving[0], result.moving_weight[0])):
            assert bool(torch.isfinite(values).all())
            assert not weight[0, 0, 8:12, 8:12, 8:12].any()
            assert not weight[0, 0, 15, 15, 15]
            assert bool(weight[0, 0, 18:22, 18:22, 18:22].all())

    def test_linear_and_nonlinear_start_agree(self, oblique_grid, smooth_volume):
        volume = smooth_volume(oblique_grid)
        matrix = np.eye(4)
        matrix[:3, 3] = [1.5, -2.0, 0.7]
        linear = SpatialTransform.from_matrix(matrix)
        composite = SpatialTransform(
            sitk.CompositeTransform([linear.itk, sitk.DisplacementFieldTransform(_still(oblique_grid))])
        )
        results = [prepared(volume, initial=start) for start in (linear, composite)]
        assert not composite.is_linear
        assert torch.allclose(results[0].moving[0], results[1].moving[0], atol=1e-3)

    def test_nonlinear_start_moves_the_image_as_it_says(self, oblique_grid, smooth_volume):
        volume = smooth_volume(oblique_grid)
        start = SpatialTransform(_wave(oblique_grid))
        result = prepared(volume, initial=start, spacing_mm=1.2)
        core = (result.fixed_weight[0, 0] > 0) & (result.moving_weight[0][0, 0] > 0)
        points = start.apply(result.grid.points_ras()[core.numpy()])
        x, y, z = points.T
        expected = np.sin(x / 9) + np.cos(y / 7 + 0.3) * np.sin(z / 8) + 0.02 * x
        assert np.abs(result.moving[0][0, 0][core].numpy() - expected).max() < 0.1

    def test_inputs_are_not_altered(self):
        volume = volume_of(textured(cone(), 0.0))
        volume.data[0, 20, 20, 20] = torch.nan
        before = volume.data.clone()
        prepared(volume, volume)
        assert torch.equal(torch.nan_to_num(volume.data, nan=-1), torch.nan_to_num(before, nan=-1))


class TestBadInput:
    def test_no_overlap_says_how_far_apart(self):
        fixed = volume_of(textured(torch.ones(20, 20, 20, dtype=torch.bool), 0))
        away = Grid((20, 20, 20), np.array([[1.0, 0, 0, 50], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        with pytest.raises(GeometryError, match=r"to overlap .*; got 31 mm between them \(50 mm between"):
            prepared(fixed, Volume(fixed.data, away, name="mr"))

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
            prepared(volume_of(image, mask=mask))

    def test_mask_on_a_part_that_is_not_finite(self):
        image = torch.rand(12, 12, 12)
        image[:6] = torch.nan
        mask = torch.zeros(12, 12, 12)
        mask[:6] = 1
        with pytest.raises(InputError, match="only NaN or infinite"):
            prepared(volume_of(image, mask=mask))

    def test_two_values_per_voxel(self):
        image = torch.rand(2, 12, 12, 12)
        with pytest.raises(InputError, match="one value per voxel in 'two'; got 2"):
            prepared(Volume(image, Grid((12, 12, 12), np.eye(4)), name="two"))


def _still(grid: Grid) -> sitk.Image:
    """A displacement field of zeros."""
    image = sitk.Image(grid.itk_size, sitk.sitkVectorFloat64, 3)
    image.SetOrigin(grid.itk_origin_lps)
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetDirection(grid.itk_direction_lps)
    return image


def _wave(grid: Grid) -> sitk.Transform:
    """A displacement field transform around ``grid``, LPS."""
    padded = grid.padded(4)
    x, y, z = np.moveaxis(padded.points_ras(), -1, 0)
    values = np.stack([1.5 * np.sin(y / 15), np.cos(z / 12), 2.0 * np.sin(x / 14)], axis=-1)
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetOrigin(padded.itk_origin_lps)
    image.SetSpacing(padded.spacing_mm.tolist())
    image.SetDirection(padded.itk_direction_lps)
    return sitk.DisplacementFieldTransform(image)
