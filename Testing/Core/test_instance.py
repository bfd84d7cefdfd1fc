"""Instance optimisation: its pieces, and that it improves a shift that is known."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from MMRegCore.config import InstanceSettings
from MMRegCore.errors import Cancelled
from MMRegCore.features.mind import mind_ssc
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.instance import Adam, optimise_instance, pool, roughness, smoothed, unpool
from MMRegCore.warp import sample, voxel_coordinates

SHAPE = (26, 29, 31)


def scene(shift_dhw: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
    """(1, 1, D, H, W): waves of 8 to 14 voxels, ``scene(s)(x) = scene()(x − s)``, exactly."""
    d, h, w = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in SHAPE), indexing="ij")
    d, h, w = d - shift_dhw[0], h - shift_dhw[1], w - shift_dhw[2]
    values = np.sin(d / 1.9) * np.cos(h / 2.2) + np.sin(w / 1.6 + h / 3) + np.cos(d / 2.5 - w / 2.1)
    return torch.from_numpy(values)[None, None].float()


def features(shift_dhw, settings: InstanceSettings) -> torch.Tensor:
    return pool(mind_ssc(scene(shift_dhw)), settings.grid_spacing)


def refined(start: torch.Tensor, shift=(1.0, -1.5, 0.8), **options) -> torch.Tensor:
    settings = InstanceSettings(iterations=25, final_smoothing_passes=0, **options)
    return optimise_instance(features((0, 0, 0), settings), [features(shift, settings)], start, settings)


def error(found: torch.Tensor, shift=(1.0, -1.5, 0.8)) -> float:
    missed = found - torch.tensor(shift).reshape(1, 3, 1, 1, 1)
    return float(missed[..., 8:-8, 8:-8, 8:-8].norm(dim=1).mean())


def test_known_shift_is_found():
    start = torch.zeros(1, 3, *SHAPE)
    assert error(start) > 1.9
    assert error(refined(start)) < 0.7


def test_good_start_stays_good():
    start = torch.tensor([1.0, -1.5, 0.8]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE).clone()
    before = start.clone()
    assert error(refined(start)) < 0.4
    assert torch.equal(start, before)


def test_regularisation_makes_the_field_smoother():
    start = torch.zeros(1, 3, *SHAPE)
    free, stiff = (roughness(refined(start, regularisation=value)) for value in (0.0, 50.0))
    assert float(stiff) < float(free)


def test_without_evidence_only_smoothness_counts():
    start = torch.zeros(1, 3, *SHAPE)
    settings = InstanceSettings(iterations=5)
    fixed, moving = features((0, 0, 0), settings), features((2.0, 0, 0), settings)
    nothing = torch.zeros_like(fixed[:, :1])
    found = optimise_instance(fixed, [moving], start, settings, weights=[nothing])
    assert float(found.abs().max()) < 1e-6


def test_several_moving_images_count_alike_and_each_where_it_is_evidence():
    """One image says +1 voxel on the left half only, the other on the right half only: together, everywhere."""
    settings = InstanceSettings(iterations=40, learning_rate=0.2, final_smoothing_passes=0, regularisation=0.3)
    fixed, moving = features((0, 0, 0), settings), features((0.0, 0.0, 1.0), settings)
    left = torch.zeros_like(fixed[:, :1])
    left[..., : left.shape[-1] // 2] = 1
    noise = torch.rand(moving.shape, generator=torch.Generator().manual_seed(0))
    shown_left, shown_right = torch.where(left > 0, moving, noise), torch.where(left > 0, noise, moving)
    start = torch.zeros(1, 3, *SHAPE)
    found = optimise_instance(fixed, [shown_left, shown_right], start, settings, weights=[left, 1 - left])
    assert error(found, (0.0, 0.0, 1.0)) < 0.4


def test_adam_is_that_of_torch():
    start = torch.linspace(-1, 1, 24).reshape(1, 3, 2, 2, 2)
    ours, theirs = start.clone(), start.clone().requires_grad_(True)
    adam, reference = Adam(ours, 0.3), torch.optim.Adam([theirs], lr=0.3)
    for step in range(6):
        reference.zero_grad()
        ((theirs - 0.1 * step) ** 4).sum().backward()
        adam.step(4 * (ours - 0.1 * step) ** 3)
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_weighted_smoothing_ignores_what_is_no_evidence():
    values = torch.zeros(1, 3, 9, 9, 9)
    values[..., :5] = 2.0
    values[..., 5:] = 100.0
    weight = torch.zeros(1, 1, 9, 9, 9)
    weight[..., :5] = 1
    assert float(smoothed(values, 3, 2, weight)[..., :5].max()) < 2.2
    # The borders of the grid count for nothing either.
    assert torch.allclose(
        smoothed(torch.ones(1, 3, 6, 6, 6), 5, 3, torch.ones(1, 1, 6, 6, 6)), torch.ones(1, 3, 6, 6, 6)
    )


def test_cancelled():
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled):
        optimise_instance(
            pool(mind_ssc(scene()), 2),
            [pool(mind_ssc(scene()), 2)],
            torch.zeros(1, 3, *SHAPE),
            InstanceSettings(),
            monitor=monitor,
        )


def test_gradients_of_the_energy():
    random = np.random.default_rng(0)
    field = torch.from_numpy(random.normal(size=(1, 3, 3, 4, 3)) * 0.3).requires_grad_(True)
    moving = torch.from_numpy(random.random((1, 2, 3, 4, 3)))
    fixed = torch.from_numpy(random.random((1, 2, 3, 4, 3)))
    positions = voxel_coordinates((3, 4, 3)).double() + 0.2

    def similarity(displacement):
        at = positions + displacement.flip(1).permute(0, 2, 3, 4, 1)
        return (sample(moving, at, padding_mode="zeros") - fixed).square().mean()

    assert gradcheck(roughness, (field,))
    assert gradcheck(lambda u: smoothed(u, 3, 2), (field,))
    assert gradcheck(similarity, (field,))


def test_roughness_by_hand():
    ramp = torch.zeros(1, 3, 4, 5, 6)
    ramp[0, 0] = 2 * torch.arange(4.0).reshape(4, 1, 1)
    # Differences of 2 in one of three components along d.
    assert float(roughness(ramp)) == pytest.approx(4 / 3)
    assert float(roughness(torch.ones(1, 3, 4, 1, 6))) == 0


@pytest.mark.parametrize("stride", [1, 2, 4, 6])
def test_pooling_and_back_keep_a_linear_ramp_in_place(stride):
    shape = (24, 25, 31)
    d, h, w = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    ramp = (d + 2 * h - w)[None, None]
    pooled = pool(ramp, stride)
    assert pooled.shape[2:] == tuple(-(-n // stride) for n in shape)
    back = unpool(pooled, stride, shape)
    assert back.shape == ramp.shape
    keep = slice(stride, -2 * stride)
    assert torch.allclose(back[..., keep, keep, keep], ramp[..., keep, keep, keep], atol=1e-3)


def test_last_block_is_an_average_of_what_there_is():
    line = torch.arange(7.0).reshape(1, 1, 1, 1, 7).expand(1, 1, 2, 2, 7)
    assert pool(line, 2)[0, 0, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.0]
