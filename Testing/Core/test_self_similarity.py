"""Eq. 1 against a transcription of it, voxel by voxel; chunks, and the gradient by hand, against the plain formula."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from MMRegCore.networks.self_similarity import LEAST_NOISE, NEIGHBOURS, PAIRS, self_similarity


def literal_layout(x, dilation):
    """N(x) or N_d(x): the six places that are one step along one axis away, in the order of `NEIGHBOURS`."""
    return [tuple(p + dilation * o for p, o in zip(x, offset, strict=True)) for offset in NEIGHBOURS]


def literal_pairs(places, dilation):
    """Unordered pairs of neighbours whose Euclidean distance is √2 (times the dilation)."""
    return [
        (a, b)
        for i, a in enumerate(places)
        for b in places[i + 1 :]
        if math.isclose(math.dist(a, b), math.sqrt(2) * dilation)
    ]


def literal_similarities(h, x, dilation):
    """S(h, x, y) of Eq. 1 for one channel h (D, H, W), a number for each pair of neighbours of x."""

    def value(place):
        return float(h[tuple(min(max(p, 0), n - 1) for p, n in zip(place, h.shape, strict=True))])

    pairs = literal_pairs(literal_layout(x, dilation), dilation)
    squared = [(value(y) - value(other)) ** 2 for y, other in pairs]
    noise = sum(squared) / len(squared)
    return [math.exp(-d / (noise + LEAST_NOISE)) for d in squared]


def test_the_layout_is_the_six_neighbours_in_twelve_pairs_at_distance_root_two():
    assert sorted(NEIGHBOURS) == sorted(x for x in product((-1, 0, 1), repeat=3) if sum(map(abs, x)) == 1)
    for dilation in (1, 2):
        places = literal_layout((5, 5, 5), dilation)
        expected = literal_pairs(places, dilation)
        assert len(expected) == 12
        assert [(places[a], places[b]) for a, b in PAIRS] == expected


@pytest.mark.parametrize("dilation", [1, 2])
def test_self_similarity_is_equation_1_squeezed_over_the_channels(dilation):
    h = torch.randn(1, 3, 4, 5, 6)
    weight, bias = torch.tensor([0.7, -0.2, 1.1]), torch.tensor([0.3])
    found = self_similarity(h, dilation, weight, bias)
    assert found.shape == (1, 12, 4, 5, 6)
    for x in product(range(4), range(5), range(6)):
        channels = [literal_similarities(h[0, c], x, dilation) for c in range(3)]
        expected = [0.3 + sum(w * s[n] for w, s in zip(weight.tolist(), channels, strict=True)) for n in range(12)]
        torch.testing.assert_close(found[(0, slice(None), *x)], torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_the_noise_is_the_mean_distance_so_that_contrast_does_not_matter():
    h = torch.randn(1, 2, 6, 6, 6)
    weight, bias = torch.ones(2), torch.zeros(1)
    before = self_similarity(h, 1, weight, bias)
    torch.testing.assert_close(self_similarity(30 * h - 4, 1, weight, bias), before, atol=1e-3, rtol=0)
    torch.testing.assert_close(self_similarity(-h, 1, weight, bias), before)
    # A region without any structure is similar to itself, not divided by nothing.
    torch.testing.assert_close(
        self_similarity(torch.ones(1, 2, 4, 4, 4), 2, weight, bias), torch.full((1, 12, 4, 4, 4), 2.0)
    )


def test_chunks_make_no_difference_to_values_or_gradients():
    h = torch.randn(2, 3, 7, 5, 6, dtype=torch.float32)
    weight, bias = torch.randn(3), torch.randn(1)
    results = []
    for chunk_values in (1, 3000, 2**30):
        leaves = [t.clone().requires_grad_(True) for t in (h, weight, bias)]
        value = self_similarity(leaves[0], 2, leaves[1], leaves[2], chunk_values=chunk_values)
        results.append([value, *torch.autograd.grad(value.square().sum(), leaves)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_gradient_through_recomputation_is_that_of_the_plain_formula():
    h, weight = torch.rand(1, 2, 4, 4, 4, requires_grad=True), torch.tensor([0.5, 1.5])
    found = torch.autograd.grad(self_similarity(h, 1, weight, torch.zeros(1), chunk_values=1).square().sum(), h)[0]
    padded = F.pad(h, (1,) * 6, mode="replicate")

    def moved(offset):
        d, hh, w = (1 + o for o in offset)
        return padded[:, :, d : d + 4, hh : hh + 4, w : w + 4]

    squared = torch.stack([(moved(NEIGHBOURS[a]) - moved(NEIGHBOURS[b])) ** 2 for a, b in PAIRS], dim=1)
    similar = torch.exp(-squared / (squared.mean(dim=1, keepdim=True) + LEAST_NOISE))
    plain = torch.einsum("bpcdhw,c->bpdhw", similar, weight)
    torch.testing.assert_close(found, torch.autograd.grad(plain.square().sum(), h)[0], atol=1e-4, rtol=1e-4)


def test_the_whole_self_similarity_is_never_held(monkeypatch):
    largest = []
    original = torch.Tensor.exp_
    monkeypatch.setattr(torch.Tensor, "exp_", lambda self: largest.append(self.numel()) or original(self))
    h = torch.rand(1, 4, 16, 16, 16, requires_grad=True)
    self_similarity(h, 1, torch.ones(4), torch.zeros(1), chunk_values=2 * 12 * 16 * 16).sum().backward()
    assert max(largest) == 2 * 12 * 16 * 16  # two slices of one channel
    assert len(largest) == 2 * 4 * 8  # every channel of every slab, forward and again on the way back


@pytest.mark.parametrize("dilation", [1, 2])
def test_the_gradient_by_hand_is_that_of_differences(dilation):
    torch.manual_seed(1)
    h = torch.rand(1, 2, 3, 4, 3, requires_grad=True)
    weight = torch.tensor([0.5, 1.5], requires_grad=True)
    direction = torch.randn(1, 12, 3, 4, 3)

    def value(features, weights):
        return float((self_similarity(features, dilation, weights, torch.zeros(1)).double() * direction).sum())

    found = torch.autograd.grad((self_similarity(h, dilation, weight, torch.zeros(1)) * direction).sum(), (h, weight))
    step = 1e-3
    with torch.no_grad():
        for index in range(0, h.numel(), 5):
            change = torch.zeros_like(h).flatten().index_fill(0, torch.tensor([index]), step).reshape(h.shape)
            slope = (value(h + change, weight) - value(h - change, weight)) / (2 * step)
            assert slope == pytest.approx(float(found[0].flatten()[index]), abs=0.02, rel=0.02)
        for channel in range(2):
            change = step * torch.eye(2)[channel]
            slope = (value(h, weight + change) - value(h, weight - change)) / (2 * step)
            assert slope == pytest.approx(float(found[1][channel]), abs=0.02, rel=0.02)
