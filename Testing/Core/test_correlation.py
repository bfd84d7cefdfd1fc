"""Cost volumes against a literal double loop; parts against the whole."""

from itertools import product

import numpy as np
import pytest
import torch

from MMRegCore.optimisation.correlation import cost_volume, displacement_candidates, matching_terms

SHAPE = (5, 6, 7)
WHOLE = tuple(slice(0, n) for n in SHAPE)
HALF_WIDTH = 2


def descriptors(seed: int, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, channels, *SHAPE))).float()


def weights(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, 1, *SHAPE)) < 0.7).float()


def averaged(values: np.ndarray) -> np.ndarray:
    """The 3³ average of (D, H, W) where the whole box fits."""
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3, 3))
    return windows.mean(axis=(-1, -2, -3))


def literal_cost(fixed: np.ndarray, moving: np.ndarray, displacement: tuple[int, ...], cost_at) -> np.ndarray:
    """(D, H, W): ``cost_at`` at every voxel and up to 2 off the image, averaged twice; zeros outside."""
    margin, reach = 2, HALF_WIDTH + 2
    pad = [(0, 0)] + [(reach, reach)] * 3
    fixed, moving = np.pad(fixed, pad), np.pad(moving, pad)
    raw = np.zeros([n + 2 * margin for n in SHAPE])
    for place in np.ndindex(*raw.shape):
        here = tuple(p + reach - margin for p in place)
        there = tuple(h + u for h, u in zip(here, displacement, strict=True))
        raw[place] = cost_at(fixed[(slice(None), *here)], moving[(slice(None), *there)])
    return averaged(averaged(raw))


def test_candidates_run_fastest_along_w():
    expected = list(product((-1, 0, 1), repeat=3))
    assert displacement_candidates(1).tolist() == [list(step) for step in expected]


def test_published_cost_is_the_sum_of_squared_differences():
    fixed, moving = descriptors(1), descriptors(2)
    cost = cost_volume(*matching_terms(fixed, moving), WHOLE, HALF_WIDTH)
    assert cost.shape == (125, *SHAPE)
    candidates = displacement_candidates(HALF_WIDTH).int().tolist()
    f, m = fixed[0].double().numpy(), moving[0].double().numpy()
    f, m = np.concatenate([f, np.ones((1, *SHAPE))]), np.concatenate([m, np.ones((1, *SHAPE))])
    for index in (0, 17, 60, 61, 62, 124):
        expected = literal_cost(f, m, candidates[index], _published)
        assert cost[index].numpy() == pytest.approx(expected, abs=1e-4)


def _published(a: np.ndarray, b: np.ndarray) -> float:
    """SSD less what depends on the fixed voxel alone; zeros off the moving image, no cost off the fixed."""
    return a[-1] * (((a[:-1] - b[:-1]) ** 2).sum() - (a[:-1] ** 2).sum())


def test_masked_cost_is_weighted_and_neutral_outside():
    fixed, moving, weight_f, weight_m = descriptors(1), descriptors(2), weights(3), weights(4)
    cost = cost_volume(*matching_terms(fixed, moving, weight_f, weight_m), WHOLE, HALF_WIDTH)
    f, m = (x[0].double().numpy() for x in (fixed, moving))
    wf, wm = (x[0, 0].numpy() > 0 for x in (weight_f, weight_m))
    inside_f, inside_m = f[:, wf].T, m[:, wm].T
    neutral = np.mean([((a - b) ** 2).sum() for a in inside_f for b in inside_m])

    def cost_at(a, b):
        return a[-1] * b[-1] * (((a[:-1] - b[:-1]) ** 2).sum() - neutral)

    with_weight_f, with_weight_m = (np.concatenate([x, w[None]]) for x, w in ((f, wf), (m, wm)))
    candidates = displacement_candidates(HALF_WIDTH).int().tolist()
    for index in (0, 40, 62, 124):
        expected = literal_cost(with_weight_f, with_weight_m, candidates[index], cost_at)
        assert cost[index].numpy() == pytest.approx(expected, abs=1e-4)


def test_what_has_no_weight_costs_nothing():
    nothing, everything = torch.zeros(1, 1, *SHAPE), torch.ones(1, 1, *SHAPE)
    for pair in ((nothing, everything), (everything, nothing)):
        assert not cost_volume(*matching_terms(descriptors(1), descriptors(2), *pair), WHOLE, HALF_WIDTH).any()


@pytest.mark.parametrize("masked", [False, True])
def test_parts_equal_the_whole_exactly(masked):
    given = (weights(3), weights(4)) if masked else (None, None)
    terms = matching_terms(descriptors(1, 12), descriptors(2, 12), *given)
    whole = cost_volume(*terms, WHOLE, HALF_WIDTH)
    for part in product((slice(0, 2), slice(2, 5)), (slice(0, 6),), (slice(0, 1), slice(1, 4), slice(4, 7))):
        d, h, w = part
        assert torch.equal(cost_volume(*terms, part, HALF_WIDTH), whole[:, d, h, w])
        window = torch.full((125, 4, 6, w.stop - w.start), torch.nan)
        slab = window[:, 1 : 1 + d.stop - d.start]
        assert cost_volume(*terms, part, HALF_WIDTH, slab) is slab
        assert torch.equal(slab, whole[:, d, h, w])
        assert window[:, 0].isnan().all()


def test_descriptors_are_not_altered():
    fixed, moving = descriptors(1), descriptors(2)
    before = fixed.clone(), moving.clone()
    cost_volume(*matching_terms(fixed, moving, weights(3), weights(4)), WHOLE, HALF_WIDTH)
    assert torch.equal(fixed, before[0])
    assert torch.equal(moving, before[1])
