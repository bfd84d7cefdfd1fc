"""Contrast among neighbours: against a literal loop, and what it demands of descriptors."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from MMRegCore.ops import gaussian_blur
from MMRegCore.training.recipes.neighbourhood import (
    HALF_WIDTH,
    SCALES,
    SMOOTHING_VOXEL,
    multiscale,
    neighbourhood_loss,
)

pytestmark = pytest.mark.slow


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def at(volume, place):
    d, h, w = place
    return volume[0, :, d, h, w]


def by_hand(one, two, foreground, temperature):
    """Eq. 4 for one scale, point by point, the others being the 124 around it."""
    total, count = 0.0, 0
    for place in product(*(range(HALF_WIDTH, n - HALF_WIDTH) for n in foreground.shape)):
        if not foreground[place]:
            continue
        for own, other in ((one, two), (two, one)):
            likeness = {
                step: float(at(own, place) @ at(other, [p + s for p, s in zip(place, step, strict=True)]))
                for step in product(range(-HALF_WIDTH, HALF_WIDTH + 1), repeat=3)
            }
            share = sum(math.exp(value / temperature) for value in likeness.values())
            total -= math.log(math.exp(likeness[0, 0, 0] / temperature) / share)
            count += 1
    return total / count


def test_it_is_equation_4_among_neighbours():
    one, two = (multiscale(torch.randn(1, 4, 20, 18, 16, generator=stream(seed))) for seed in (0, 1))
    foreground = torch.rand(20, 18, 16, generator=stream(2)) > 0.3
    masks = [
        F.interpolate(foreground[None, None].float(), size=volume.shape[2:], mode="trilinear")[0, 0] > 0.5
        for volume in one
    ]
    expected = sum(by_hand(*found, 0.5) for found in zip(one, two, masks, strict=True)) / len(SCALES)
    found = neighbourhood_loss(one, two, foreground, stream(), temperature=0.5)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_scales_are_unit_vectors_of_smoothed_directions():
    volume = torch.randn(1, 5, 12, 15, 18, generator=stream())
    found = multiscale(volume)
    assert [tuple(v.shape[2:]) for v in found] == [tuple(round(s * n) for n in (12, 15, 18)) for s in SCALES]
    for one, longer in zip(found, multiscale(7 * volume), strict=True):
        torch.testing.assert_close(one.norm(dim=1), torch.ones_like(one[:, 0]))
        torch.testing.assert_close(one, longer)


def test_descriptors_that_shift_cost_more_than_those_that_stay():
    """Blurred noise names its place; the same a voxel aside, or none at all, costs more."""
    noise = F.avg_pool3d(torch.randn(1, 12, 28, 28, 28, generator=stream()), 5, stride=1, padding=2)
    everywhere = torch.ones(28, 28, 28, dtype=torch.bool)

    def cost(one, other):
        return float(neighbourhood_loss(multiscale(one), multiscale(other), everywhere, stream()))

    flat = torch.ones_like(noise)
    assert cost(flat, flat) == pytest.approx(math.log(125), rel=1e-4)
    assert cost(noise, noise) < 0.5 * math.log(125)
    assert cost(noise, noise) < cost(noise, noise.roll(1, dims=2)) < cost(noise, noise.roll(3, dims=2))


def test_it_is_differentiable_in_both_and_nothing_without_foreground():
    volumes = [torch.randn(1, 3, 16, 16, 16, generator=stream(seed)).requires_grad_(True) for seed in (0, 1)]
    everywhere = torch.ones(16, 16, 16, dtype=torch.bool)
    found = neighbourhood_loss(*(multiscale(volume) for volume in volumes), everywhere, stream())
    found.backward()
    assert all(volume.grad.abs().sum() > 0 and volume.grad.isfinite().all() for volume in volumes)
    nothing = neighbourhood_loss(*(multiscale(volume) for volume in volumes), ~everywhere, stream())
    assert float(nothing) == 0


@pytest.mark.parametrize("shape", [(13, 14, 15), (6, 3, 1)])
def test_scales_are_smoothed_then_resized(shape):
    descriptors = torch.randn(1, 4, *shape, generator=stream(3))
    unit = F.normalize(descriptors, dim=1)
    for found, scale in zip(multiscale(descriptors), SCALES, strict=True):
        size = tuple(max(round(scale * n), 2) if n > 1 else 1 for n in shape)
        smooth = gaussian_blur(unit, SMOOTHING_VOXEL)
        plain = F.interpolate(smooth, size=size, mode="trilinear", align_corners=False)
        torch.testing.assert_close(found, F.normalize(plain, dim=1))
