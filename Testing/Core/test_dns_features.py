"""DNS descriptors of whole volumes: tiles leave no trace, masks count, intensities do not."""

import pytest
import torch

from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.ops import gaussian_blur
from MMRegCore.similarity.descriptors.dns import dns


@pytest.fixture
def network():
    torch.manual_seed(1)
    return MasrNet(MasrNetSettings(channels=(3, 4, 5, 6))).eval().requires_grad_(False)


def smooth_image(shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return gaussian_blur(torch.randn(1, 1, *shape, generator=random), 1.5)


@pytest.mark.parametrize(("shape", "dilation"), [((28, 33, 21), 2), ((20, 21, 36), 3)])
def test_tiles_leave_no_trace(shape, dilation):
    torch.manual_seed(2)
    network = MasrNet(MasrNetSettings(channels=(3, 4, 5, 6), dilation=dilation)).eval().requires_grad_(False)
    image = smooth_image(shape)
    whole = torch.nn.functional.normalize(network(unit_range(image)), dim=1)
    for tile_voxel in (96, 12):
        torch.testing.assert_close(dns(image, network, tile_voxel=tile_voxel), whole, atol=1e-4, rtol=0)


def test_descriptors_are_unit_vectors_and_invariant_to_linear_changes(network):
    image = smooth_image((20, 22, 24))
    descriptors = dns(image, network)
    assert descriptors.shape == (1, 24, 20, 22, 24)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(1, 20, 22, 24))
    torch.testing.assert_close(dns(250 * image + 1000, network), descriptors, atol=1e-2, rtol=0)


def test_what_lies_outside_the_mask_does_not_count(network):
    image = smooth_image((20, 22, 24))
    mask = torch.zeros(20, 22, 24, dtype=torch.bool)
    mask[4:17, 3:20, 5:21] = True
    elsewhere = torch.where(mask, image, 100 * smooth_image((20, 22, 24), seed=1))
    torch.testing.assert_close(dns(elsewhere, network, mask=mask), dns(image, network, mask=mask))
    assert (dns(elsewhere, network) - dns(image, network))[..., mask].abs().max() > 0.1
