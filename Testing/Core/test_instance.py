"""Instance optimisation: its pieces, and that it improves a shift that is known."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from MMRegCore.errors import Cancelled
from MMRegCore.monitor import Monitor
from MMRegCore.ops import avg_pool, diffusion_energy
from MMRegCore.optimisation.adam import Adam, DescriptorDistance
from MMRegCore.optimisation.instance import refine_field
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.similarity.descriptors.mind import mind_ssc

SHAPE = (26, 29, 31)


def waves(shift_dhw: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
    """(1, 1, D, H, W): waves of 8 to 14 voxels, ``waves(s)(x) = waves()(x − s)``, exactly."""
    d, h, w = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in SHAPE), indexing="ij")
    d, h, w = d - shift_dhw[0], h - shift_dhw[1], w - shift_dhw[2]
    values = np.sin(d / 1.9) * np.cos(h / 2.2) + np.sin(w / 1.6 + h / 3) + np.cos(d / 2.5 - w / 2.1)
    return torch.from_numpy(values)[None, None].float()


def descriptors(shift_dhw, settings: InstanceSettings) -> torch.Tensor:
    return avg_pool(mind_ssc(waves(shift_dhw)), settings.grid_spacing)


def refined(initial: torch.Tensor, shift=(1.0, -1.5, 0.8), **options) -> torch.Tensor:
    settings = InstanceSettings(iterations=25, final_smoothing_passes=0, **options)
    return refine_field(descriptors((0, 0, 0), settings), [descriptors(shift, settings)], initial, settings)


def error(found: torch.Tensor, shift=(1.0, -1.5, 0.8)) -> float:
    missed = found - torch.tensor(shift).reshape(1, 3, 1, 1, 1)
    return float(missed[..., 8:-8, 8:-8, 8:-8].norm(dim=1).mean())


def test_known_shift_is_found():
    initial = torch.zeros(1, 3, *SHAPE)
    assert error(initial) > 1.9
    assert error(refined(initial)) < 0.7


def test_a_good_initial_field_stays_good():
    initial = torch.tensor([1.0, -1.5, 0.8]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE).clone()
    before = initial.clone()
    assert error(refined(initial)) < 0.4
    assert torch.equal(initial, before)


def test_regularisation_makes_the_field_smoother():
    initial = torch.zeros(1, 3, *SHAPE)
    free, stiff = (diffusion_energy(refined(initial, regularisation=value)) for value in (0.0, 50.0))
    assert float(stiff) < float(free)


def test_without_foreground_only_smoothness_counts():
    initial = torch.zeros(1, 3, *SHAPE)
    settings = InstanceSettings(iterations=5)
    fixed, moving = descriptors((0, 0, 0), settings), descriptors((2.0, 0, 0), settings)
    nothing = torch.zeros_like(fixed[:, :1])
    found = refine_field(fixed, [moving], initial, settings, weights=[nothing])
    assert float(found.abs().max()) < 1e-6


def test_several_moving_images_count_alike_and_each_in_its_foreground():
    """One image says +1 voxel on the left half only, the other on the right half only: together, everywhere."""
    settings = InstanceSettings(iterations=40, learning_rate=0.2, final_smoothing_passes=0, regularisation=0.3)
    fixed, moving = descriptors((0, 0, 0), settings), descriptors((0.0, 0.0, 1.0), settings)
    left = torch.zeros_like(fixed[:, :1])
    left[..., : left.shape[-1] // 2] = 1
    noise = torch.rand(moving.shape, generator=torch.Generator().manual_seed(0))
    shown_left, shown_right = torch.where(left > 0, moving, noise), torch.where(left > 0, noise, moving)
    initial = torch.zeros(1, 3, *SHAPE)
    found = refine_field(fixed, [shown_left, shown_right], initial, settings, weights=[left, 1 - left])
    assert error(found, (0.0, 0.0, 1.0)) < 0.4


def test_adam_is_that_of_torch():
    values = torch.linspace(-1, 1, 24).reshape(1, 3, 2, 2, 2)
    ours, theirs = values.clone(), values.clone().requires_grad_(True)
    adam, reference = Adam(ours, 0.3), torch.optim.Adam([theirs], lr=0.3)
    for step in range(6):
        reference.zero_grad()
        ((theirs - 0.1 * step) ** 4).sum().backward()
        adam.step(4 * (ours - 0.1 * step) ** 3)
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_cancelled():
    monitor = Monitor()
    monitor.cancel()
    settings = InstanceSettings()
    described = descriptors((0, 0, 0), settings)
    with pytest.raises(Cancelled):
        refine_field(described, [described], torch.zeros(1, 3, *SHAPE), settings, monitor=monitor)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("unit", [False, True])
def test_gradients_of_the_distance(padding, unit):
    random = np.random.default_rng(0)
    # Away from whole voxels, where trilinear interpolation has a kink.
    field = torch.from_numpy(0.2 + 0.15 * random.uniform(-1, 1, (1, 3, 3, 4, 3))).requires_grad_(True)
    fixed, moving = (torch.from_numpy(random.random((1, 2, 3, 4, 3))) for _ in range(2))
    weight = torch.from_numpy(random.random((1, 1, 3, 4, 3)))
    distance = DescriptorDistance.of(fixed, moving, weight, unit=unit)
    assert gradcheck(lambda u: distance(u, padding), (field,))
