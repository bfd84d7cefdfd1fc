"""Coupled convex optimisation against brute force; parts against the whole; voxels without weight."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from MMRegCore.optimisation import coupled_convex
from MMRegCore.optimisation.correlation import cost_volume, displacement_candidates, matching_terms
from MMRegCore.optimisation.coupled_convex import Sweep, solve
from MMRegCore.optimisation.dense_search import _window, columns_that_fit

COEFFICIENTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def random_cost(half_width: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    count = (2 * half_width + 1) ** 3
    return torch.from_numpy(np.random.default_rng(seed).random((count, *shape))).float()


def literal_solve(cost: torch.Tensor, coefficients, average_iterates: bool, weight: torch.Tensor | None):
    """The same in a few plain lines, with a whole penalty per candidate."""
    count, *shape = cost.shape
    candidates = displacement_candidates((round(count ** (1 / 3)) - 1) // 2)

    def best(smooth, coefficient):
        away = (candidates[:, :, None] - smooth.reshape(1, 3, -1)).square().sum(dim=1)
        return candidates[(cost.reshape(count, -1) + coefficient * away).argmin(dim=0)].T.reshape(1, 3, *shape)

    def average(field):
        if weight is None:
            return F.avg_pool3d(field, 3, 1, 1)
        share = weight.clamp(min=1e-3)
        return F.avg_pool3d(field * share, 3, 1, 1) / F.avg_pool3d(share, 3, 1, 1)

    smooth = torch.zeros(1, 3, *shape) if weight is not None else average(best(torch.zeros(1, 3, *shape), 0.0))
    iterates = []
    for coefficient in coefficients:
        smooth = average(best(smooth, coefficient))
        iterates.append(smooth)
    return torch.stack(iterates).mean(dim=0) if average_iterates else iterates[-1]


@pytest.mark.parametrize("half_width", [1, 2, 4])
@pytest.mark.parametrize("average_iterates", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_against_brute_force(half_width, average_iterates, weighted, monkeypatch):
    monkeypatch.setattr(coupled_convex, "_CPU_CHUNK", 500)
    cost = random_cost(half_width, (7, 13, 12))  # more voxels than one chunk
    weight = torch.from_numpy(np.random.default_rng(1).random((1, 1, 7, 13, 12)) < 0.6).float() if weighted else None
    found = solve(cost, COEFFICIENTS, average_iterates=average_iterates, weight=weight)
    expected = literal_solve(cost, COEFFICIENTS, average_iterates, weight)
    assert float((found - expected).abs().max()) < 1e-4


def test_strong_minimum_is_found():
    cost = random_cost(2, (6, 6, 6)) * 0.01
    wanted = torch.tensor([1.0, -2.0, 2.0])
    index = int((displacement_candidates(2) == wanted).all(dim=1).nonzero())
    cost[index] -= 100
    found = solve(cost, COEFFICIENTS, average_iterates=True)
    assert found[0, :, 3, 3, 3].tolist() == pytest.approx(wanted.tolist())
    with_weight = solve(cost, COEFFICIENTS, average_iterates=True, weight=torch.ones(1, 1, 6, 6, 6))
    # Normalised averages reach the border, plain ones fade there.
    assert with_weight[0, :, 0, 0, 0].tolist() == pytest.approx(wanted.tolist())
    assert found[0, :, 0, 0, 0].abs().sum() < 3


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_no_preference_stays_at_zero_in_masked_work(weight):
    found = solve(
        torch.zeros(125, 6, 6, 6), COEFFICIENTS, average_iterates=True, weight=torch.full((1, 1, 6, 6, 6), weight)
    )
    assert not found.any()


def test_voxels_without_weight_follow_their_neighbours():
    cost = torch.zeros(125, 5, 5, 12)
    weight = torch.zeros(1, 1, 5, 5, 12)
    weight[..., :6] = 1
    wanted = torch.tensor([0.0, 1.0, 2.0])
    index = int((displacement_candidates(2) == wanted).all(dim=1).nonzero())
    cost[index, ..., :6] = -100
    found = solve(cost, COEFFICIENTS, average_iterates=True, weight=weight)
    assert found[0, :, 2, 2, 5].tolist() == pytest.approx(wanted.tolist(), abs=0.02)
    assert float(found[0, 2, 2, 2, 7]) > 0.5


@pytest.mark.parametrize("masked", [False, True])
def test_parts_with_their_margin_equal_the_whole_exactly(masked):
    shape, half_width = (22, 19, 25), 1
    random = np.random.default_rng(5)
    fixed, moving = (torch.from_numpy(random.random((1, 4, *shape))).float() for _ in range(2))
    given = [torch.from_numpy(random.random((1, 1, *shape)) < 0.8).float() for _ in range(2)] if masked else [None] * 2
    terms = matching_terms(fixed, moving, *given)

    def solved(part):
        d, h, w = part
        weight = given[0][..., d, h, w] if masked else None
        return solve(cost_volume(*terms, part, half_width), COEFFICIENTS, average_iterates=True, weight=weight)

    whole = solved(tuple(slice(0, n) for n in shape))
    parts = columns_that_fit(shape, coupled_convex.margin(COEFFICIENTS), 8000)
    assert len(parts) > 1
    joined = torch.full_like(whole, torch.nan)
    for part in parts:
        joined[(..., *part.core)] = solved(part.around)[(..., *part.inner)]
    assert torch.equal(joined, whole)


@pytest.mark.parametrize("average_iterates", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("step", [7, 8, 12, 30])
def test_slabs_in_a_window_equal_the_whole_exactly(average_iterates, weighted, step):
    depth = 30
    cost = random_cost(1, (depth, 6, 5))
    weight = torch.from_numpy(np.random.default_rng(1).random((1, 1, depth, 6, 5)) < 0.6).float() if weighted else None
    options = {"average_iterates": average_iterates, "weight": weight}
    sweep = Sweep(cost.shape, COEFFICIENTS, like=cost, **options)
    window = torch.full((27, 2 * step, 6, 5), torch.nan)
    for start in range(0, depth, step):
        stop, place = min(start + step, depth), start % (2 * step)
        window[:, place : place + step] = torch.nan
        window[:, place : place + stop - start] = cost[:, start:stop]
        sweep.advance(window, stop)
    assert torch.equal(sweep.displacement, solve(cost, COEFFICIENTS, **options))


@pytest.mark.parametrize(("depth", "margin", "most"), [(94, 7, 24), (94, 7, 3), (20, 7, 24), (25, 7, 24), (12, 7, 3)])
def test_window_holds_the_margin(depth, margin, most):
    window, step = _window(depth, margin, most)
    assert window <= max(most, 2 * margin)
    assert window == step == depth or (window == 2 * step and step >= margin)


@pytest.mark.parametrize(("shape", "most"), [((30, 40, 50), 20_000), ((40, 9), 1), ((64, 8, 8), 3000), ((90, 70), 400)])
def test_columns_tile_the_grid(shape, most):
    count = np.zeros(shape, dtype=int)
    for column in columns_that_fit(shape, 7, most):
        count[column.core] += 1
        for core, around, size in zip(column.core, column.around, shape, strict=True):
            assert (around.start, around.stop) == (max(core.start - 7, 0), min(core.stop + 7, size))
    assert (count == 1).all()


@pytest.mark.parametrize(("shape", "most"), [((60, 60, 60), 5000), ((60, 60), 300)])
def test_columns_respect_the_limit_where_they_can(shape, most):
    assert max(column.voxels for column in columns_that_fit(shape, 3, most)) <= most
