"""Bézier intensities, Eq. 4, retrieval, synthetic contrasts, deformations, patches: each against what must hold."""

import math

import pytest
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.networks.intensity import unit_range
from MMRegCore.training.data.bezier import bezier, random_bezier
from MMRegCore.training.data.patches import PatchSettings, draw_patches
from MMRegCore.training.data.subjects import Subject
from MMRegCore.training.data.synthesis import (
    DeformationSettings,
    SynthesisSettings,
    random_deformation,
    synthetic_contrast,
)
from MMRegCore.training.recipes.contrastive import at_points, contrastive_loss, foreground_points, retrieval


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def bezier_by_bisection(value, points):
    """Eq. 2 for one intensity: the t at which x(t) is the intensity, found by halving; then y(t)."""
    xs, ys = (sorted(row) for row in points.tolist())

    def at(coordinates, t):
        return sum(math.comb(3, i) * t**i * (1 - t) ** (3 - i) * p for i, p in enumerate(coordinates))

    low, high = 0.0, 1.0
    wanted = xs[0] + value * (xs[3] - xs[0])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(xs, middle) < wanted else (low, middle)
    return at(ys, low)


@pytest.mark.parametrize("seed", range(4))
def test_bezier_is_equation_2(seed):
    points = torch.rand(2, 4, generator=stream(seed))
    values = torch.linspace(0, 1, 23)
    expected = torch.tensor([bezier_by_bisection(float(v), points) for v in values])
    torch.testing.assert_close(bezier(values, points), expected, atol=2e-4, rtol=0)


def test_bezier_keeps_or_turns_the_order_of_intensities():
    values = torch.linspace(0, 1, 101)
    rising = [bool((random_bezier(values, stream(s)).diff() >= 0).all()) for s in range(200)]
    falling = [bool((random_bezier(values, stream(s)).diff() <= 0).all()) for s in range(200)]
    assert all(up != down for up, down in zip(rising, falling, strict=True))
    assert 60 < sum(falling) < 140  # δ = 0.5: half of them, ± 5 standard deviations
    always = [random_bezier(values, stream(s), inversion=1.0) for s in range(20)]
    assert all((curve.diff() <= 0).all() and curve.min() >= 0 and curve.max() <= 1 for curve in always)


def contrastive_by_hand(first, second, temperature):
    one = [d / d.norm() for d in first]
    two = [d / d.norm() for d in second]
    total = 0.0
    for i, d in enumerate(one):
        shares = [math.exp(float(d @ other) / temperature) for other in two]
        total -= math.log(shares[i] / sum(shares))
    return total / len(one)


def test_contrastive_loss_is_equation_4():
    first, second = (torch.randn(9, 5, generator=stream(s), dtype=torch.float64) for s in (1, 2))
    expected = contrastive_by_hand(first, second, 0.07)
    assert float(contrastive_loss(first, second)) == pytest.approx(expected, rel=1e-9)
    assert float(contrastive_loss(3 * first, 0.2 * second)) == pytest.approx(expected, rel=1e-9)


def test_contrastive_loss_is_log_n_where_nothing_is_told_apart_and_small_where_all_is():
    same = torch.ones(50, 4)
    assert float(contrastive_loss(same, same)) == pytest.approx(math.log(50), rel=1e-5)
    apart = torch.eye(24)
    assert float(contrastive_loss(apart, apart)) < 1e-4
    assert float(contrastive_loss(apart, apart.roll(1, 0))) > 10


def test_contrastive_gradient():
    first, second = (torch.randn(6, 4, generator=stream(s), dtype=torch.float64).requires_grad_() for s in (3, 4))
    assert torch.autograd.gradcheck(contrastive_loss, (first, second))


def test_contrastive_loss_wants_the_same_points():
    with pytest.raises(InputError, match="expected descriptors"):
        contrastive_loss(torch.rand(3, 4), torch.rand(4, 4))


def test_retrieval_counts_the_right_ones():
    first = torch.eye(6)
    second = torch.eye(6)[[1, 0, 2, 3, 4, 5]]  # the first two are taken for each other
    assert retrieval(first, second, block=4) == pytest.approx(4 / 6)
    assert retrieval(2 * first, 5 * first) == 1.0


@pytest.mark.parametrize("compare", ["angle", "distance"])
def test_retrieval_takes_the_nearest(compare):
    first, second = (torch.randn(40, 3, generator=stream(s)) for s in (6, 7))
    second = first + 0.7 * second
    right = 0
    for index, one in enumerate(first):
        cost = [
            float((one - two).norm() if compare == "distance" else -(one @ two) / one.norm() / two.norm())
            for two in second
        ]
        right += cost.index(min(cost)) == index
    assert 0 < right < 40
    assert retrieval(first, second, compare=compare, block=7) == pytest.approx(right / 40)


def test_points_lie_in_the_foreground_once_each():
    foreground = torch.zeros(4, 5, 6, dtype=torch.bool)
    foreground[1:3, 2:4, 1:5] = True
    points = foreground_points(foreground, 10, stream())
    assert len(points) == 10 == len(set(points.tolist()))
    assert foreground.flatten()[points].all()
    assert len(foreground_points(foreground, 1000, stream())) == 16
    volume = torch.arange(120.0).reshape(1, 1, 4, 5, 6).repeat(1, 3, 1, 1, 1)
    assert torch.equal(at_points(volume, points), points.float()[:, None].repeat(1, 3))
    with pytest.raises(InputError, match="expected foreground"):
        foreground_points(torch.zeros(2, 2, 2, dtype=torch.bool), 1, stream())


@pytest.fixture
def labels():
    numbers = torch.zeros(28, 30, 32, dtype=torch.int16)
    numbers[4:24, 4:26, 4:16] = 3
    numbers[4:24, 4:26, 16:28] = 41
    return numbers


def test_synthetic_contrasts_differ_and_repeat(labels):
    one, again, other = (synthetic_contrast(labels, stream(s)) for s in (0, 0, 1))
    assert one.shape == (1, 28, 30, 32)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.05)
    assert 0 <= float(one.min()) <= float(one.max()) == pytest.approx(1.0)


def test_without_noise_a_label_is_one_intensity(labels):
    plain = SynthesisSettings(texture=0, blur_voxel=0, bias=0, noise=0, empty_background=1)
    image = synthetic_contrast(labels, stream(2), plain)[0]
    for number in (0, 3, 41):
        assert float(image[labels == number].std()) == pytest.approx(0, abs=1e-6)
    assert not image[labels == 0].any()
    assert len({round(float(image[labels == n].mean()), 4) for n in (0, 3, 41)}) == 3


def test_deformation_is_smooth_and_as_large_as_asked():
    none = DeformationSettings(rotation_deg=0, scaling=0, amplitude_voxel=0)
    assert not random_deformation((10, 11, 12), stream(), none).any()
    turned = random_deformation((17, 17, 17), stream(1), DeformationSettings(scaling=0, amplitude_voxel=0))
    assert turned.shape == (1, 3, 17, 17, 17)
    torch.testing.assert_close(turned[0, :, 8, 8, 8], torch.zeros(3), atol=1e-5, rtol=0)  # about the middle
    axes = torch.arange(17.0) - 8
    position = torch.stack(torch.meshgrid(axes, axes, axes, indexing="ij"))
    torch.testing.assert_close((turned[0] + position).norm(dim=0), position.norm(dim=0))  # keeps lengths
    waves = DeformationSettings(rotation_deg=0, scaling=0, amplitude_voxel=3, length_voxel=12)
    fields = [random_deformation((32, 32, 32), stream(s), waves)[0] for s in range(8)]
    assert max(float(field.abs().max()) for field in fields) > 1.0
    assert max(float(field.diff(dim=axis).abs().max()) for field in fields for axis in (1, 2, 3)) < 0.8


SMALL = PatchSettings(crop_voxel=16, synthetic=0.5, ultrasound=0.5)


def subject(labels, *names):
    base = synthetic_contrast(labels, stream(9), SynthesisSettings(empty_background=1, noise=0))
    return Subject("one", Grid((28, 30, 32), torch.eye(4).numpy()), dict.fromkeys(names, base), labels)


def test_patches_repeat_with_their_stream_and_show_the_same_points(labels):
    source = subject(labels, "t1")
    one, again = (draw_patches(source, stream(4), SMALL) for _ in range(2))
    assert torch.equal(one.first, again.first)
    assert torch.equal(one.second, again.second)
    assert one.first.shape == one.second.shape == (1, 1, 16, 16, 16)
    assert 0 <= float(one.first.min()) <= float(one.first.max()) <= 1
    # Only along a Bézier curve does the second differ from the first: equal values stay equal.
    patches = draw_patches(source, stream(5), PatchSettings(crop_voxel=16, synthetic=0, ultrasound=0))
    order = patches.first.flatten().argsort()
    steps = patches.second.flatten()[order].diff()
    assert (steps >= -1e-5).all() or (steps <= 1e-5).all()


def test_ultrasound_is_one_of_the_patches_where_there_is_some(labels):
    source = subject(labels, "t1", "us")
    source.images["us"][0, :14] = 0  # outside the cone
    patches = draw_patches(source, stream(0), PatchSettings(crop_voxel=16, ultrasound=1))
    assert not patches.second[0, 0][~patches.foreground].any()
    assert patches.foreground.any()


def test_patches_need_something_to_show():
    empty = Subject("none", Grid((20, 20, 20), torch.eye(4).numpy()), {"us": torch.ones(1, 20, 20, 20)})
    with pytest.raises(InputError, match="expected labels or images of 'none'"):
        draw_patches(empty, stream(), SMALL)


def test_unit_range_is_robust_and_deaf_to_background():
    image = torch.rand(1, 1, 20, 20, 20, generator=stream()) * 50 + 100
    wide = torch.zeros(1, 1, 40, 40, 40)
    wide[..., 10:30, 10:30, 10:30] = image
    hot = wide.clone()
    hot[0, 0, 15, 15, 15:20] = 1e6
    scaled = unit_range(wide)
    assert float(scaled.min()) == 0
    assert float(scaled.max()) == 1
    assert float((unit_range(hot) - scaled).abs().mean()) < 1e-3
    torch.testing.assert_close(unit_range(3 * wide - 7), scaled, atol=1e-5, rtol=0)
    assert not unit_range(torch.full((1, 1, 4, 4, 4), 5.0)).any()
