"""Intensities that are none, padding, noise around the cone, and other units; see docs/reports.md."""

import numpy as np
import pytest
import torch

from MMRegCore.assessment.assess import assess
from MMRegCore.geometry import Grid
from MMRegCore.intensities import levelled, without_outliers, without_padding
from MMRegCore.segmentation.field_of_view import field_of_view_mask, with_field_of_view
from MMRegCore.volume import Volume
from scenes import box, scene, translation

SHAPE = (30, 32, 34)


def volume(values, name="mr") -> Volume:
    return Volume(torch.as_tensor(values, dtype=torch.float32)[None], Grid(tuple(values.shape), np.eye(4)), name=name)


@pytest.fixture
def texture():
    return np.random.default_rng(0).normal(100, 30, SHAPE).clip(1).astype(np.float32)


class TestOutliers:
    @pytest.mark.parametrize("value", [1e30, -1e30, 1e12, 3e38])
    @pytest.mark.parametrize("factor", [1, 1e-12, 1e6])
    def test_a_voxel_out_of_all_proportion(self, texture, value, factor):
        texture[4, 5, 6] = value
        scaled = (texture.astype(np.float64) * factor).clip(-3e38, 3e38)
        found = without_outliers(volume(scaled))
        assert [*map(int, (~found.foreground).nonzero()[0])] == [4, 5, 6]
        assert found.reading.warnings[0].startswith("1 voxels lie out of all proportion")

    @pytest.mark.parametrize("make", [lambda t: t, lambda t: t > 150, lambda t: np.where(t > 190, t, 0)])
    def test_images_as_they_are(self, texture, make):
        image = volume(make(texture).astype(np.float32))
        assert without_outliers(image) is image
        assert without_padding(image) is image

    @pytest.mark.parametrize("value", [7.0, np.nan])
    def test_nothing_to_compare_with(self, value):
        image = volume(np.full(SHAPE, value, np.float32))
        assert without_outliers(image) is image


class TestPadding:
    @pytest.mark.parametrize("value", [-32768, -9999, 1e30, -1e30])
    def test_padding_far_from_all_others(self, texture, value):
        padded = np.full((40, 42, 44), value, np.float32)
        padded[5:35, 5:37, 5:39] = texture
        found = without_padding(without_outliers(volume(padded)))
        np.testing.assert_array_equal(found.foreground, padded != np.float32(value))
        assert "padding" in found.reading.warnings[0]

    @pytest.mark.parametrize("value", [0, 1, 255])
    def test_a_background_beside_the_others_is_kept(self, texture, value):
        padded = np.full((40, 42, 44), value, np.float32)
        padded[5:35, 5:37, 5:39] = texture
        image = volume(padded)
        assert without_padding(image) is image


class TestFieldOfView:
    @pytest.fixture
    def cone(self):
        """Bright content with a speckle of its own in a ball, and 0 outside."""
        d, h, w = np.ogrid[:40, :40, :40]
        inside = (d - 20) ** 2 + (h - 20) ** 2 + (w - 20) ** 2 < 15**2
        return inside, np.where(inside, np.random.default_rng(0).uniform(40, 255, inside.shape), 0).astype(np.float32)

    def agrees(self, image, inside):
        found = field_of_view_mask(volume(image)).numpy()
        assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.97

    def test_noise_around_the_cone(self, cone):
        inside, image = cone
        self.agrees(np.where(inside, image, np.random.default_rng(1).integers(0, 4, image.shape)), inside)

    @pytest.mark.parametrize("thickness", [1, 2])
    def test_a_white_frame(self, cone, thickness):
        inside, image = cone
        framed = np.full_like(image, 255)
        inner = (slice(thickness, -thickness),) * 3
        framed[inner] = image[inner]
        self.agrees(framed, inside)

    @pytest.mark.parametrize("scale", [1e-12, 1, 1e12])
    @pytest.mark.parametrize("offset", [0, 5])
    def test_the_unit_does_not_matter(self, cone, scale, offset):
        inside, image = cone
        noisy = np.where(inside, image, np.random.default_rng(1).integers(0, 4, image.shape))
        self.agrees(((noisy + offset) * scale).astype(np.float32), inside)

    def test_an_image_without_a_cone_gets_a_word(self, texture):
        found = with_field_of_view(volume(texture, "us"))
        assert bool(found.mask.all())
        assert "give its mask" in found.reading.warnings[0]


@pytest.mark.parametrize("scale", [1e-12, 1e12, 3.0])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_levels_do_not_depend_on_the_unit(texture, scale, offset):
    image, everywhere = torch.from_numpy(texture)[None], torch.ones(SHAPE, dtype=torch.bool)
    one, two = levelled(image, everywhere), levelled((image.double() * scale + offset * scale).float(), everywhere)
    ratio = float(two.mean() / one.mean())
    assert 0.5 <= ratio <= 2
    torch.testing.assert_close(two / ratio, one, rtol=1e-3, atol=1e-2)
    assert 64 <= float(one.mean()) <= 128


@pytest.mark.parametrize(("scale", "offset"), [(1e-12, 0.0), (1e12, 0.0), (1.0, 500.0), (-1e3, 0.0)])
def test_quality_numbers_do_not_depend_on_the_unit(scale, offset):
    grid = box((24, 26, 28), 1.5)
    fixed, moving = scene(grid, name="us"), scene(grid, lambda p: p + np.array([1.0, 0, 0]), inverted=True, name="mr")

    def numbers(of):
        changed = of.with_data((of.data.double() * scale + offset * scale).float())
        quality = assess(fixed, [changed], translation((1.0, 0, 0))).quality
        return quality.moving[0]

    one, two = assess(fixed, [moving], translation((1.0, 0, 0))).quality.moving[0], numbers(moving)
    for name in ("mind_distance_before", "mind_distance_after", "nmi_before", "nmi_after", "coverage_after"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), rel=2e-3), name
