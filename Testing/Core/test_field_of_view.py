"""Field-of-view masks and replicated edges, on synthetic cones and on every real ultrasound volume."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore.io.volumes import read_volume
from MMRegCore.segmentation.field_of_view import field_of_view_mask, replicate_edge, with_field_of_view
from phantoms import cone, textured, volume_of

pytestmark = pytest.mark.slow

RESECT_CASES = (1, 4, 5, 6, 8, 12, 14, 15, 16, 18, 23, 24, 25, 26, 27)


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
