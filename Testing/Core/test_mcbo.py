"""MCBO on small prepared pairs: known truth, symmetries, any size, memory, cancelling."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from MMRegCore.config import McboSettings, load_preset
from MMRegCore.errors import Cancelled, DeviceError
from MMRegCore.geometry import Grid
from MMRegCore.methods import mcbo as module
from MMRegCore.methods.mcbo import mcbo
from MMRegCore.monitor import Monitor
from MMRegCore.preprocess import Prepared

PUBLISHED = load_preset("mcbo-published").mcbo
MASKED = load_preset("mcbo").mcbo
GIB = 2**30
# Few candidates and few levels: what is tested here does not depend on them.
SMALL = {"strides": (1, 2), "weights": (0.5, 0.5), "half_width": 2, "inverse_consistency_iterations": 5}
SHIFT_DHW = (1.0, -1.5, 2.0)

Pair = Callable[..., Prepared]


@pytest.fixture
def pair(blobs) -> Pair:
    """``pair(shape, shifts)``: a fixed image and one inverted, shifted moving image per shift (d, h, w) in voxels."""

    def make(shape=(24, 28, 26), shifts=(SHIFT_DHW,), spacing=(1.0, 1.0, 1.0)) -> Prepared:
        matrix = np.diag([*spacing, 1.0])
        matrix[:3, 3] = -(np.array(shape[::-1]) - 1) / 2 * spacing
        grid = Grid(shape, matrix)

        def image(shift_dhw, inverted):
            # Texture of voxels, whatever the spacing.
            points = (grid.points_ras() / np.array(spacing)) - np.array(shift_dhw)[::-1]
            return torch.from_numpy(blobs(points, inverted)).float()[None, None]

        ones = torch.ones(1, 1, *shape)
        moving = tuple(image(shift, True) for shift in shifts)
        return Prepared(grid, image((0, 0, 0), False), ones, moving, (ones,) * len(moving))

    return make


def solved(prepared: Prepared, settings: McboSettings, fusion="mean", memory=GIB, **changes) -> torch.Tensor:
    changed = replace(settings, **{**SMALL, **changes})
    return mcbo(prepared, changed, fusion, memory, Monitor()).displacement_voxel


def error(found: torch.Tensor, shift_dhw=SHIFT_DHW) -> float:
    inner = found[..., 5:-5, 5:-5, 5:-5]
    return float((inner - torch.tensor(shift_dhw).reshape(1, 3, 1, 1, 1)).norm(dim=1).mean())


@pytest.mark.parametrize("settings", [PUBLISHED, MASKED], ids=["published", "masked"])
def test_known_shift_of_a_differently_contrasted_image(pair, settings):
    assert error(torch.zeros(1, 3, 24, 28, 26)) > 2.6
    assert error(solved(pair(), settings)) < 0.7


@pytest.mark.parametrize("settings", [PUBLISHED, MASKED], ids=["published", "masked"])
def test_image_on_itself_stays(pair, settings):
    prepared = pair(shifts=((0.0, 0.0, 0.0),))
    convex_only = replace(settings, refine="none")
    assert error(solved(prepared, convex_only), (0.0, 0.0, 0.0)) < 0.01
    # Adam's steps are of one length however small the gradient: it leaves a part of a voxel.
    assert error(solved(prepared, settings), (0.0, 0.0, 0.0)) < 0.3


@pytest.mark.parametrize("fusion", ["mean", "magnitude", "signed-max"])
def test_two_modalities(pair, fusion):
    assert error(solved(pair(shifts=(SHIFT_DHW, SHIFT_DHW)), MASKED, fusion)) < 0.7


def test_mean_of_two_modalities_lies_between_them(pair):
    # Before the refinement, which seeks one field for both.
    both = solved(pair(shifts=(SHIFT_DHW, (0.0, 0.0, 0.0))), MASKED, "mean", refine="none")
    assert error(both, tuple(s / 2 for s in SHIFT_DHW)) < 0.4


def test_weights_of_the_levels_are_applied(pair):
    prepared = pair()
    one, two = (solved(prepared, MASKED, strides=(stride,), weights=(1.0,), refine="none") for stride in (1, 2))
    both = solved(prepared, MASKED, weights=(0.3, 0.7), refine="none")
    assert torch.allclose(both, 0.3 * one + 0.7 * two, atol=1e-5)
    assert not torch.allclose(one, two, atol=1e-2)


def test_refinement_of_the_fused_field_brings_it_nearer(pair):
    prepared = pair()
    coarse = {"strides": (4,), "weights": (1.0,)}
    before, after = (solved(prepared, MASKED, **coarse, refine=what) for what in ("none", "fused-field"))
    assert error(after) < 0.5 * error(before)


def turned(prepared: Prepared, change: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
    """The pair with its arrays flipped or permuted; isotropic, so that the grid matters no more."""
    fixed = change(prepared.fixed)
    return Prepared(
        Grid(tuple(fixed.shape[2:]), np.eye(4)),
        fixed,
        change(prepared.fixed_weight),
        tuple(map(change, prepared.moving)),
        tuple(map(change, prepared.moving_weight)),
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_commute(pair, axis):
    prepared = pair()
    signs = torch.ones(1, 3, 1, 1, 1)
    signs[0, axis] = -1
    flipped = solved(turned(prepared, lambda x: x.flip(2 + axis)), MASKED)
    assert float((flipped.flip(2 + axis) * signs - solved(prepared, MASKED)).abs().max()) < 1e-3


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
def test_permutations_of_the_axes_commute(pair, order):
    prepared = pair()
    moved = [0, 1, *(2 + axis for axis in order)]
    permuted = solved(turned(prepared, lambda x: x.permute(moved).contiguous()), MASKED)
    expected = solved(prepared, MASKED)[:, list(order)].permute(moved)
    assert float((permuted - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("settings", [PUBLISHED, MASKED], ids=["published", "masked"])
def test_sizes_that_nothing_divides(pair, settings):
    found = solved(pair((17, 23, 19)), settings, strides=(1, 2, 4, 6), weights=(0.25,) * 4)
    assert found.shape == (1, 3, 17, 23, 19)
    assert bool(torch.isfinite(found).all())
    # The coarse levels shrink a shift below their step; the direction must still be right.
    mean = found[0, :, 5:-5, 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert float((mean * torch.tensor(SHIFT_DHW)).sum()) > 0.3 * float(torch.tensor(SHIFT_DHW).square().sum())


@pytest.mark.parametrize("size", [8, 9])
def test_smallest_images(pair, size):
    found = mcbo(pair((size, 20, size)), MASKED, "mean", GIB, Monitor()).displacement_voxel
    assert bool(torch.isfinite(found).all())


def test_thin_anisotropic_volume_with_the_second_setting(pair):
    prepared = pair((8, 32, 36), ((0.0, -1.0, 2.0),), spacing=(1.0, 1.0, 4.0))
    settings = replace(load_preset("mcbo-clem").mcbo, half_width=2)
    solution = mcbo(prepared, settings, "signed-max", GIB, Monitor())
    mean = solution.displacement_voxel[0, :, 1:-1, 6:-6, 6:-6].mean(dim=(1, 2, 3))
    assert mean.tolist() == pytest.approx([0.0, -1.0, 2.0], abs=0.8)


@pytest.mark.parametrize("settings", [PUBLISHED, MASKED], ids=["published", "masked"])
def test_little_memory_gives_exactly_the_same(pair, settings):
    prepared = pair((26, 44, 28))
    whole = solved(prepared, settings)
    assert torch.equal(solved(prepared, settings, memory=32 * 2**20), whole)


def test_evidence_on_one_side_only_carries_over(pair):
    prepared = pair()
    half = torch.zeros_like(prepared.fixed)
    half[..., :13] = 1
    noise = torch.randn(prepared.fixed.shape, generator=torch.Generator().manual_seed(0)) * 50
    spoilt = replace(prepared, fixed=torch.where(half > 0, prepared.fixed, noise), fixed_weight=half)
    found = solved(spoilt, MASKED)
    assert error(found[..., :20]) < 0.8
    # As published, the noise counts as evidence.
    assert error(found) < error(solved(spoilt, PUBLISHED))


def test_without_evidence_nothing_moves(pair):
    prepared = pair()
    assert not solved(replace(prepared, fixed_weight=torch.zeros_like(prepared.fixed)), MASKED).abs().max() > 1e-6


def test_inverse_consistency_error_is_in_mm(pair):
    settings = replace(MASKED, **SMALL)
    fine = mcbo(pair(), settings, "mean", GIB, Monitor()).maps["inverse_consistency_error_mm"]
    coarse = mcbo(pair(spacing=(2.0, 2.0, 2.0)), settings, "mean", GIB, Monitor()).maps["inverse_consistency_error_mm"]
    assert fine.shape == (1, 1, 24, 28, 26)
    assert torch.allclose(coarse, 2 * fine, atol=1e-4)


def test_inputs_are_not_altered(pair):
    prepared = pair()
    before = [t.clone() for t in (prepared.fixed, prepared.fixed_weight, *prepared.moving, *prepared.moving_weight)]
    solved(prepared, MASKED)
    after = (prepared.fixed, prepared.fixed_weight, *prepared.moving, *prepared.moving_weight)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_progress_only_grows_and_every_report_can_cancel(pair):
    prepared, settings = pair((12, 13, 14)), replace(MASKED, **SMALL)
    told: list[float] = []
    mcbo(prepared, settings, "mean", GIB, Monitor(lambda stage, fraction: told.append(fraction)))
    assert told == sorted(told)
    assert len(told) > 10
    for stop in (0, len(told) // 2, len(told) - 2):
        monitor = Monitor(lambda stage, fraction: None)
        count = 0

        def listener(stage, fraction, monitor=monitor, stop=stop):
            nonlocal count
            if count == stop:
                monitor.cancel()
            count += 1

        monitor._listener = listener
        with pytest.raises(Cancelled):
            mcbo(prepared, settings, "mean", GIB, monitor)
        assert count == stop + 1


class TestOutOfMemory:
    def test_smaller_parts_until_it_fits(self, pair, monkeypatch):
        prepared = pair((26, 44, 28))
        whole = solved(prepared, MASKED)
        asked: list[int] = []

        def scarce(fixed, moving, part, half_width, memory):
            voxels = int(np.prod([s.stop - s.start for s in part]))
            asked.append(voxels)
            if voxels > 20_000:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(fixed, moving, part, half_width, memory)

        original = module.cost_volume
        monkeypatch.setattr(module, "cost_volume", scarce)
        assert torch.equal(solved(prepared, MASKED, memory=GIB // 16), whole)
        assert max(asked) > 20_000 >= asked[-1]

    def test_gives_up_in_plain_words(self, pair, monkeypatch):
        def never(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(module, "cost_volume", never)
        with pytest.raises(DeviceError, match="expected memory for a part of the cost volume"):
            solved(pair(), MASKED)
