"""Instance optimisation on descriptors: its pieces against their definitions, and known shifts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from known_motion import error_voxel, made_up_pair
from MMRegCore import register
from MMRegCore.config import RegistrationSettings, load_preset
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import Cancelled, InputError
from MMRegCore.methods import mcbo
from MMRegCore.methods.dns import DnsSettings, solve
from MMRegCore.monitor import Monitor
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.weights import load_network
from MMRegCore.ops import gaussian_blur, warp
from MMRegCore.optimisation.adam import DescriptorDistance
from MMRegCore.optimisation.instance import Level, optimise_levels
from MMRegCore.prepare import Prepared
from MMRegCore.search.settings import SearchSettings
from MMRegCore.similarity import make_descriptor
from MMRegCore.similarity.settings import DescriptorSettings
from MMRegCore.training.engine.checkpoint import write_weights
from MMRegCore.volume import Channel
from scenes import box, problem, scene, texture_at

pytestmark = pytest.mark.slow

SHAPE = (24, 28, 26)
SHIFT_DHW = (1.0, -1.5, 2.0)
MIND = DnsSettings(descriptor=DescriptorSettings(name="mind"), rigid_first=False, iterations=(30, 15, 5))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a small network that was never trained, but for the mean of its descriptors: they shall differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MasrNet(MasrNetSettings(channels=(4, 4, 4, 4)))
        image = gaussian_blur(torch.rand(1, 1, *SHAPE), 2.0)
    with torch.no_grad():
        described = network((image - image.min()) / (image.max() - image.min()))
        network.head[1].convolution.bias -= described.mean((0, 2, 3, 4))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    write_weights(network, path)
    return str(path)


def pair(*shifts: tuple[float, float, float], inverted: bool = True) -> Prepared:
    """A fixed image and, for each shift (d, h, w), a moving image, inverted or not."""

    def image(shift, negative):
        points = box(SHAPE).points_ras() - np.array(shift)[::-1]
        return Channel(texture_at(points, inverted=negative)[None], torch.ones(1, 1, *SHAPE))

    return Prepared(box(SHAPE), image((0, 0, 0), False), tuple(image(shift, inverted) for shift in shifts))


def found(prepared: Prepared, settings: DnsSettings) -> torch.Tensor:
    return solve(problem(prepared), settings).displacement_voxel


def with_network(weights: str, settings: DnsSettings = MIND, **changes) -> DnsSettings:
    return replace(settings, descriptor=DescriptorSettings(name="dns", dns_weights=weights), **changes)


def error(displacement: torch.Tensor, shift=SHIFT_DHW) -> float:
    missed = displacement - torch.tensor(shift).reshape(1, 3, 1, 1, 1)
    return float(missed[..., 5:-5, 5:-5, 5:-5].norm(dim=1).mean())


@pytest.mark.parametrize("parametrisation", ["displacement", "velocity"])
@pytest.mark.parametrize("descriptor", ["mind", "dns"])
def test_known_shift(weights, descriptor, parametrisation):
    # A network that was never trained does not know that black and white are alike; MIND does.
    settings = MIND if descriptor == "mind" else with_network(weights)
    displacement = found(
        pair(SHIFT_DHW, inverted=descriptor == "mind"), replace(settings, parametrisation=parametrisation)
    )
    assert displacement.shape == (1, 3, *SHAPE)
    assert error(displacement) < 0.3 * np.linalg.norm(SHIFT_DHW)


def test_all_moving_images_count():
    both = found(pair(SHIFT_DHW, (1.0, -0.5, 1.0)), MIND)
    mean = both[..., 6:-6, 6:-6, 6:-6].mean(dim=(0, 2, 3, 4))
    assert float(mean[1]) == pytest.approx(-1.0, abs=0.5)
    assert error(both, (1.0, -1.0, 1.5)) < min(error(both), error(both, (1.0, -0.5, 1.0)))


def test_what_lies_outside_the_masks_does_not_count(weights):
    prepared = pair(SHIFT_DHW)
    (moving,) = prepared.moving
    weight = torch.zeros_like(moving.weight)
    weight[..., 4:-4, 4:-4, 4:-4] = 1
    noise = 5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    settings = with_network(weights, iterations=(4, 3, 2))
    results = [
        found(replace(prepared, moving=(Channel(torch.where(weight > 0, moving.image, other), weight),)), settings)
        for other in (noise, -2 * noise)
    ]
    torch.testing.assert_close(results[0], results[1])
    assert float(results[0].abs().max()) > 0.1


def test_a_rigid_search_brings_what_is_far():
    prepared, truth = made_up_pair((4.0, -5.0, 3.0), noise=0.1)
    search = SearchSettings(sampling_spacing_mm=(2.0, 1.0), half_width=(2, 2), range_mm=6.0)
    settings = replace(MIND, search=search, iterations=(0, 0, 2))
    near = found(prepared, replace(settings, rigid_first=True))
    far = found(prepared, settings)
    assert error_voxel(near, truth, prepared.fixed.weight) < 1.0
    assert error_voxel(far, truth, prepared.fixed.weight) > 5.0


def test_the_default_settings_are_those_of_table_4():
    settings = DnsSettings()
    assert settings.learning_rate == (1e-2, 5e-3, 3e-3)
    assert settings.iterations == (100, 80, 50)
    assert settings.regularisation == (0.6, 0.5, 0.4)


@pytest.mark.parametrize("name", ["iterations", "learning_rate", "regularisation"])
def test_levels_must_fit_together(name):
    with pytest.raises(InputError, match=f"expected as many values in {name} as levels"):
        DnsSettings(**{name: (10, 10)})


def test_the_distance_is_that_of_its_definition():
    fixed, moving = torch.randn(2, 1, 5, 6, 7, 8)
    weight = torch.rand(1, 1, 6, 7, 8) * (torch.rand(1, 1, 6, 7, 8) > 0.3)
    displacement = torch.randn(1, 3, 6, 7, 8)
    # Of unit vectors: twice one less the cosine similarity.
    cosine = F.cosine_similarity(fixed, warp(moving, displacement), dim=1)
    expected = 2 - 2 * (cosine * weight[:, 0]).sum() / weight.sum()
    torch.testing.assert_close(DescriptorDistance.of(fixed, moving, weight, unit=True)(displacement), expected)
    squared = (fixed - warp(moving, displacement)).square().sum(dim=1)
    expected = (squared * weight[:, 0]).sum() / weight.sum()
    torch.testing.assert_close(DescriptorDistance.of(fixed, moving, weight)(displacement), expected)


def test_learning_rates_are_in_halves_of_the_grid():
    # The first step of Adam is the learning rate, whatever the gradient: 0.01 · n / 2 voxels of the grid.
    fixed, moving = gaussian_blur(torch.randn(1, 3, 16, 20, 24), 2.0), torch.zeros(1, 3, 16, 20, 24)
    moving[..., 1:] = fixed[..., :-1]
    levels = [Level(scale=1.0, iterations=1, learning_rate=1e-2, regularisation=0.0)]
    step = optimise_levels(
        fixed,
        [moving],
        [torch.ones(1, 1, 16, 20, 24)],
        levels,
        parametrisation="displacement",
        unit=True,
        monitor=Monitor(),
    )
    for axis, size in enumerate((16, 20, 24)):
        assert float(step[0, axis].abs().median()) == pytest.approx(0.01 * size / 2, rel=1e-2)


def test_velocities_do_not_fold_where_displacements_do():
    prepared = pair((3.0, -3.0, 3.0))
    weak = replace(MIND, regularisation=(0.0, 0.0, 0.0), smoothing_voxel=0.0, iterations=(30, 5, 3))

    def folds(parametrisation):
        displacement = found(prepared, replace(weak, parametrisation=parametrisation))
        return int((DisplacementField.from_voxel(displacement, prepared.grid).jacobian_determinant() <= 0).sum())

    assert folds("velocity") < 0.5 * folds("displacement")


def test_descriptors_serve_the_coupled_convex_method_too(weights):
    small = mcbo.McboSettings(
        strides=(1, 2),
        weights=(0.5, 0.5),
        half_width=2,
        descriptor=DescriptorSettings(name="dns", dns_weights=weights),
    )
    solution = mcbo.solve(problem(pair(SHIFT_DHW, inverted=False)), small)
    assert error(solution.displacement_voxel) < 0.3 * np.linalg.norm(SHIFT_DHW)


@pytest.mark.parametrize("name", ["dns", "dns-mr"])
def test_the_presets_come_with_their_weights(name):
    settings = load_preset(name)
    assert settings.method == "dns"
    assert settings.options.descriptor.name == "dns"
    assert isinstance(load_network(settings.options.descriptor.dns_weights, MasrNet), MasrNet)


def test_the_trained_network_knows_that_black_and_white_are_alike():
    # What a network that was never trained does not.
    settings = replace(load_preset("dns-mr").options, iterations=(40, 20, 10))
    assert error(found(pair(SHIFT_DHW), settings)) < 0.3 * np.linalg.norm(SHIFT_DHW)


def test_weights_that_are_not_there_are_named(tmp_path: Path):
    settings = DescriptorSettings(name="dns", dns_weights=str(tmp_path / "not-there.safetensors"))
    with pytest.raises(InputError, match=r"not-there\.safetensors"):
        make_descriptor(settings)


def test_its_result_is_compared_with_the_initial_transform_as_that_of_every_method():
    image = scene(box(SHAPE))
    settings = RegistrationSettings(method="dns", options=replace(MIND, iterations=(2, 2, 2)))
    quality = register(image, image, settings=settings, device="cpu").assessment.quality
    assert quality.model_selection.selected == "initial"
    assert quality.verdict.expected_error_mm is not None


def test_cancelling_takes_effect():
    def stop(stage, fraction):
        if stage.startswith("descriptors at"):
            monitor.cancel()

    monitor = Monitor(stop)
    with pytest.raises(Cancelled):
        solve(problem(pair(SHIFT_DHW), monitor=monitor), MIND)
