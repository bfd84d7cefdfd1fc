"""One standard test for every similarity measure that there is, and what each measure is by its definition."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from known_motion import error_voxel, made_up_pair
from MMRegCore import similarity
from MMRegCore.errors import InputError
from MMRegCore.monitor import Monitor
from MMRegCore.ops import identity_positions, resize, sample
from MMRegCore.prepare import Prepared
from MMRegCore.search.motion_model import MotionModel
from MMRegCore.search.rigid import find_rigid
from MMRegCore.search.sampled import Levels, SampledSimilarity
from MMRegCore.search.settings import SearchSettings
from MMRegCore.similarity import (
    descriptor_names,
    make_descriptor,
    make_similarity,
    patch_similarity,
    similarity_names,
)
from MMRegCore.similarity.descriptors.mind import Mind
from MMRegCore.similarity.lc2 import Lc2, explained_variance, standardise
from MMRegCore.similarity.ncc import Ncc
from MMRegCore.similarity.nmi import Nmi
from MMRegCore.similarity.protocol import Similarity
from MMRegCore.similarity.settings import DescriptorSettings, SimilaritySettings
from MMRegCore.volume import Channel

pytestmark = pytest.mark.slow

SHAPE = (14, 16, 18)
HALF_WIDTH = 2
# By name: what a measure claims beyond what every measure must do.  One that is not named here is tested for the rest.
SYMMETRIC = {"dns", "mind", "ncc", "nmi"}
INVARIANT_TO_CONTRAST = {"dns", "lc2", "mind", "ncc", "nmi"}
INVARIANT_TO_INVERSION = {"lc2", "mind", "ncc", "nmi"}
# Likelihood ratios have no largest value, and smooth histograms do not reach it.
NEVER_AT_ITS_BEST = {"lc2", "nmi"}
# How far, in voxels, encoding and comparing look beyond a place; a network that replicates the edge of its foreground
# sees nothing beyond it, but is not the same on a cropped image.
REACH = {"lc2": HALF_WIDTH + 1, "mind": 3, "ncc": HALF_WIDTH, "nmi": 0, "dns": 0}
NOT_CROPPED = {"dns"}


def noise(seed: int, channels: int = 1, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.rand((1, channels, *shape), generator=torch.Generator().manual_seed(seed))


def texture(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """(1, 1, D, H, W): blobs of about four voxels, some noise."""
    coarse = noise(seed, shape=tuple(n // 3 for n in shape))
    return 3 * resize(coarse, shape) + 0.1 * noise(seed + 1, shape=shape)


def whole(shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.ones(1, 1, *shape)


def box(low: tuple[int, ...], high: tuple[int, ...]) -> tuple[slice, ...]:
    return (..., *(slice(a, b) for a, b in zip(low, high, strict=True)))


BOX = box((2, 2, 4), (12, 14, 16))


def mask() -> torch.Tensor:
    """(1, 1, D, H, W), bool: `BOX`, which begins at even voxels."""
    inside = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    inside[BOX] = True
    return inside


@cache
def moved_pair() -> tuple[Prepared, torch.Tensor]:
    return made_up_pair((3.0, -2.0, 4.0), 2.0, noise=0.1)


@pytest.fixture(params=similarity_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def measure(name: str) -> Similarity:
    return patch_similarity(name, HALF_WIDTH)


def encoded(measure: Similarity, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.ones_like(fixed)
    return measure.encode_fixed(fixed, weight), measure.encode_moving(moving, weight)


class TestEveryMeasure:
    def test_compares_two_images(self, measure):
        fixed, moving = texture(0), texture(5)
        for weight in (None, mask(), mask().float(), 0.5 * mask().float()):
            value = measure.mean(fixed, moving, weight)
            assert value.shape == ()
            assert bool(torch.isfinite(value))
            torch.testing.assert_close(measure.loss(fixed, moving, weight), measure.best - value)

    def test_shapes(self, measure):
        fixed, moving = encoded(measure, texture(0), texture(5))
        assert fixed.shape[2:] == moving.shape[2:] == SHAPE
        for weight in (whole(), mask().float(), noise(3)):
            value, support = measure.compare(fixed, moving, weight)
            places = tuple(-(-n // measure.stride) for n in SHAPE)
            assert value.shape in {(1, 1, *places), (1, 1, 1, 1, 1)}
            assert value.shape == support.shape
            assert float(support.min()) >= 0
            torch.testing.assert_close(measure.support(weight), support)

    def test_a_batch_is_encoded_one_by_one(self, measure):
        batch = torch.cat([texture(0), texture(0).flip(2)])
        weight = whole().expand(2, -1, -1, -1, -1)
        one_by_one = torch.cat([measure.encode_moving(one, whole()) for one in batch.split(1)])
        torch.testing.assert_close(measure.encode_moving(batch, weight), one_by_one)

    def test_inputs_are_not_altered(self, measure):
        images = [texture(0), texture(5), mask().float()]
        before = [image.clone() for image in images]
        measure.mean(*images)
        assert all(torch.equal(a, b) for a, b in zip(images, before, strict=True))

    @pytest.mark.parametrize("masked", [False, True])
    def test_gradient_in_encoded_images_and_sample_positions(self, name, masked):
        measure, shape = patch_similarity(name, 1), (3, 4, 3)
        pair = encoded(measure, texture(0), texture(5))
        fixed, moving = (image[..., 5:8, 5:9, 5:8].double().requires_grad_() for image in pair)
        weight = whole(shape).double()
        weight[..., :1] = 0 if masked else 1
        # Off the voxel centres, where trilinear sampling has a kink.
        offset = 0.3 + 0.2 * noise(1, 3, shape).double()
        positions = (identity_positions(shape, dtype=torch.float64) + offset).requires_grad_()

        def value(fixed: torch.Tensor, moving: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            return measure.compare(fixed, sample(moving, positions), weight).mean()

        assert gradcheck(value, (fixed, moving, positions), atol=1e-4)
        gradient = torch.autograd.grad(value(fixed, moving, positions), positions)[0]
        assert bool(gradient.any())

    def test_gradient_in_the_image_leads_downhill_or_there_is_none(self, measure):
        fixed, moving = texture(0).double(), texture(5).double().requires_grad_()
        if not measure.differentiable:
            assert not measure.loss(fixed.float(), moving.float()).requires_grad
            return
        loss = measure.loss(fixed, moving)
        (gradient,) = torch.autograd.grad(loss, moving)
        step = 0.02 * gradient / gradient.norm()
        slope = float((loss - measure.loss(fixed, moving.detach() - step)).detach())
        assert slope == pytest.approx(0.02 * float(gradient.norm()), rel=0.2)

    def test_double_precision_is_kept(self, measure):
        fixed, moving = (image.double() for image in encoded(measure, texture(0), texture(5)))
        value, support = measure.compare(fixed, moving, whole().double())
        assert value.dtype == support.dtype == torch.float64

    def test_best_on_identical_images(self, measure, name):
        image = texture(0)
        same = float(measure.loss(image, image))
        others = [float(measure.loss(image, other)) for other in (texture(5), image.roll(2, dims=2), image.flip(3))]
        assert same < min(others)
        if name not in NEVER_AT_ITS_BEST:
            assert same == pytest.approx(0, abs=2e-3)
        if name != "lc2":
            assert min([same, *others]) >= -1e-6

    def test_unrelated_images_have_about_the_value_that_is_said(self, measure, name):
        """Nearer to it than to the best, where that is a number that can be reached."""
        value = float(measure.mean(texture(0), texture(5)))
        best = float(measure.mean(texture(0), texture(0)))
        if measure.unrelated is None:  # it depends on the images, and is measured on them
            assert value < best
            return
        assert abs(value - measure.unrelated) < abs(best - value)
        assert measure.unrelated < best

    @pytest.mark.parametrize("name", [name for name in similarity_names() if name not in NOT_CROPPED])
    def test_a_mask_is_the_same_as_cropping(self, measure, name):
        fixed, moving, weight = texture(0), texture(5), mask().float()
        pairs = (fixed, moving, weight), (fixed[BOX], moving[BOX], weight[BOX])
        by_mask, by_crop = (
            measure.compare(measure.encode_fixed(f, w), measure.encode_moving(m, w), w) for f, m, w in pairs
        )
        if by_mask.value.numel() == 1:
            torch.testing.assert_close(by_mask.mean(), by_crop.mean())
            return
        step, rim = measure.stride, -(-REACH.get(name, 4) // measure.stride)
        inner = (..., *[slice(rim, -rim or None)] * 3)
        for masked, cropped in zip(by_mask, by_crop, strict=True):
            there = masked[(..., *(slice(s.start // step, s.stop // step) for s in BOX[1:]))]
            # The rim has a gradient of its own, which enters the standardisation of all.
            torch.testing.assert_close(there[inner], cropped[inner], rtol=0.03, atol=1e-3)
            assert there[inner].numel() > 0

    def test_what_lies_outside_the_mask_does_not_count(self, measure, name):
        fixed, moving, weight = texture(0), texture(5), mask().float()
        far = torch.nn.functional.max_pool3d(weight, 2 * REACH.get(name, 4) + 1, 1, REACH.get(name, 4)) == 0
        assert bool(far.any())
        changed = [torch.where(far, 5 * noise(7), image) for image in (fixed, moving)]
        torch.testing.assert_close(
            measure.mean(*changed, weight), measure.mean(fixed, moving, weight), rtol=1e-4, atol=1e-5
        )

    @pytest.mark.parametrize("name", sorted(SYMMETRIC))
    def test_symmetry(self, measure):
        forth, back = measure.mean(texture(0), texture(5), mask()), measure.mean(texture(5), texture(0), mask())
        torch.testing.assert_close(forth, back)

    @pytest.mark.parametrize(
        ("name", "gain", "offset"),
        [(name, *change) for name in sorted(INVARIANT_TO_CONTRAST) for change in ((40.0, -300.0), (0.3, 5.0))]
        + [(name, -7.0, 100.0) for name in sorted(INVARIANT_TO_INVERSION)],
    )
    def test_linear_changes_of_intensity(self, measure, gain, offset):
        fixed, moving = texture(0), texture(5)
        plain = measure.mean(fixed, moving)
        for changed in ((gain * fixed + offset, moving), (fixed, gain * moving + offset)):
            torch.testing.assert_close(measure.mean(*changed), plain, rtol=5e-3, atol=1e-3)

    def test_flat_images_are_finite_and_so_are_their_gradients(self, measure):
        fixed, moving = encoded(measure, texture(0), torch.full((1, 1, *SHAPE), 3.0))
        moving = moving.requires_grad_()
        value = measure.compare(fixed, moving, whole()).mean()
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(torch.autograd.grad(value, moving)[0]).all())
        flat = whole() * 3
        assert bool(torch.isfinite(measure.mean(flat, flat)))

    def test_several_moving_images_explain_together_or_are_averaged(self, measure):
        first, second = texture(5), texture(8)
        fixed = first + second
        images = [measure.encode_moving(image, whole()) for image in (first, second)]
        there = measure.encode_fixed(fixed, whole())
        alone = [measure.compare(there, image, whole()) for image in images]
        together = measure.compare_all(there, images, whole())
        assert together.value.shape == alone[0].value.shape
        if measure.joint:
            assert float(together.mean()) > max(float(one.mean()) for one in alone)
        else:
            torch.testing.assert_close(together.value, (alone[0].value + alone[1].value) / 2)
        torch.testing.assert_close(together.support, alone[0].support)
        only = measure.compare_all(there, images[:1], whole())
        assert torch.equal(only.value, alone[0].value)

    def test_unusable_input_is_named(self, measure):
        fixed, moving, inside = texture(0), texture(5), mask()
        with pytest.raises(InputError, match="at least one voxel inside; got an empty one"):
            measure.mean(fixed, moving, torch.zeros_like(inside))
        with pytest.raises(
            InputError, match=r"two images .* got \(1, 1, 14, 16, 18\), \(1, 1, 14, 16, 17\) and \(1, 1, 14, 16, 18\)"
        ):
            measure.mean(fixed, moving[..., :-1], inside)
        with pytest.raises(InputError, match=r"a mask \(B, 1, D, H, W\); got"):
            measure.loss(fixed, moving, inside[0])
        with pytest.raises(InputError, match="a mask"):
            measure.mean(fixed, moving, inside.expand(1, 2, -1, -1, -1))


class TestInTheSearch:
    def test_the_truth_is_better_than_no_motion_and_all_of_it_counts(self, measure, name):
        prepared, truth = moved_pair()
        sampled = SampledSimilarity.of(prepared, measure, 2.0)
        there = sample(truth, sampled.points.t()[None, :, :, None, None])[0, :, :, 0, 0].t()
        before, after = sampled.mean(sampled.points), sampled.mean(there)
        assert float(after) > float(before) + 0.02
        assert sampled.at(sampled.points).value.shape == sampled.shares().shape
        # Patches at the rim with too little inside do not count.
        assert 0.7 < float(sampled.shares().sum()) < 1.001

    def test_drives_the_rigid_search(self, measure, name):
        prepared, truth = moved_pair()
        search = SearchSettings(
            similarity=name,
            sampling_spacing_mm=(2.0,),
            half_width=(HALF_WIDTH,),
            starts=64,
            range_mm=6.0,
            range_deg=4.0,
        )
        model = MotionModel.of(prepared, search.prior)
        found, *_ = find_rigid(Levels(prepared), model, search, Monitor())
        displacement = model.displacement(found, prepared.grid.shape)
        assert error_voxel(displacement, truth, prepared.fixed.weight) < 1.0

    def test_does_not_run_off_the_moving_image(self, measure, name):
        """Where nothing is alike, an MR as small as the field of view stays where it was expected, about."""
        prepared, truth = made_up_pair(related=False)
        prepared = replace(prepared, moving=(Channel(prepared.moving[0].image, prepared.fixed.weight),))
        search = SearchSettings(similarity=name, sampling_spacing_mm=(2.5,), half_width=(HALF_WIDTH,), starts=64)
        model = MotionModel.of(prepared, search.prior)
        found, *_ = find_rigid(Levels(prepared), model, search, Monitor())
        displacement = model.displacement(found, prepared.grid.shape)
        assert error_voxel(displacement, truth, prepared.fixed.weight) < 5.0


class TestNames:
    def test_of_all_measures_and_of_those_of_descriptors(self):
        assert {"dns", "lc2", "mind", "ncc", "nmi"} <= set(similarity_names())
        assert descriptor_names() == ("dns", "mind")
        assert list(similarity_names()) == sorted(similarity_names())

    def test_an_unknown_one_suggests_the_nearest(self):
        for make in (lambda: patch_similarity("nci", 2), lambda: SimilaritySettings(name="nci")):
            with pytest.raises(
                InputError, match="expected the name of a similarity out of .*; got 'nci'; did you mean"
            ):
                make()

    def test_parameters_are_the_settings_that_begin_with_the_name(self):
        mind = make_similarity(SimilaritySettings(name="mind", mind_radius=3, mind_dilation=1, mind_norm="l1"))
        assert isinstance(mind, Mind)
        assert (mind.radius, mind.dilation, mind.norm) == (3, 1, "l1")
        assert make_similarity(SimilaritySettings(name="ncc", ncc_half_width=6)).half_width == 6
        assert make_similarity(SimilaritySettings(name="nmi", nmi_bins=12)).bins == 12
        assert make_similarity(SimilaritySettings(name="lc2", lc2_half_width=3)).half_width == 3
        assert make_descriptor(DescriptorSettings(mind_radius=2)).radius == 2

    def test_only_measures_of_patches_take_a_half_width(self):
        assert patch_similarity("lc2", 3).half_width == patch_similarity("ncc", 3).half_width == 3
        assert not hasattr(patch_similarity("nmi", 3), "half_width")


TOY = '''
"""Minus the squared difference of standardised images."""

from MMRegCore.similarity.lc2 import standardise
from MMRegCore.similarity.protocol import Local, Similarity


class Toy(Similarity):
    """Half the squared difference, from 1 for identical images."""

    best = 1.0

    def __init__(self, half_width: int = 1) -> None:
        self.half_width = half_width

    def encode_moving(self, image, weight):
        return standardise(image, weight)

    def compare(self, fixed, moving, weight):
        return Local(1 - (fixed - moving).square() / 2, weight)


MEASURE = Toy
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(similarity, "__path__", [*similarity.__path__, str(tmp_path)])
    yield
    del sys.modules["MMRegCore.similarity.toy"], similarity.toy


def test_a_measure_in_one_file_is_found_by_its_name_and_drives_the_search(toy):
    assert "toy" in similarity_names()
    assert "toy" not in descriptor_names()
    assert patch_similarity("toy", 3).half_width == 3
    prepared, truth = moved_pair()
    search = SearchSettings(
        similarity="toy", sampling_spacing_mm=(2.5, 1.5), half_width=(1, 1), starts=64, range_mm=6.0
    )
    model = MotionModel.of(prepared, search.prior)
    found, *_ = find_rigid(Levels(prepared), model, search, Monitor())
    displacement = model.displacement(found, prepared.grid.shape)
    assert error_voxel(displacement, truth, prepared.fixed.weight) < 1.0


def studholme(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    joint = np.histogram2d(a, b, bins=bins)[0] / a.size
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (joint.sum(0), joint.sum(1), joint)]
    return (entropies[0] + entropies[1]) / entropies[2]


class TestNmi:
    COUNTED = Nmi(window_bins=0)

    def test_agrees_with_numpy_where_no_tail_is_cut(self):
        # Every value fills at least 0.5 % of the voxels, so that both use the same bins.
        generator = np.random.default_rng(4)
        a = generator.integers(0, 16, 4000)
        b = (a + generator.integers(0, 5, 4000)) % 16
        images = [torch.from_numpy(v).reshape(1, 1, 10, 20, 20).double() for v in (a, b)]
        assert float(Nmi(16, 0).mean(*images)) == pytest.approx(studholme(a, b, 16), rel=1e-9)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000), bins=st.integers(4, 64), gain=st.floats(0.1, 50), offset=st.floats(-100, 100))
    def test_lies_between_its_bounds_and_is_symmetric(self, seed, bins, gain, offset):
        a, b, measure = noise(seed), noise(seed + 1), Nmi(bins, 0)
        forth, back = float(measure.mean(a, b)), float(measure.mean(b, a))
        assert 1 - 1e-6 <= forth <= 2
        assert forth == pytest.approx(back, rel=1e-6)
        assert float(Nmi(8, 0).mean(a.double(), -a.double() * gain + offset)) > 1.9

    def test_of_an_image_with_itself_is_two_and_of_noise_near_one(self):
        a = noise(5)
        assert float(self.COUNTED.mean(a, a, mask())) == pytest.approx(2)
        assert float(self.COUNTED.loss(a, a)) == pytest.approx(0, abs=1e-6)
        large = [noise(seed, shape=(40, 40, 40)) for seed in (6, 7)]
        for measure in (self.COUNTED, Nmi()):
            assert float(measure.mean(*large)) < 1.005

    def test_windows_blur_the_histogram_and_give_it_a_gradient(self):
        a, b = noise(5), noise(5) + 0.2 * noise(6)
        assert float(Nmi(window_bins=0.05).mean(a, b)) == pytest.approx(float(self.COUNTED.mean(a, b)), rel=0.05)
        assert 1 < float(Nmi(window_bins=2.0).mean(a, b)) < float(Nmi().mean(a, b)) < float(self.COUNTED.mean(a, b))
        assert not self.COUNTED.mean(a, b.requires_grad_()).requires_grad
        assert Nmi().mean(a, b).requires_grad

    def test_weights_count_as_so_many_voxels(self):
        a, b = noise(5), noise(5) + 0.2 * noise(6)
        doubled = [torch.cat([image, image[:, :, :7]], dim=2) for image in (a, b)]
        weight = whole()
        weight[:, :, :7] = 2
        for measure in (Nmi(window_bins=0), Nmi()):
            joined = measure.compare(a, b, weight / 2).value
            torch.testing.assert_close(joined, measure.compare(*doubled, torch.ones_like(doubled[0])).value)

    def test_survives_single_hot_voxels(self):
        a = noise(8, shape=(20, 20, 20))
        b = a.clone()
        b[0, 0, 4, 5, 3] = 1e7
        b[0, 0, 9, 9, 9] = -1e7
        assert float(self.COUNTED.mean(a, b)) > 1.9

    def test_of_constant_images_tells_nothing(self):
        flat = torch.full((1, 1, *SHAPE), 3.0)
        for measure in (self.COUNTED, Nmi()):
            assert float(measure.mean(flat, noise(1), mask())) == pytest.approx(1)
            assert float(measure.mean(flat, flat, mask())) == pytest.approx(1)


class TestNcc:
    def test_is_the_squared_correlation_of_each_box(self):
        fixed, moving = texture(0).double(), texture(5).double()
        value = Ncc(2).compare(fixed, moving, torch.ones_like(fixed)).value[0, 0]
        for d, h, w in ((4, 5, 6), (7, 8, 2), (11, 13, 15)):
            place = (..., slice(d - 2, d + 3), slice(h - 2, h + 3), slice(w - 2, w + 3))
            expected = np.corrcoef(fixed[place].flatten(), moving[place].flatten())[0, 1] ** 2
            assert float(value[d, h, w]) == pytest.approx(expected, rel=1e-3)

    def test_in_boxes_that_a_mask_cuts_only_what_is_inside_counts(self):
        fixed, moving, inside = texture(0), texture(5), mask()
        changed = torch.where(inside, moving, 5 * noise(7))
        value, cut = (Ncc(2).compare(fixed, image, inside.float()).value[BOX] for image in (moving, changed))
        # A trace of weight is left everywhere.
        assert float((value - cut).abs().max()) < 0.1
        everywhere = Ncc(2).compare(fixed, changed, whole()).value[BOX]
        assert float((value - everywhere).abs().max()) > 0.3

    def test_noise_of_a_flat_region_is_no_texture(self):
        flat = torch.ones(1, 1, *SHAPE) + 1e-5 * noise(3)
        assert float(Ncc().mean(flat, flat)) < 1e-3


def explained_by_least_squares(u: np.ndarray, regressors: list[np.ndarray]) -> float:
    design = np.stack([np.ones_like(u), *regressors], axis=1)
    rest = u - design @ np.linalg.lstsq(design, u, rcond=None)[0]
    return 1 - rest.var() / u.var()


class TestLc2:
    def test_explained_variance_is_that_of_least_squares_in_each_patch(self, monkeypatch):
        monkeypatch.setattr("MMRegCore.similarity.lc2._RIDGE", 0.0)
        shape = (9, 11, 10)
        weight = torch.zeros(1, 1, *shape, dtype=torch.float64)
        weight[..., 2:8, 3:9, 1:7] = 1
        fixed, regressors = noise(5, shape=shape).double(), noise(6, 4, shape).double()
        fraction, support = explained_variance(fixed, regressors, weight, half_width=1)
        for d, h, w in ((3, 4, 2), (2, 3, 1), (7, 8, 6)):  # inside, and where the mask cuts the patch
            patch = tuple(slice(max(n - 1, 0), n + 2) for n in (d, h, w))
            inside = weight[0, 0][patch].numpy() > 0
            u = fixed[0, 0][patch].numpy()[inside]
            columns = [regressors[0, k][patch].numpy()[inside] for k in range(4)]
            assert float(support[0, 0, d, h, w]) == pytest.approx(inside.sum() / 27)
            expected = min(explained_by_least_squares(u, columns), 0.999)
            assert float(fraction[0, 0, d, h, w]) == pytest.approx(expected, rel=1e-6)

    def test_a_stride_picks_every_second_patch(self):
        every = explained_variance(noise(5), noise(6, 2), mask().float(), half_width=2)
        some = explained_variance(noise(5), noise(6, 2), mask().float(), half_width=2, stride=2)
        for a, b in zip(every, some, strict=True):
            torch.testing.assert_close(a[..., ::2, ::2, ::2], b)

    def test_value_is_the_log_likelihood_ratio(self):
        fixed, regressors = noise(5), noise(6, 2)
        fraction, support = explained_variance(fixed, regressors, mask().float(), half_width=2, stride=2)
        local = Lc2(2).compare(fixed, regressors, mask().float())
        torch.testing.assert_close(local.value, -torch.log(1 - fraction))
        torch.testing.assert_close(local.support, torch.where(support > 0.3, support, torch.zeros_like(support)))

    @pytest.mark.parametrize(("intensity", "gradient"), [(-3.0, 2.0), (1.0, 0.0), (0.0, 1.0), (0.5, -4.0)])
    def test_sees_through_any_combination_of_intensity_and_gradient_and_nothing_else(self, intensity, gradient):
        image = texture(7)
        regressors = Lc2().encode_moving(image, whole())
        related = 40 + intensity * regressors[:, :1] + gradient * regressors[:, 1:]
        fraction, _ = explained_variance(standardise(related, whole()), regressors, whole(), half_width=2)
        assert float(fraction.mean()) > 0.93
        mirrored, _ = explained_variance(standardise(related.flip(2), whole()), regressors, whole(), half_width=2)
        assert float(mirrored.mean()) < 0.5

    def test_several_images_explain_what_none_does_alone(self):
        first, second = texture(5), texture(8)
        encoded = [Lc2().encode_moving(image, whole()) for image in (first, second)]
        fixed = Lc2().encode_fixed(first - 2 * second, whole())
        assert Lc2.joint
        assert float(Lc2(2).compare_all(fixed, encoded, whole()).mean()) > 2
        assert max(float(Lc2(2).compare(fixed, one, whole()).mean()) for one in encoded) < 1.8

    def test_standardised_over_the_weight(self):
        images = standardise(5 + 3 * noise(1, 2), mask().float())[BOX].flatten(2)
        torch.testing.assert_close(images.mean(dim=2), torch.zeros(1, 2), atol=1e-5, rtol=0)
        torch.testing.assert_close(images.var(dim=2, unbiased=False), torch.ones(1, 2), atol=1e-4, rtol=0)
        assert not standardise(torch.full((1, 1, *SHAPE), 2.0), whole()).any()
