"""Instance optimisation on descriptors: its pieces against their definitions, and known shifts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from known_motion import error_voxel, made_up_pair
from MMRegCore.config import DnsSettings, Lc2Settings, McboSettings, RegistrationSettings, load_preset
from MMRegCore.config.networks import MasrNetSettings
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import Cancelled, InputError
from MMRegCore.features.smoothing import gaussian_smoothed
from MMRegCore.geometry import Grid
from MMRegCore.methods.descriptors import descriptors
from MMRegCore.methods.dns import dns
from MMRegCore.methods.mcbo import mcbo
from MMRegCore.methods.solve import solve
from MMRegCore.monitor import Monitor
from MMRegCore.networks.flow import integrated
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network
from MMRegCore.optimisation.multilevel import _Term, optimise_levels
from MMRegCore.preprocess import Prepared
from MMRegCore.simulate.noise import gaussian_blur
from MMRegCore.training.checkpoint import write_weights
from MMRegCore.warp import warp

SHAPE = (24, 28, 26)
SHIFT_DHW = (1.0, -1.5, 2.0)
MIND = DnsSettings(features="mind", start="given", iterations=(30, 15, 5))


@pytest.fixture
def weights(tmp_path):
    """Path of a small network that was never trained, but for the mean of its descriptors: they shall differ."""
    torch.manual_seed(0)
    settings = MasrNetSettings(channels=(4, 4, 4, 4))
    network = MasrNet(settings)
    with torch.no_grad():
        image = gaussian_blur(torch.rand(1, *SHAPE), (2.0,) * 3)[None]
        network.head[1].convolution.bias -= network((image - image.min()) / (image.max() - image.min())).mean(
            (0, 2, 3, 4)
        )
    path = tmp_path / "small.safetensors"
    write_weights(network, path, {"architecture": "masr-net", "settings": settings.to_dict()})
    return str(path)


@pytest.fixture
def pair(blobs):
    """A fixed image and, for each shift (d, h, w), a moving image, inverted or not."""

    def make(*shifts, inverted=True) -> Prepared:
        matrix = np.eye(4)
        matrix[:3, 3] = -(np.array(SHAPE[::-1]) - 1) / 2
        grid = Grid(SHAPE, matrix)

        def image(shift, negative):
            return torch.from_numpy(blobs(grid.points_ras() - np.array(shift)[::-1], negative)).float()[None, None]

        ones = torch.ones(1, 1, *SHAPE)
        return Prepared(
            grid, image((0, 0, 0), False), ones, tuple(image(s, inverted) for s in shifts), (ones,) * len(shifts)
        )

    return make


def found(prepared, settings) -> torch.Tensor:
    return dns(prepared, settings, Lc2Settings(), Monitor()).displacement_voxel


def error(displacement, shift=SHIFT_DHW) -> float:
    missed = displacement - torch.tensor(shift).reshape(1, 3, 1, 1, 1)
    return float(missed[..., 5:-5, 5:-5, 5:-5].norm(dim=1).mean())


@pytest.mark.parametrize("form", ["displacement", "velocity"])
@pytest.mark.parametrize("features", ["mind", "dns"])
def test_known_shift(pair, weights, features, form):
    # A network that was never trained does not know that black and white are alike; MIND does.
    settings = replace(MIND, features=features, form=form, dns_weights=weights)
    displacement = found(pair(SHIFT_DHW, inverted=features == "mind"), settings)
    assert displacement.shape == (1, 3, *SHAPE)
    assert error(displacement) < 0.3 * np.linalg.norm(SHIFT_DHW)


def test_all_moving_images_count(pair):
    both = found(pair(SHIFT_DHW, (1.0, -0.5, 1.0)), MIND)
    mean = both[..., 6:-6, 6:-6, 6:-6].mean(dim=(0, 2, 3, 4))
    assert float(mean[1]) == pytest.approx(-1.0, abs=0.5)
    assert error(both, (1.0, -1.0, 1.5)) < min(error(both), error(both, (1.0, -0.5, 1.0)))


def test_what_lies_outside_the_masks_does_not_count(pair, weights):
    prepared = pair(SHIFT_DHW)
    weight = torch.zeros_like(prepared.fixed)
    weight[..., 4:-4, 4:-4, 4:-4] = 1
    noise = 5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    settings = replace(MIND, features="dns", dns_weights=weights, iterations=(4, 3, 2))
    results = [
        found(replace(prepared, moving=(torch.where(weight > 0, image, noise * k),), moving_weight=(weight,)), settings)
        for image, k in ((prepared.moving[0], 1), (prepared.moving[0], -2))
    ]
    torch.testing.assert_close(results[0], results[1])
    assert float(results[0].abs().max()) > 0.1


def test_a_rigid_search_brings_what_is_far(pair):
    prepared, truth = made_up_pair((4.0, -5.0, 3.0), noise=0.1)
    rigid = Lc2Settings(lattice_mm=(2.0, 1.0), radius=(2, 2), reach_mm=6.0)
    settings = replace(MIND, start="lc2", iterations=(0, 0, 2))
    near = dns(prepared, settings, rigid, Monitor()).displacement_voxel
    far = dns(prepared, replace(settings, start="given"), rigid, Monitor()).displacement_voxel
    assert error_voxel(near, truth, prepared.fixed_weight) < 1.0
    assert error_voxel(far, truth, prepared.fixed_weight) > 5.0


def test_the_default_settings_are_those_of_table_4():
    settings = DnsSettings()
    assert settings.learning_rate == (1e-2, 5e-3, 3e-3)
    assert settings.iterations == (100, 80, 50)
    assert settings.regularisation == (0.6, 0.5, 0.4)


def test_levels_must_fit_together():
    with pytest.raises(InputError, match="iterations"):
        DnsSettings(iterations=(10, 10))


def test_dissimilarity_is_one_more_than_the_negated_cosine_similarity():
    fixed, moving = torch.randn(2, 1, 5, 6, 7, 8)
    weight = torch.rand(1, 1, 6, 7, 8) * (torch.rand(1, 1, 6, 7, 8) > 0.3)
    displacement = torch.randn(1, 3, 6, 7, 8)
    cosine = F.cosine_similarity(fixed, warp(moving, displacement), dim=1)
    expected = 1 - (cosine * weight[:, 0]).sum() / weight.sum()
    torch.testing.assert_close(_Term.of(fixed, moving, weight, unit=True).dissimilarity(displacement), expected)
    squared = (fixed - warp(moving, displacement)).square().sum(dim=1)
    expected = (squared * weight[:, 0]).sum() / weight.sum() / 2
    torch.testing.assert_close(_Term.of(fixed, moving, weight, unit=False).dissimilarity(displacement), expected)


def test_learning_rates_are_in_halves_of_the_grid():
    # The first step of Adam is the learning rate, whatever the gradient: 0.01 · n / 2 voxels of the grid.
    fixed, moving = gaussian_blur(torch.randn(3, 16, 20, 24), (2.0,) * 3)[None], torch.zeros(1, 3, 16, 20, 24)
    moving[..., 1:] = fixed[..., :-1]
    settings = DnsSettings(scales=(1.0,), iterations=(1,), learning_rate=(1e-2,), regularisation=(0.0,))
    ones = torch.ones(1, 1, 16, 20, 24)
    step = optimise_levels(fixed, [moving], [ones], settings, Monitor(), unit=True)
    for axis, size in enumerate((16, 20, 24)):
        assert float(step[0, axis].abs().median()) == pytest.approx(0.01 * size / 2, rel=1e-2)


def test_a_velocity_is_integrated_to_what_can_be_undone():
    velocity = gaussian_blur(torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)), (4.0,) * 3)[None]
    velocity = velocity * (3 / velocity.abs().max())
    forward, backward = integrated(velocity), integrated(-velocity)
    assert float((forward + warp(backward, forward))[..., 4:-4, 4:-4, 4:-4].abs().max()) < 0.05
    # Not the velocity itself, and the flow of a constant one is that constant.
    assert float((forward - velocity).abs().max()) > 0.1
    constant = torch.ones(1, 3, 8, 8, 8)
    torch.testing.assert_close(integrated(constant), constant)


def test_velocities_do_not_fold_where_displacements_do(pair):
    prepared = pair((3.0, -3.0, 3.0))
    weak = replace(MIND, regularisation=(0.0, 0.0, 0.0), smoothing_voxel=0.0, iterations=(30, 5, 3))

    def folds(form):
        field = DisplacementField.from_voxel(found(prepared, replace(weak, form=form)), prepared.grid)
        return int((field.jacobian_determinant() <= 0).sum())

    assert folds("velocity") < 0.5 * folds("displacement")


def test_smoothing_is_a_gaussian():
    volume = torch.randn(1, 4, 9, 10, 11)
    for sigma in (0.7, 1.0, 2.0):
        torch.testing.assert_close(gaussian_smoothed(volume, sigma), gaussian_blur(volume[0], (sigma,) * 3)[None])
    assert gaussian_smoothed(volume, 0) is volume


def test_descriptors_serve_the_coupled_convex_method_too(pair, weights):
    small = McboSettings(strides=(1, 2), weights=(0.5, 0.5), half_width=2, features="dns", dns_weights=weights)
    displacement = mcbo(pair(SHIFT_DHW, inverted=False), small, "mean", 2**30, Monitor()).displacement_voxel
    assert error(displacement) < 0.3 * np.linalg.norm(SHIFT_DHW)


@pytest.mark.parametrize("name", ["dns", "dns-mr"])
def test_the_presets_come_with_their_weights(name):
    settings = load_preset(name)
    assert settings.method == "dns"
    assert isinstance(load_network(settings.dns.dns_weights, architecture="masr-net"), MasrNet)


def test_the_trained_network_knows_that_black_and_white_are_alike(pair):
    # What a network that was never trained does not.
    settings = replace(load_preset("dns-mr").dns, iterations=(40, 20, 10))
    assert error(found(pair(SHIFT_DHW), settings)) < 0.3 * np.linalg.norm(SHIFT_DHW)


def test_weights_that_are_not_there_are_named():
    settings = DnsSettings(dns_weights="not-there.safetensors")
    with pytest.raises(InputError, match=r"not-there\.safetensors"):
        descriptors(settings, torch.device("cpu"))


def test_it_competes_with_the_start_as_every_method_does(pair):
    settings = RegistrationSettings(method="dns", dns=replace(MIND, iterations=(2, 2, 2)))
    solution = solve(pair((0.0, 0.0, 0.0)), settings, 2**30, Monitor())
    assert solution.choice is not None
    assert "expected_error_mm" in solution.maps


def test_cancelling_takes_effect(pair):
    def stop(stage, fraction):
        if stage.startswith("descriptors at"):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        dns(pair(SHIFT_DHW), MIND, Lc2Settings(), Monitor(stop))
