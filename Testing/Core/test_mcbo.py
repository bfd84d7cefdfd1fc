"""MCBO on small prepared pairs: known truth, symmetries, any size, memory, cancelling."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from MMRegCore.config import load_preset
from MMRegCore.errors import Cancelled, DeviceError
from MMRegCore.geometry import Grid
from MMRegCore.methods.mcbo import McboSettings, solve
from MMRegCore.methods.protocol import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation import dense_search
from MMRegCore.prepare import Prepared
from MMRegCore.volume import Channel
from scenes import box, problem, texture_at

pytestmark = pytest.mark.slow

PUBLISHED, MASKED = "mcbo-published", "mcbo"
BOTH = pytest.mark.parametrize("preset", [PUBLISHED, MASKED])
GIB = 2**30
# Few candidates and few levels: what is tested here does not depend on them.
SMALL = {"strides": (1, 2), "weights": (0.5, 0.5), "half_width": 2, "inverse_consistency_iterations": 5}
# Enough to tell whether the refinement keeps to what is tested; None takes as many steps as the preset.
FEW_STEPS = 4
SHIFT_DHW = (1.0, -1.5, 2.0)
NO_SHIFT = (0.0, 0.0, 0.0)


@cache
def pair(shape=(24, 28, 26), shifts=(SHIFT_DHW,), spacing=(1.0, 1.0, 1.0)) -> Prepared:
    """A fixed image and one inverted, shifted moving image per shift (d, h, w) in voxels."""

    def image(shift_dhw, inverted):
        # Texture of voxels, whatever the spacing.
        points = box(shape).points_ras() - np.array(shift_dhw)[::-1]
        return Channel(texture_at(points, inverted=inverted)[None], torch.ones(1, 1, *shape))

    return Prepared(box(shape, spacing), image(NO_SHIFT, False), tuple(image(shift, True) for shift in shifts))


def solution(prepared: Prepared, settings: McboSettings, memory=GIB, monitor: Monitor | None = None) -> Solution:
    return solve(problem(prepared, memory_bytes=memory, monitor=monitor), settings)


def small(preset=MASKED, steps: int | None = FEW_STEPS, **changes) -> McboSettings:
    options = load_preset(preset).options
    instance = options.instance if steps is None else replace(options.instance, iterations=steps)
    return replace(options, instance=instance, **{**SMALL, **changes})


def solved(prepared: Prepared, preset=MASKED, memory=GIB, **changes) -> torch.Tensor:
    prepared = replace(prepared, masked=load_preset(preset).masked)
    return solution(prepared, small(preset, **changes), memory).displacement_voxel


def error(found: torch.Tensor, shift_dhw=SHIFT_DHW) -> float:
    inner = found[..., 5:-5, 5:-5, 5:-5]
    return float((inner - torch.tensor(shift_dhw).reshape(1, 3, 1, 1, 1)).norm(dim=1).mean())


@pytest.fixture(scope="module")
def masked() -> torch.Tensor:
    """What the masked preset finds of the plain pair."""
    return solved(pair())


@BOTH
def test_known_shift_of_a_differently_contrasted_image(preset):
    assert error(torch.zeros(1, 3, 24, 28, 26)) > 2.6
    assert error(solved(pair(), preset, steps=None)) < 0.7


@BOTH
def test_image_on_itself_stays(preset):
    prepared = pair((20, 22, 24), (NO_SHIFT,))
    assert error(solved(prepared, preset, refine="none"), NO_SHIFT) < 0.01
    # Adam's steps are of one length however small the gradient: it leaves a part of a voxel.
    assert error(solved(prepared, preset, steps=None), NO_SHIFT) < 0.3


@pytest.mark.parametrize("fusion", ["mean", "magnitude", "signed-max", "confidence"])
def test_two_modalities(fusion):
    assert error(solved(pair(shifts=(SHIFT_DHW, SHIFT_DHW)), fusion=fusion, steps=None)) < 0.7


def test_mean_of_two_modalities_lies_between_them():
    # Before the refinement, which seeks one field for both.
    both = solved(pair(shifts=(SHIFT_DHW, NO_SHIFT)), fusion="mean", refine="none")
    assert error(both, tuple(s / 2 for s in SHIFT_DHW)) < 0.4


def test_weights_of_the_levels_are_applied():
    one, two = (solved(pair(), strides=(stride,), weights=(1.0,), refine="none") for stride in (1, 2))
    both = solved(pair(), weights=(0.3, 0.7), refine="none")
    assert torch.allclose(both, 0.3 * one + 0.7 * two, atol=1e-5)
    assert not torch.allclose(one, two, atol=1e-2)


def test_refinement_of_the_fused_field_brings_it_nearer():
    coarse = {"strides": (4,), "weights": (1.0,)}
    before, after = (solved(pair(), **coarse, refine=what, steps=None) for what in ("none", "fused-field"))
    assert error(after) < 0.5 * error(before)


def rearranged(prepared: Prepared, change: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
    """The pair with its arrays flipped or permuted; isotropic, so that the grid matters no more."""
    fixed, *moving = (Channel(change(c.image), change(c.weight)) for c in (prepared.fixed, *prepared.moving))
    return Prepared(Grid(tuple(fixed.image.shape[2:]), np.eye(4)), fixed, tuple(moving))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_commute(masked, axis):
    signs = torch.ones(1, 3, 1, 1, 1)
    signs[0, axis] = -1
    flipped = solved(rearranged(pair(), lambda x: x.flip(2 + axis)))
    assert float((flipped.flip(2 + axis) * signs - masked).abs().max()) < 1e-3


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
def test_permutations_of_the_axes_commute(masked, order):
    moved = [0, 1, *(2 + axis for axis in order)]
    permuted = solved(rearranged(pair(), lambda x: x.permute(moved).contiguous()))
    expected = masked[:, list(order)].permute(moved)
    assert float((permuted - expected).abs().max()) < 1e-3


@BOTH
def test_sizes_that_nothing_divides(preset):
    found = solved(pair((17, 23, 19)), preset, strides=(1, 2, 4, 6), weights=(0.25,) * 4)
    assert found.shape == (1, 3, 17, 23, 19)
    assert bool(torch.isfinite(found).all())
    # The coarse levels shrink a shift below their step; the direction must still be right.
    mean = found[0, :, 5:-5, 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert float((mean * torch.tensor(SHIFT_DHW)).sum()) > 0.3 * float(torch.tensor(SHIFT_DHW).square().sum())


@pytest.mark.parametrize("size", [8, 9])
def test_smallest_images(size):
    found = solution(pair((size, 20, size)), load_preset(MASKED).options).displacement_voxel
    assert bool(torch.isfinite(found).all())


def test_thin_anisotropic_volume_with_the_second_setting():
    prepared = replace(pair((8, 32, 36), ((0.0, -1.0, 2.0),), (1.0, 1.0, 4.0)), masked=False)
    found = solution(prepared, replace(load_preset("mcbo-clem").options, half_width=2)).displacement_voxel
    mean = found[0, :, 1:-1, 6:-6, 6:-6].mean(dim=(1, 2, 3))
    assert mean.tolist() == pytest.approx([0.0, -1.0, 2.0], abs=0.8)


@BOTH
def test_little_memory_gives_exactly_the_same(preset):
    prepared = pair((26, 44, 28))
    assert torch.equal(solved(prepared, preset, memory=32 * 2**20), solved(prepared, preset))


def test_foreground_on_one_side_only_decides_for_the_whole():
    fixed = pair().fixed
    half = torch.zeros_like(fixed.weight)
    half[..., :13] = 1
    noise = torch.randn(half.shape, generator=torch.Generator().manual_seed(0)) * 50
    spoilt = replace(pair(), fixed=Channel(torch.where(half > 0, fixed.image, noise), half))
    found = solved(spoilt, steps=None)
    assert error(found[..., :20]) < 0.8
    # As published, the noise counts too.
    assert error(found) < error(solved(spoilt, PUBLISHED, steps=None))


def test_without_foreground_nothing_moves():
    fixed = pair().fixed
    nothing = replace(pair(), fixed=replace(fixed, weight=torch.zeros_like(fixed.weight)))
    assert not solved(nothing).abs().max() > 1e-6


def test_inverse_consistency_error_is_in_mm():
    fine, coarse = (
        solution(pair(spacing=spacing), small()).maps["inverse_consistency_error"]
        for spacing in ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    )
    assert fine.shape == (1, 1, 24, 28, 26)
    assert torch.allclose(coarse, 2 * fine, atol=1e-4)


def test_inputs_are_not_altered():
    channels = (pair().fixed, *pair().moving)
    before = [(channel.image.clone(), channel.weight.clone()) for channel in channels]
    solved(pair())
    for channel, (image, weight) in zip(channels, before, strict=True):
        assert torch.equal(channel.image, image)
        assert torch.equal(channel.weight, weight)


def cancelled_after(reports: int) -> Monitor:
    """A monitor that is cancelled by that report."""
    count = 0

    def listener(stage: str, fraction: float) -> None:
        nonlocal count
        count += 1
        if count == reports:
            monitor.cancel()
        assert count <= reports

    monitor = Monitor(listener)
    return monitor


def test_progress_only_grows_and_every_report_can_cancel():
    prepared, settings = pair((12, 13, 14)), small()
    fractions: list[float] = []
    solution(prepared, settings, monitor=Monitor(lambda stage, fraction: fractions.append(fraction)))
    assert fractions == sorted(fractions)
    assert len(fractions) > 10
    for reports in (1, len(fractions) // 2, len(fractions) - 1):
        with pytest.raises(Cancelled):
            solution(prepared, settings, monitor=cancelled_after(reports))


class TestOutOfMemory:
    def test_smaller_parts_until_it_fits(self, monkeypatch):
        prepared = pair((26, 44, 28))
        whole = solved(prepared)
        sizes: list[int] = []

        def scarce(fixed, moving, part, half_width, memory):
            voxels = int(np.prod([s.stop - s.start for s in part]))
            sizes.append(voxels)
            if voxels > 20_000:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(fixed, moving, part, half_width, memory)

        original = dense_search.cost_volume
        monkeypatch.setattr(dense_search, "cost_volume", scarce)
        assert torch.equal(solved(prepared, memory=GIB // 16), whole)
        assert max(sizes) > 20_000 >= sizes[-1]

    def test_gives_up_in_plain_words(self, monkeypatch):
        def never(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(dense_search, "cost_volume", never)
        with pytest.raises(DeviceError, match="expected memory for a part of the cost volume"):
            solved(pair())
