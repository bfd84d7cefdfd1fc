"""The registration networks: conventions, what each part computes, and that they can learn which way things moved."""

import math

import pytest
import torch
import torch.nn.functional as F

from MMRegCore.errors import InputError
from MMRegCore.networks import find_network, networks
from MMRegCore.networks.blocks import Conv, affine_map, avg_pool2, pad_to_multiple, replicate_pad, upsample2
from MMRegCore.networks.gradient_guided import GatedFusion, GradientGuided, GradientGuidedSettings, gradient_map
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.lapirn import LapIrn, LapIrnSettings
from MMRegCore.networks.masrnet import MasrNetSettings
from MMRegCore.networks.multiprop import Latent, MultiProp, MultiPropSettings, matching_error
from MMRegCore.ops import identity_positions, integrate_velocity, jacobian_determinant, upsample_field, warp

pytestmark = pytest.mark.slow

SMALL_BRANCH = {"encoder": (4, 8), "decoder": (8, 8), "refinement": (8, 4)}
NETWORKS = {
    "multiprop": lambda **more: MultiProp(MultiPropSettings(features=(4, 8), matching=(8, 8), context=(8, 8), **more)),
    "gated": lambda: GradientGuided(GradientGuidedSettings(fusion="gated", **SMALL_BRANCH)),
    "average": lambda: GradientGuided(GradientGuidedSettings(fusion="average", **SMALL_BRANCH)),
    "image": lambda: GradientGuided(GradientGuidedSettings(fusion="image", **SMALL_BRANCH)),
    "lapirn": lambda: LapIrn(LapIrnSettings(start_channels=2, residual_blocks=1)),
    "lapirn, descriptors": lambda: LapIrn(
        LapIrnSettings(
            start_channels=2,
            residual_blocks=1,
            inputs="descriptors",
            descriptor_network=MasrNetSettings(channels=(2, 2, 2, 2), descriptor=4),
        )
    ),
    "lapirn, diffeomorphic": lambda: LapIrn(LapIrnSettings(start_channels=2, residual_blocks=1, diffeomorphic=True)),
}


def test_networks_are_found_by_their_names():
    assert {name: network.name for name, network in networks().items()} == {
        name: name for name in ("brain-unet", "gradient-guided", "lapirn", "masr-net", "multiprop")
    }
    assert find_network("lapirn") is LapIrn
    with pytest.raises(InputError, match="did you mean 'lapirn'"):
        find_network("lapirm")


def smooth_image(shape=(16, 16, 16), seed=0, cells=4):
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 1, cells, cells, cells), generator=random)
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


def smooth_flow(shape, voxels, seed=0):
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 3, 4, 4, 4), generator=random)
    return voxels * torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 14, 19)])
def test_two_images_of_any_size_give_a_displacement_of_theirs(name, shape):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        displacement = network(torch.rand(2, 1, *shape), torch.rand(2, 1, *shape))
    assert displacement.shape == (2, 3, *shape)
    assert torch.isfinite(displacement).all()
    # Untrained, it predicts hardly any motion.
    assert float(displacement.abs().max()) < 1.5


@pytest.mark.parametrize(
    ("name", "axis", "voxels"),
    [
        ("multiprop", 0, 1.5),
        ("gated", 1, -1.5),
        ("average", 2, 1.5),
        ("image", 2, -1.5),
        ("lapirn", 1, 1.5),
        ("lapirn, diffeomorphic", 0, -1.5),
    ],
)
def test_a_translation_is_learned_in_sign_and_axis(name, axis, voxels):
    """moving(x) = fixed(x - t), so that moving(x + u) = fixed(x) for u = t."""
    torch.manual_seed(1)
    network = NETWORKS[name]()
    fixed = smooth_image(cells=6)
    shift = torch.zeros(1, 3, 16, 16, 16)
    shift[:, axis] = voxels
    moving = warp(fixed, -shift)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(30):
        displacement = network(fixed, moving)
        inner = (slice(None), slice(None), *(slice(2, -2),) * 3)
        loss = (warp(moving, displacement) - fixed)[inner].square().mean()
        loss = 100 * loss + 0.3 * sum(torch.diff(displacement, dim=d).square().mean() for d in (2, 3, 4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mean = displacement.detach()[inner].mean(dim=(0, 2, 3, 4))
    assert abs(float(mean[axis]) - voxels) < 0.5
    assert all(abs(float(mean[other])) < 0.4 for other in range(3) if other != axis)


def test_warping_agrees_with_sampling_between_the_outer_voxels_centres():
    """Against PyTorch's other convention: -1 and 1 are the centres of the outer voxels."""
    image, flow = smooth_image((9, 11, 8)), smooth_flow((9, 11, 8), 2.0)
    last = torch.tensor([8.0, 10.0, 7.0]).reshape(3, 1, 1, 1)
    grid = (2 * (identity_positions((9, 11, 8)) + flow) / last - 1).flip(1).permute(0, 2, 3, 4, 1)
    expected = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(image, flow), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(warp(image, torch.zeros_like(flow)), image)


def test_integration_follows_the_velocity():
    """Against Euler's method with many small steps."""
    d, h, w = identity_positions((16, 16, 16))[0]
    velocity = torch.stack([torch.sin(h / 4), torch.cos(w / 5), torch.sin(d / 6 + 1)])[None]
    position = torch.zeros_like(velocity)
    steps = 200
    for _ in range(steps):
        position = position + warp(velocity, position) / steps
    # At the border the flow enters from outside, where the two continue differently.
    inner = (..., slice(2, -2), slice(2, -2), slice(2, -2))
    assert float((integrate_velocity(velocity) - position)[inner].abs().max()) < 0.05
    assert not integrate_velocity(torch.zeros_like(velocity)).any()


def test_a_constant_velocity_is_a_translation():
    velocity = torch.tensor([1.5, -0.5, 0.25]).reshape(1, 3, 1, 1, 1).expand(1, 3, 8, 8, 8)
    torch.testing.assert_close(integrate_velocity(velocity), velocity.contiguous())


def test_integration_does_not_fold_where_the_velocity_would():
    velocity = smooth_flow((20, 20, 20), 2.0)
    assert float(jacobian_determinant(velocity, "forward").min()) < 0
    assert float(jacobian_determinant(integrate_velocity(velocity), "forward").min()) > 0


def test_the_same_flow_at_twice_the_resolution():
    positions = identity_positions((4, 4, 4))
    # u = 0.1 (x - 1.5) on the coarse grid is 0.1 (x' - 3.5) on the fine one, in its own voxels.
    fine = upsample_field(0.1 * (positions - 1.5), (8, 8, 8))
    expected = 0.1 * (identity_positions((8, 8, 8)) - 3.5)
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(fine[inner], expected[inner])


def test_padding_goes_to_the_far_side():
    image = torch.rand(1, 1, 5, 8, 3)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 8, 8, 4)
    assert torch.equal(padded[..., :5, :, :3], image)


def test_an_affine_map_is_about_the_middle():
    positions = identity_positions((5, 7, 9))
    matrix = torch.eye(3, 4)[None].clone()
    torch.testing.assert_close(affine_map(matrix, positions), positions)
    matrix[0, :, :3] *= 2
    matrix[0, 0, 3] = 1 / 4.5
    moved = affine_map(matrix, positions)[0]
    assert moved[:, 2, 3, 4].tolist() == pytest.approx([3, 3, 4])
    assert moved[:, 3, 3, 4].tolist() == pytest.approx([5, 3, 4])


def test_the_affine_part_and_the_deformation_compose():
    """The displacement leads through both: warping at once is warping twice, affine first on the moving image."""
    torch.manual_seed(0)
    network = NETWORKS["multiprop"](affine=True).eval()
    with torch.no_grad():
        network.affine.numbers.bias.copy_(torch.tensor([0.02, 0, 0.05, 0.1, 0, -0.03, 0, 0.05, 0.04, 0, 0, -0.1]))
        network.matching[0].flow.convolution.bias.copy_(torch.tensor([0.3, -0.4, 0.2]))
        fixed, moving = smooth_image(seed=1), smooth_image(seed=2)
        found = network.propagate(fixed, moving)
        deformation = upsample_field(found.scales[-1].displacement, (16, 16, 16))
        twice = warp(found.moving, deformation)
        once = warp(moving, found.displacement_voxel)
    inner = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    assert float((found.displacement_voxel - deformation)[inner].abs().mean()) > 0.2
    # Twice interpolated, the image is a little smoother.
    assert float((twice - once)[inner].abs().mean()) < 0.01


def test_the_matching_error_is_that_of_the_equation():
    a, b = torch.rand(1, 3, 2, 3, 2), torch.rand(1, 3, 2, 3, 2)
    error = matching_error(a, b)
    for d in range(2):
        for h in range(3):
            for w in range(2):
                expected = sum(abs(float(a[0, c, d, h, w] - b[0, c, d, h, w])) for c in range(3)) / 3
                assert float(error[0, 0, d, h, w]) == pytest.approx(expected, abs=1e-6)


def test_the_matching_network_sees_the_warped_features():
    """Where the displacement already matches the images, the error that it is given is zero."""
    network = NETWORKS["multiprop"]()
    features = smooth_image((8, 8, 8)).expand(1, 4, 8, 8, 8)
    shift = torch.zeros(1, 3, 8, 8, 8)
    shift[:, 1] = 1.0
    seen = []
    network.matching[0].body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.matching[0](shift, features, warp(features, -shift))
    assert seen[0].shape[1] == 2 * 4 + 4
    assert float(seen[0][0, -1, :, 1:-1].abs().max()) < 1e-5
    torch.testing.assert_close(seen[0][:, :3], shift)


def test_latents_have_the_mean_and_spread_that_they_say():
    latent = Latent(torch.full((1, 1, 30, 30, 30), 2.0), torch.full((1, 1, 30, 30, 30), math.log(9.0)))
    torch.manual_seed(0)
    assert torch.equal(latent.sample(0.0), latent.mean)
    drawn = latent.sample(1.0)
    assert float(drawn.mean()) == pytest.approx(2, abs=0.1)
    assert float(drawn.std()) == pytest.approx(3, abs=0.1)


def test_sampling_changes_the_deformation_and_means_do_not():
    torch.manual_seed(0)
    network = NETWORKS["multiprop"]().eval()
    fixed, moving = smooth_image(seed=1), smooth_image(seed=2)
    with torch.no_grad():
        for part in network.matching:
            part.flow.convolution.weight.normal_(std=0.1)
        means = [network(fixed, moving) for _ in range(2)]
        samples = [network.propagate(fixed, moving, strength=1.0).displacement_voxel for _ in range(2)]
    assert torch.equal(*means)
    assert not torch.equal(*samples)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_multiprop_has_so_many_scales(count):
    network = MultiProp(MultiPropSettings(features=(4,) * count, matching=(4,), context=(4,)))
    shape = (32, 32, 32)
    with torch.no_grad():
        found = network.propagate(torch.rand(1, 1, *shape), torch.rand(1, 1, *shape))
    assert [s.displacement.shape[2] for s in found.scales] == [32 // 2**n for n in range(count, 0, -1)]


def test_scales_beyond_four_are_refused():
    with pytest.raises(InputError, match="2, 3 or 4 scales"):
        MultiPropSettings(features=(4,) * 5)


def test_the_gradient_map_is_that_of_the_equation():
    image = torch.rand(1, 1, 4, 5, 6)
    found = gradient_map(image)
    v = image[0, 0]
    for d, h, w in ((1, 1, 1), (2, 3, 4), (1, 2, 2)):
        slopes = (
            v[d + 1, h, w] - v[d - 1, h, w],
            v[d, h + 1, w] - v[d, h - 1, w],
            v[d, h, w + 1] - v[d, h, w - 1],
        )
        assert float(found[0, 0, d, h, w]) == pytest.approx(math.sqrt(sum(float(s) ** 2 for s in slopes)), abs=1e-5)


def test_the_gate_begins_as_the_mean_and_can_choose():
    gate, a, b = GatedFusion(), torch.randn(1, 3, 4, 4, 4), torch.randn(1, 3, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(gate(a, b), (a + b) / 2, atol=0.05, rtol=0)
        gate.gates.convolution.bias.copy_(torch.tensor([30.0] * 3 + [-30.0] * 3))
        torch.testing.assert_close(gate(a, b), a, atol=1e-5, rtol=0)


def test_lapirn_stops_at_the_level_that_is_asked_for():
    torch.manual_seed(0)
    network = NETWORKS["lapirn"]().eval()
    fixed, moving = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        all_levels, first = network.fields(fixed, moving), network.fields(fixed, moving, 1)
    assert [f.flow.shape[2] for f in all_levels] == [4, 8, 16]
    torch.testing.assert_close(first[0].flow, all_levels[0].flow)
    assert network.at_full_resolution(first, fixed.shape[2:]).shape == (1, 3, 16, 16, 16)


def test_lapirn_encodes_descriptors_at_half_the_resolution_and_does_not_train_them():
    torch.manual_seed(0)
    network = NETWORKS["lapirn, descriptors"]()
    image = torch.rand(2, 1, 9, 10, 12)
    encoded = network.encode(image)
    assert encoded.shape == (2, 4, 5, 5, 6)
    alone = F.normalize(network.descriptor_network(unit_range(image[1:])), dim=1)
    torch.testing.assert_close(encoded[1, :, :4], F.avg_pool3d(alone, 2)[0], atol=1e-4, rtol=1e-4)
    displacement = network(image, image.flip(2))
    predicted = network.predict(encoded, network.encode(image.flip(2)), image.shape[2:])
    torch.testing.assert_close(predicted, displacement)
    displacement.square().sum().backward()
    assert all(p.grad is None for p in network.descriptor_network.parameters())
    assert all(p.grad is not None for p in network.levels.parameters())
    assert NETWORKS["lapirn"]().encode(image) is image


def test_lapirn_moves_no_further_than_its_range():
    torch.manual_seed(0)
    network = LapIrn(LapIrnSettings(start_channels=2, residual_blocks=1, range_flow=0.1))
    with torch.no_grad():
        network.levels[0].flow.convolution.bias.fill_(1e6)
        flow = network.fields(torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16), 1)[0].flow
    assert float(flow.max()) == pytest.approx(0.1 * 3 / 2, rel=1e-3)


def test_avg_pool2_is_the_mean_of_blocks_in_any_precision_and_layout():
    volume = torch.rand(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool3d(volume, 2)
    torch.testing.assert_close(avg_pool2(volume), expected)
    together = volume.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(avg_pool2(together), expected)
    half = avg_pool2(volume.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.01, rtol=0)


def test_edges_and_upsampling_keep_bfloat16_where_autocast_would_not():
    volume = torch.rand(1, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.pad(volume, (1,) * 6, mode="replicate").dtype == torch.float32  # what autocast would do
        padded, fine = replicate_pad(volume, (1,) * 6), upsample2(volume)
    assert padded.dtype == fine.dtype == torch.bfloat16
    assert torch.equal(padded.float(), F.pad(volume.float(), (1,) * 6, mode="replicate"))
    wanted = F.interpolate(volume.float(), scale_factor=2, mode="trilinear", align_corners=False)
    torch.testing.assert_close(fine.float(), wanted, atol=0.01, rtol=0)


def test_activation_in_place_leaves_input_and_gradient_as_they_must_be():
    torch.manual_seed(0)
    layer, volume = Conv(2, 3).double(), torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    before = volume.detach().clone()
    plain = F.leaky_relu(layer.convolution(F.pad(volume, (1,) * 6, mode="replicate")), 0.2)
    assert torch.equal(layer(volume), plain)
    assert torch.equal(volume.detach(), before)
    assert torch.autograd.gradcheck(layer, volume)
