"""MASR-Net: any size, every weight, gradient checkpointing; downsampling and upsampling."""

import math
from itertools import product

import pytest
import torch

from MMRegCore.errors import InputError
from MMRegCore.networks import masrnet
from MMRegCore.networks.blocks import blur_pool, crop_to, upsample2
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings

SMALL = MasrNetSettings(channels=(2, 3, 4, 5))


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


def descriptors_and_stored(network, image):
    """Descriptors, and how many numbers are stored for the backward pass."""
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t.numel()) or t, lambda t: t):
        descriptors = network(image)
    return descriptors, sum(stored)


def test_large_volumes_are_checkpointed_with_the_same_values_and_gradients(monkeypatch):
    torch.manual_seed(0)
    network = MasrNet(SMALL).double()
    monkeypatch.setattr(masrnet, "_SLAB", 3)
    image = torch.rand(2, 1, 9, 10, 11, dtype=torch.float64)
    found = []
    for large in (10**9, 1):
        monkeypatch.setattr(masrnet, "LARGE_VOXELS", large)
        descriptors, stored = descriptors_and_stored(network, image)
        gradients = torch.autograd.grad(descriptors.square().sum(), list(network.parameters()))
        found.append((descriptors.detach(), gradients, stored))
    (values, gradients, much), (again, same, little) = found
    torch.testing.assert_close(values, again, atol=1e-5, rtol=1e-5)  # h is compared in single precision
    # That of what shifts all of h is nothing, but for rounding.
    torch.testing.assert_close(same, gradients, atol=2e-3, rtol=1e-4)
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
    back = crop_to(upsample2(blur_pool(ramp)), (12, 11, 12))
    assert back.shape == ramp.shape
    torch.testing.assert_close(back[:, :, 4:-4], ramp[:, :, 4:-4])


def test_the_network_has_four_resolutions():
    with pytest.raises(InputError, match="four resolutions"):
        MasrNetSettings(channels=(8, 16, 32))
