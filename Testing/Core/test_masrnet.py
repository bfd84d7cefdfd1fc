"""MASR-Net: Eq. 1 against a transcription of it, voxel by voxel; chunks, parts and gradients against the whole."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from MMRegCore.config.networks import MasrNetSettings
from MMRegCore.errors import InputError
from MMRegCore.networks import masrnet
from MMRegCore.networks.blocks import blur_pool, upsampled
from MMRegCore.networks.masrnet import _LEAST_NOISE, NEIGHBOURS, PAIRS, MasrNet, self_similarity

SMALL = MasrNetSettings(channels=(2, 3, 4, 5))


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
    return [math.exp(-d / (noise + _LEAST_NOISE)) for d in squared]


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
    similar = torch.exp(-squared / (squared.mean(dim=1, keepdim=True) + _LEAST_NOISE))
    plain = torch.einsum("bpcdhw,c->bpdhw", similar, weight)
    torch.testing.assert_close(found, torch.autograd.grad(plain.square().sum(), h)[0], atol=1e-4, rtol=1e-4)


def test_the_whole_self_similarity_is_never_held(monkeypatch):
    largest = []
    original = torch.Tensor.exp
    monkeypatch.setattr(torch.Tensor, "exp", lambda self: largest.append(self.numel()) or original(self))
    h = torch.rand(1, 4, 16, 16, 16, requires_grad=True)
    self_similarity(h, 1, torch.ones(4), torch.zeros(1), chunk_values=2 * 12 * 4 * 16 * 16).sum().backward()
    assert max(largest) == 2 * 4 * 16 * 16  # two slices of one pair
    assert len(largest) == 2 * 12 * 8  # every pair of every slab, forward and again on the way back


@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 13, 18), (5, 6, 7)])
def test_descriptors_of_any_size(shape):
    torch.manual_seed(0)
    network = MasrNet(SMALL)
    image = torch.rand(2, 1, *shape)
    descriptor = network(image)
    assert descriptor.shape == (2, 24, *shape)
    # Alone, an image is convolved by other instructions: dividing by the noise of flat places shows their rounding.
    torch.testing.assert_close(network(image[1:]), descriptor[1:], atol=1e-4, rtol=1e-4)


def test_every_weight_learns():
    network = MasrNet(SMALL)
    network(torch.rand(1, 1, 16, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def described_and_kept(network, image):
    """Descriptors, and how many numbers are kept for the way back."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        described = network(image)
    return described, sum(kept)


def test_large_volumes_are_computed_in_stages_with_the_same_values_and_gradients(monkeypatch):
    torch.manual_seed(0)
    network = MasrNet(SMALL).double()
    image = torch.rand(2, 1, 9, 10, 11, dtype=torch.float64)
    found = []
    for large in (10**9, 1):
        monkeypatch.setattr(masrnet, "LARGE_VOXELS", large)
        described, kept = described_and_kept(network, image)
        gradients = torch.autograd.grad(described.square().sum(), list(network.parameters()))
        found.append((described.detach(), gradients, kept))
    (values, gradients, much), (again, same, little) = found
    assert torch.equal(values, again)
    torch.testing.assert_close(same, gradients)
    assert little < 0.7 * much


def test_blur_pool_is_the_binomial_kernel_at_every_second_place():
    volume = torch.randn(1, 2, 5, 6, 7)
    pooled = blur_pool(volume)
    assert pooled.shape == (1, 2, 3, 3, 4)
    for place in product(range(3), range(3), range(4)):
        expected = torch.zeros(2)
        for offset in product(range(4), repeat=3):
            share = math.prod((1, 3, 3, 1)[o] / 8 for o in offset)
            source = [
                min(max(2 * p - 1 + o, 0), n - 1) for p, o, n in zip(place, offset, volume.shape[2:], strict=True)
            ]
            expected += share * volume[(0, slice(None), *source)]
        torch.testing.assert_close(pooled[(0, slice(None), *place)], expected)


def test_upsampling_puts_pooled_values_back_where_they_were():
    ramp = torch.arange(12.0).reshape(1, 1, 12, 1, 1).expand(1, 1, 12, 11, 12)
    back = upsampled(blur_pool(ramp), (12, 11, 12))
    assert back.shape == ramp.shape
    torch.testing.assert_close(back[:, :, 4:-4], ramp[:, :, 4:-4])


def test_the_network_has_four_resolutions():
    with pytest.raises(InputError, match="four resolutions"):
        MasrNetSettings(channels=(8, 16, 32))
