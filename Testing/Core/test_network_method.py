"""Registration by a network: what it is given, how its displacement comes back, and what is said of unlike images."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from MMRegCore.config import LearnedSettings, RegistrationSettings, load_preset, with_changes
from MMRegCore.config.networks import (
    GradientGuidedSettings,
    LapIrnSettings,
    MasrNetSettings,
    MultiPropSettings,
    TrainedOn,
)
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.methods import learned as method
from MMRegCore.methods.solve import solve
from MMRegCore.monitor import Monitor
from MMRegCore.networks.gradient_guided import GradientGuided
from MMRegCore.networks.lapirn import LapIrn
from MMRegCore.networks.multiprop import MultiProp
from MMRegCore.pipeline import register
from MMRegCore.preprocess import prepare
from MMRegCore.training.checkpoint import write_weights
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume


class Constant(torch.nn.Module):
    """Moves everything by the same (d, h, w) voxels of its grid, backwards the other way; remembers its inputs."""

    def __init__(self, voxels, trained_on):
        super().__init__()
        self.settings = MultiPropSettings(trained_on=trained_on)
        self.voxels, self.seen = torch.tensor(voxels), []

    def forward(self, fixed, moving):
        self.seen.append((fixed, moving))
        sign = 1 if len(self.seen) % 2 else -1
        return (sign * self.voxels).reshape(1, 3, 1, 1, 1).expand(1, 3, *fixed.shape[2:])


def prepared_on(grid, smooth_volume, **options):
    volume = smooth_volume(grid)
    fixed, moving = volume, volume.with_data(volume.data.exp())
    return prepare(fixed, [moving], SpatialTransform.identity(), spacing_mm="native", masked=True, margin_mm=4.0)


def test_the_displacement_comes_back_in_space(any_grid, smooth_volume, monkeypatch):
    """The network's grid runs along RAS whatever the images': (d, h, w) = (1, 0, -2) of 3 mm is (-6, 0, 3) mm."""
    network = Constant((1.0, 0.0, -2.0), TrainedOn(spacing_mm=3.0))
    monkeypatch.setattr(method, "load_network", lambda name, architecture: network)
    prepared = prepared_on(any_grid, smooth_volume)
    solution = method.learned(prepared, "multiprop", LearnedSettings(weights="mine"), "mean", Monitor())
    found = DisplacementField.from_voxel(solution.displacement_voxel, prepared.grid).displacement_mm
    expected = torch.tensor([-6.0, 0.0, 3.0]).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert float(solution.maps["inverse_consistency_error_mm"].abs().max()) < 1e-4


def test_the_network_sees_upright_images_from_0_to_1(oblique_grid, monkeypatch):
    """A bright corner along R, A and S is where the upright grid has its last voxels."""
    network = Constant((0.0, 0.0, 0.0), TrainedOn(spacing_mm=2.0))
    monkeypatch.setattr(method, "load_network", lambda name, architecture: network)
    x = oblique_grid.points_ras() - oblique_grid.centre_ras
    volume = Volume(torch.from_numpy(500 + 10 * x.sum(axis=-1) + 3 * x[..., 0]).float()[None], oblique_grid)
    prepared = prepare(volume, [volume], SpatialTransform.identity(), spacing_mm="native", masked=True, margin_mm=4.0)
    method.learned(prepared, "multiprop", LearnedSettings(weights="mine"), "mean", Monitor())
    fixed = network.seen[0][0]
    assert fixed.shape[2:] == prepared.grid.upright(2.0).shape
    assert float(fixed.min()) == 0
    assert float(fixed.max()) == 1
    middle = [n // 2 for n in fixed.shape[2:]]
    core = fixed[0, 0][tuple(slice(m - 3, m + 4) for m in middle)]
    for axis in range(3):
        assert (torch.diff(core, dim=axis) > 0).all()


def test_what_is_outside_the_mask_is_dark(oblique_grid, smooth_volume, monkeypatch):
    network = Constant((0.0, 0.0, 0.0), TrainedOn(spacing_mm=2.0))
    monkeypatch.setattr(method, "load_network", lambda name, architecture: network)
    prepared = prepared_on(oblique_grid, smooth_volume)
    weight = torch.zeros_like(prepared.fixed_weight)
    weight[..., 6:-6, 6:-6, 6:-6] = 1
    bright = replace(prepared, fixed=prepared.fixed + 100, fixed_weight=weight)
    method.learned(bright, "multiprop", LearnedSettings(weights="mine"), "mean", Monitor())
    fixed = network.seen[0][0]
    assert float(fixed[..., 0, 0, 0]) == 0
    assert float(fixed[..., fixed.shape[2] // 2, fixed.shape[3] // 2, fixed.shape[4] // 2]) > 0.5


def test_unlike_images_are_told(oblique_grid, smooth_volume, monkeypatch, caplog):
    prepared = prepared_on(oblique_grid, smooth_volume)
    extent = tuple(2.0 * n for n in prepared.grid.upright(2.0).shape)
    alike, other = TrainedOn(spacing_mm=2.0, extent_mm=extent), TrainedOn(spacing_mm=0.5, extent_mm=(160.0, 50.0, 40.0))
    assert method.unlike(prepared, alike) == []
    told = method.unlike(prepared, other)
    assert any("expected about 160 mm along S" in text for text in told)
    assert any("expected voxels of 0.5 mm or finer" in text for text in told)
    network = Constant((0.0, 0.0, 0.0), TrainedOn(spacing_mm=2.0))
    monkeypatch.setattr(method, "load_network", lambda name, architecture: network)
    with caplog.at_level(logging.WARNING):
        method.learned(prepared, "multiprop", LearnedSettings(weights="mine"), "mean", Monitor())
    assert "mine was trained on other images: expected about 160 mm along S" in caplog.text


def test_instance_optimisation_can_follow(oblique_grid, smooth_volume, monkeypatch):
    """It brings a wrong displacement of the network nearer to the truth, which is none."""
    network = Constant((0.5, 0.5, 0.5), TrainedOn(spacing_mm=2.0))
    monkeypatch.setattr(method, "load_network", lambda name, architecture: network)
    prepared = prepared_on(oblique_grid, smooth_volume)
    before = method.learned(prepared, "multiprop", LearnedSettings(weights="mine"), "mean", Monitor())
    network.seen.clear()
    after = method.learned(prepared, "multiprop", LearnedSettings(weights="mine", refine=True), "mean", Monitor())
    size = [float(s.displacement_voxel.norm(dim=1).mean()) for s in (before, after)]
    assert size[1] < 0.8 * size[0]


MADE = {
    "multiprop": MultiProp(MultiPropSettings(features=(4, 4), matching=(4,), context=(4,))),
    "gradient-guided": GradientGuided(GradientGuidedSettings(encoder=(4, 4), decoder=(4, 4), refinement=(4,))),
    "lapirn": LapIrn(LapIrnSettings(start_channels=1, residual_blocks=1)),
}


@pytest.mark.parametrize("name", method.LEARNED)
def test_every_learned_method_registers_from_a_file(name, tmp_path, blobs):
    path = tmp_path / "mine.safetensors"
    write_weights(MADE[name], path, {"architecture": name, "settings": MADE[name].settings.to_dict()})
    grid = Grid((20, 22, 24), np.diag([2.0, 2.0, 2.0, 1.0]))
    image = Volume(torch.from_numpy(blobs(grid.points_ras() - grid.centre_ras)).float()[None], grid)
    settings = with_changes(load_preset(name), {"learned.weights": str(path)})
    assert settings.method == name
    result = register(image, image, settings=settings, device="cpu")
    # An image with itself: nothing is better than the start.
    assert result.assessment.numbers["choice"]["chosen"] == "start"


def test_lapirn_describes_each_image_once(tmp_path, oblique_grid, smooth_volume, monkeypatch):
    settings = LapIrnSettings(
        start_channels=1,
        residual_blocks=1,
        inputs="descriptors",
        describer=MasrNetSettings(channels=(2, 2, 2, 2), descriptor=4),
        trained_on=TrainedOn(spacing_mm=3.0),
    )
    path = tmp_path / "mine.safetensors"
    write_weights(LapIrn(settings), path, {"architecture": "lapirn", "settings": settings.to_dict()})
    described = []
    original = LapIrn.described
    monkeypatch.setattr(LapIrn, "described", lambda self, images: described.append(images) or original(self, images))
    prepared = prepared_on(oblique_grid, smooth_volume)
    found = method.learned(prepared, "lapirn", LearnedSettings(weights=str(path)), "mean", Monitor())
    assert len(described) == 2
    assert found.displacement_voxel.shape == (1, 3, *oblique_grid.shape)


@pytest.mark.parametrize("name", method.LEARNED)
def test_mixed_precision_gives_nearly_the_same(name, tmp_path, blobs):
    torch.manual_seed(0)
    network = type(MADE[name])(MADE[name].settings)
    for weights in network.parameters():
        if weights.shape[0] == 3:  # those that give vectors begin at almost nothing
            torch.nn.init.normal_(weights, std=0.1)
    path = tmp_path / "mine.safetensors"
    write_weights(network, path, {"architecture": name, "settings": network.settings.to_dict()})
    grid = Grid((20, 22, 24), np.diag([2.0, 2.0, 2.0, 1.0]))
    points = grid.points_ras() - grid.centre_ras
    images = [Volume(torch.from_numpy(blobs(points + shift)).float()[None], grid) for shift in (0.0, 3.0)]
    prepared = prepare(images[0], [images[1]], SpatialTransform.identity(), spacing_mm=2.0, masked=False, margin_mm=0.0)
    found = {}
    for precision in ("float32", "mixed"):
        settings = LearnedSettings(weights=str(path), precision=precision)
        found[precision] = method.learned(prepared, name, settings, "mean", Monitor()).displacement_voxel
    longest = found["float32"].abs().max()
    assert longest > 0.05
    apart = (found["mixed"] - found["float32"]).abs().max()
    assert 0 < apart < 0.1 * longest


def test_weights_of_another_network_are_refused(tmp_path, oblique_grid, smooth_volume):
    path = tmp_path / "mine.safetensors"
    write_weights(MADE["lapirn"], path, {"architecture": "lapirn", "settings": MADE["lapirn"].settings.to_dict()})
    prepared = prepared_on(oblique_grid, smooth_volume)
    settings = RegistrationSettings(method="multiprop", learned=LearnedSettings(weights=str(path)))
    with pytest.raises(InputError, match="expected weights of multiprop; got mine.safetensors, which are of lapirn"):
        solve(prepared, settings, 2**30, Monitor())


def test_weights_must_be_given(oblique_grid, smooth_volume):
    with pytest.raises(InputError, match="expected learned.weights, a file that mmreg train lapirn wrote; got none"):
        solve(prepared_on(oblique_grid, smooth_volume), load_preset("lapirn"), 2**30, Monitor())


def test_the_upright_grid_holds_the_whole_box(any_grid):
    upright = any_grid.upright(1.5)
    assert np.allclose(upright.ras_from_ijk[:3, :3], np.eye(3) * 1.5)
    assert np.allclose(upright.centre_ras, any_grid.centre_ras)
    half = np.array(upright.itk_size) * 1.5 / 2
    assert (np.abs(any_grid.corners_ras() - any_grid.centre_ras) <= half).all()
    assert upright.upright(1.5).matches(upright)
