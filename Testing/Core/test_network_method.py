"""Registration by a network: what it is given, how its displacement comes back, and images unlike its training's."""

import logging
from dataclasses import replace

import pytest
import torch

from MMRegCore import register
from MMRegCore.config import load_preset, with_changes
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.methods import network as method
from MMRegCore.methods.network import NetworkSettings, domain_mismatch, solve
from MMRegCore.methods.protocol import Solution
from MMRegCore.networks.gradient_guided import GradientGuided, GradientGuidedSettings
from MMRegCore.networks.lapirn import LapIrn, LapIrnSettings
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.multiprop import MultiProp, MultiPropSettings
from MMRegCore.networks.protocol import RegistrationNetwork, RegistrationNetworkSettings, TrainingDomain
from MMRegCore.prepare import Prepared, prepare
from MMRegCore.training.engine.checkpoint import write_weights
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Channel, Volume
from scenes import box, problem, scene, translation

IDENTITY = SpatialTransform.identity()


class Constant(RegistrationNetwork):
    """Moves everything by the same (d, h, w) voxels of its grid, backwards the other way; remembers its inputs."""

    name = "constant"

    def __init__(self, voxels: tuple[float, float, float], trained_on: TrainingDomain) -> None:
        super().__init__(RegistrationNetworkSettings(trained_on))
        self.voxels, self.inputs = torch.tensor(voxels), []

    def predict(self, fixed, moving, shape):
        self.inputs.append((fixed, moving))
        sign = 1 if len(self.inputs) % 2 else -1
        return (sign * self.voxels).reshape(1, 3, 1, 1, 1).expand(1, 3, *shape)


@pytest.fixture
def constant(monkeypatch):
    """``constant(voxels, spacing_mm, …)``: a network that is loaded whatever the weights are called."""

    def make(voxels=(0.0, 0.0, 0.0), spacing_mm=2.0, **domain) -> Constant:
        network = Constant(voxels, TrainingDomain(spacing_mm=spacing_mm, **domain))
        monkeypatch.setattr("MMRegCore.networks.weights.load_network", lambda name, kind: network)
        return network

    return make


def solved(prepared: Prepared, **settings) -> Solution:
    return solve(problem(prepared), NetworkSettings(**{"weights": "mine", **settings}))


def prepared_of(fixed: Volume, moving: Volume) -> Prepared:
    return prepare(fixed, [moving], IDENTITY, spacing_mm="native", masked=True, margin_mm=4.0)


@pytest.fixture
def oblique(oblique_grid, smooth_volume) -> Prepared:
    """A pair on an oblique grid, of one structure in two contrasts."""
    volume = smooth_volume(oblique_grid)
    return prepared_of(volume, volume.with_data(volume.data.exp()))


def test_the_displacement_comes_back_in_space(any_grid, smooth_volume, constant):
    """The network's grid runs along RAS whatever the images': (d, h, w) = (1, 0, -2) of 3 mm is (-6, 0, 3) mm."""
    constant((1.0, 0.0, -2.0), 3.0)
    volume = smooth_volume(any_grid)
    prepared = prepared_of(volume, volume)
    solution = solved(prepared)
    found = DisplacementField.from_voxel(solution.displacement_voxel, prepared.grid).displacement_mm
    torch.testing.assert_close(found, torch.tensor([-6.0, 0.0, 3.0]).expand_as(found), atol=1e-4, rtol=0)
    assert float(solution.maps["inverse_consistency_error"].abs().max()) < 1e-4


def test_several_moving_images_are_registered_one_by_one_and_fused(oblique, constant):
    network = constant((1.0, 0.0, 0.0))
    two = replace(oblique, moving=oblique.moving * 2)
    torch.testing.assert_close(solved(two).displacement_voxel, solved(oblique).displacement_voxel)
    # Forward and backward, for each.
    assert len(network.inputs) == 4 + 2


def test_the_network_gets_axis_aligned_images_from_0_to_1(oblique_grid, constant):
    """A bright corner along R, A and S is where the axis-aligned grid has its last voxels."""
    network = constant()
    offset = oblique_grid.points_ras() - oblique_grid.centre_ras
    values = 500 + 10 * offset.sum(axis=-1) + 3 * offset[..., 0]
    volume = Volume(torch.from_numpy(values).float()[None], oblique_grid)
    prepared = prepared_of(volume, volume)
    solved(prepared)
    fixed = network.inputs[0][0]
    assert fixed.shape[2:] == prepared.grid.axis_aligned(2.0).shape
    assert float(fixed.min()) == 0
    assert float(fixed.max()) == 1
    middle = [n // 2 for n in fixed.shape[2:]]
    core = fixed[0, 0][tuple(slice(m - 3, m + 4) for m in middle)]
    for axis in range(3):
        assert (torch.diff(core, dim=axis) > 0).all()


def test_what_is_outside_the_mask_is_dark(oblique, constant):
    network = constant()
    weight = torch.zeros_like(oblique.fixed.weight)
    weight[..., 6:-6, 6:-6, 6:-6] = 1
    solved(replace(oblique, fixed=Channel(oblique.fixed.image + 100, weight)))
    fixed = network.inputs[0][0]
    assert float(fixed[..., 0, 0, 0]) == 0
    assert float(fixed[..., fixed.shape[2] // 2, fixed.shape[3] // 2, fixed.shape[4] // 2]) > 0.5


def test_a_domain_mismatch_is_logged(oblique, constant, caplog):
    extent = tuple(2.0 * n for n in oblique.grid.axis_aligned(2.0).shape)
    assert domain_mismatch(oblique, TrainingDomain(spacing_mm=2.0, extent_mm=extent)) == []
    other = TrainingDomain(spacing_mm=0.5, extent_mm=(160.0, 50.0, 40.0))
    mismatches = domain_mismatch(oblique, other)
    assert any("expected about 160 mm along S" in text for text in mismatches)
    assert any("expected voxels of 0.5 mm or finer" in text for text in mismatches)
    constant()
    with caplog.at_level(logging.WARNING):
        solved(oblique)
    assert "mine was trained on other images: expected about 160 mm along S" in caplog.text


def test_instance_optimisation_can_follow(oblique, constant):
    """It brings a wrong displacement of the network nearer to the truth, which is none."""
    constant((0.5, 0.5, 0.5))
    size = [float(solved(oblique, refine=refine).displacement_voxel.norm(dim=1).mean()) for refine in (False, True)]
    assert size[1] < 0.8 * size[0]


NETWORKS = {
    "multiprop": MultiProp(MultiPropSettings(features=(4, 4), matching=(4,), context=(4,))),
    "gradient-guided": GradientGuided(GradientGuidedSettings(encoder=(4, 4), decoder=(4, 4), refinement=(4,))),
    "lapirn": LapIrn(LapIrnSettings(start_channels=1, residual_blocks=1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_registers_from_a_file_by_its_preset(name, tmp_path):
    write_weights(NETWORKS[name], tmp_path / "mine.safetensors")
    image = scene(box((20, 22, 24), 2.0))
    settings = with_changes(load_preset(name), {"network.weights": str(tmp_path / "mine.safetensors")})
    assert (settings.method, settings.options.architecture) == ("network", name)
    quality = register(image, image, settings=settings, device="cpu").assessment.quality
    # An image with itself: nothing is better than the initial transform.
    assert quality.model_selection.selected == "initial"


def test_lapirn_encodes_each_image_once(tmp_path, oblique, monkeypatch):
    settings = LapIrnSettings(
        start_channels=1,
        residual_blocks=1,
        inputs="descriptors",
        descriptor_network=MasrNetSettings(channels=(2, 2, 2, 2), descriptor=4),
        trained_on=TrainingDomain(spacing_mm=3.0),
    )
    path = tmp_path / "mine.safetensors"
    write_weights(LapIrn(settings), path)
    encoded = []
    original = LapIrn.encode
    monkeypatch.setattr(LapIrn, "encode", lambda self, images: encoded.append(images) or original(self, images))
    found = solved(oblique, architecture="lapirn", weights=str(path))
    assert len(encoded) == 2
    assert found.displacement_voxel.shape == (1, 3, *oblique.grid.shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_gives_nearly_the_same(name, tmp_path):
    torch.manual_seed(0)
    network = type(NETWORKS[name])(NETWORKS[name].settings)
    for weights in network.parameters():
        if weights.shape[0] == 3:  # those that give vectors begin at almost nothing
            torch.nn.init.normal_(weights, std=0.1)
    path = tmp_path / "mine.safetensors"
    write_weights(network, path)
    grid = box((20, 22, 24), 2.0)
    images = scene(grid), scene(grid, translation((3.0, 3.0, 3.0)).apply)
    prepared = prepare(images[0], [images[1]], IDENTITY, spacing_mm=2.0, masked=False, margin_mm=0.0)
    found = {
        precision: solved(prepared, architecture=name, weights=str(path), precision=precision).displacement_voxel
        for precision in ("float32", "mixed")
    }
    longest = found["float32"].abs().max()
    assert longest > 0.05
    difference = (found["mixed"] - found["float32"]).abs().max()
    assert 0 < difference < 0.1 * longest


class TestWeights:
    @pytest.fixture
    def path(self, tmp_path):
        write_weights(NETWORKS["lapirn"], tmp_path / "mine.safetensors")
        return str(tmp_path / "mine.safetensors")

    def test_of_any_architecture_where_none_is_asked_for(self, oblique, path):
        assert solved(oblique, weights=path).displacement_voxel.shape == (1, 3, *oblique.grid.shape)

    def test_of_another_architecture_are_refused(self, oblique, path):
        message = "expected weights of multiprop; got mine.safetensors, which are of lapirn"
        with pytest.raises(InputError, match=message):
            solved(oblique, architecture="multiprop", weights=path)

    def test_of_a_network_that_describes_are_refused(self, oblique, tmp_path):
        path = tmp_path / "described.safetensors"
        write_weights(MasrNet(MasrNetSettings(channels=(2, 2, 2, 2))), path)
        with pytest.raises(InputError, match="expected weights of a registration network; got described.safetensors"):
            solved(oblique, weights=str(path))

    def test_must_be_given(self, oblique):
        message = "expected network.weights, a file that mmreg train lapirn wrote; got none"
        with pytest.raises(InputError, match=message):
            solve(problem(oblique), load_preset("lapirn").options)

    def test_an_architecture_that_does_not_register_is_refused(self, oblique, path):
        message = "expected network.architecture to be a registration network; got masr-net"
        with pytest.raises(InputError, match=message):
            solved(oblique, architecture="masr-net", weights=path)

    def test_an_unknown_architecture_is_refused_with_the_nearest(self, oblique, path):
        with pytest.raises(InputError, match="did you mean 'lapirn'"):
            solved(oblique, architecture="lapirm", weights=path)


def test_it_is_a_method_like_every_other():
    assert method.METHOD.name == "network"
    assert method.METHOD.settings is NetworkSettings
