"""MIND-SSC against a slow, literal transcription of its definition."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from MMRegCore.similarity.descriptors.mind import CHANNELS, Mind, mind_ssc


def image_of(shape: tuple[int, int, int] = (9, 10, 11), seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape))).float()


def literal_mind(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """(D, H, W, 12): Heinrich 2013, voxel by voxel; channels in no particular order."""
    neighbours = [np.array(v) for v in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))]
    pairs = [(a, b) for i, a in enumerate(neighbours) for b in neighbours[i + 1 :] if ((a - b) ** 2).sum() == 2]
    last = np.array(image.shape) - 1
    patch = [np.array(v) for v in product(range(-radius, radius + 1), repeat=3)]

    def value(place):
        return image[tuple(np.clip(place, 0, last))]

    distances = np.zeros((*image.shape, len(pairs)))
    for place in np.ndindex(*image.shape):
        for channel, (a, b) in enumerate(pairs):
            here, there = np.array(place) + dilation * a, np.array(place) + dilation * b
            distances[(*place, channel)] = np.mean([(value(here + p) - value(there + p)) ** 2 for p in patch])
    distances -= distances.min(axis=-1, keepdims=True)
    noise = distances.mean(axis=-1, keepdims=True)
    return np.exp(-distances / np.clip(noise, noise.mean() * 1e-3, noise.mean() * 1e3))


@pytest.mark.parametrize(("radius", "dilation"), [(1, 2), (0, 1), (1, 1)])
def test_against_the_definition(radius, dilation):
    image = image_of((6, 5, 7))
    found = mind_ssc(image, radius=radius, dilation=dilation)[0].permute(1, 2, 3, 0).numpy()
    expected = literal_mind(image[0, 0].double().numpy(), radius, dilation)
    assert found.shape[-1] == CHANNELS == 12
    # The order of the channels is free, as long as it is one: compare through the best match of each channel.
    order = [int(np.abs(found - expected[..., [c]]).max(axis=(0, 1, 2)).argmin()) for c in range(12)]
    assert sorted(order) == list(range(12))
    assert found[..., order] == pytest.approx(expected, abs=1e-4)


def test_values_are_shares_and_one_of_them_is_one():
    descriptor = mind_ssc(image_of())
    assert descriptor.shape == (1, 12, 9, 10, 11)
    assert float(descriptor.min()) >= 0
    assert torch.allclose(descriptor.amax(dim=1), torch.ones(1, 9, 10, 11))


@pytest.mark.parametrize(("gain", "offset"), [(1000.0, -5.0), (-3.0, 100.0), (0.01, 0.0)])
def test_linear_change_of_intensity_changes_nothing(gain, offset):
    image = image_of()
    assert torch.allclose(mind_ssc(gain * image + offset), mind_ssc(image), atol=2e-3)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_flips_only_permute_the_channels(axis):
    image = image_of()
    plain, flipped = mind_ssc(image).flip(axis), mind_ssc(image.flip(axis))
    match = [[torch.allclose(plain[:, a], flipped[:, b], atol=1e-5) for b in range(12)] for a in range(12)]
    assert np.array(match).sum(axis=0).tolist() == [1] * 12
    assert np.array(match).sum(axis=1).tolist() == [1] * 12


def test_distances_between_images_do_not_change_under_flips():
    first, second = image_of(seed=1), image_of(seed=2)
    plain = (mind_ssc(first) - mind_ssc(second)).square().sum(dim=1)
    flipped = (mind_ssc(first.flip(2, 4)) - mind_ssc(second.flip(2, 4))).square().sum(dim=1)
    assert torch.allclose(plain.flip(1, 3), flipped, atol=1e-4)


def test_flat_image_is_finite():
    assert bool((mind_ssc(torch.full((1, 1, 8, 8, 8), 7.0)) == 1).all())


def test_input_is_not_altered():
    image = image_of()
    before = image.clone()
    mind_ssc(image)
    assert torch.equal(image, before)


def test_gradient():
    image = image_of((5, 5, 5)).double().requires_grad_()
    # But for the image's mean noise, which bounds the noise of flat regions only.
    assert gradcheck(lambda x: mind_ssc(x, radius=1, dilation=1), (image,), fast_mode=True)


def test_double_precision_is_kept():
    image = image_of()
    assert mind_ssc(image.double()).dtype == torch.float64
    assert torch.allclose(mind_ssc(image.double()).float(), mind_ssc(image), atol=1e-4)


@pytest.mark.parametrize(("norm", "power"), [("l2", 2), ("l1", 1)])
def test_similarity_is_minus_the_mean_difference_inside_the_mask(norm, power):
    fixed, moving, mask = image_of(seed=1), image_of(seed=2), torch.zeros(1, 1, 9, 10, 11, dtype=torch.bool)
    mask[..., 2:7, 3:9, 1:6] = True
    difference = (mind_ssc(fixed) - mind_ssc(moving)).abs().numpy()[0][:, mask[0, 0].numpy()]
    assert float(Mind(norm=norm).mean(fixed, moving, mask)) == pytest.approx(-(difference**power).mean(), rel=1e-5)
    assert float(Mind(norm=norm).mean(fixed, fixed)) == 0


def test_parameters_are_those_of_the_descriptor():
    image = image_of()
    encoded = Mind(radius=2, dilation=1).encode_moving(image, torch.ones_like(image))
    assert torch.equal(encoded, mind_ssc(image, radius=2, dilation=1))
