"""L-BFGS against functions whose minimum is known."""

from itertools import pairwise

import pytest
import torch

from MMRegCore.errors import Cancelled
from MMRegCore.optimisation.lbfgs import minimise


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    """(K,) of (K, N)."""
    return (100 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(dim=1)


def test_an_ill_conditioned_bowl_is_walked_to_its_bottom() -> None:
    bottom = torch.arange(20.0)
    scale = torch.logspace(0, 3, 20)
    (found,) = minimise(
        lambda x: (scale * (x - bottom).square()).sum(dim=1),
        [torch.zeros(20)],
        iterations=200,
        first_step=1,
        tolerance=0,
    )
    torch.testing.assert_close(found.parameters, bottom, atol=1e-3, rtol=0)
    assert found.value < 1e-4


def test_a_curved_valley_is_followed() -> None:
    start = torch.tensor([-1.2, 1.0, -0.5], dtype=torch.float64)
    (found,) = minimise(rosenbrock, [start], iterations=300, first_step=0.1, tolerance=0)
    torch.testing.assert_close(found.parameters, torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)


def test_the_value_never_rises_and_the_start_stays_as_it_was() -> None:
    start = torch.tensor([3.0, -2.0])
    values = [
        minimise(rosenbrock, [start], iterations=n, first_step=0.5, tolerance=0)[0].value for n in range(0, 30, 3)
    ]
    assert values[0] == float(rosenbrock(start[None]))
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert start.tolist() == [3.0, -2.0]


def test_it_stops_at_a_minimum_instead_of_dividing_by_nothing() -> None:
    (found,) = minimise(lambda x: x.square().sum(dim=1), [torch.zeros(4)], iterations=10, first_step=1, tolerance=0)
    assert found.parameters.tolist() == [0.0] * 4


def test_a_report_that_raises_cancels() -> None:
    def cancel(share: float) -> None:
        if share >= 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        minimise(rosenbrock, [torch.tensor([-1.0, 1.0])], iterations=4, first_step=0.1, tolerance=0, report=cancel)


def test_starts_are_followed_together_as_they_are_alone() -> None:
    starts = [torch.tensor(point, dtype=torch.float64) for point in ([-1.2, 1.0], [3.0, -2.0], [1.0, 1.0])]
    calls: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return rosenbrock(x)

    together = minimise(counted, starts, iterations=40, first_step=0.1, tolerance=0)
    assert calls[0] == 3
    assert calls[-1] < 3
    calls.clear()
    by_two = minimise(counted, starts, iterations=40, first_step=0.1, tolerance=0, at_once=2)
    assert calls[:2] == [2, 1]
    assert max(calls) == 2
    for start, found in zip(starts, together, strict=True):
        (alone,) = minimise(rosenbrock, [start], iterations=40, first_step=0.1, tolerance=0)
        torch.testing.assert_close(found.parameters, alone.parameters)
    for found, other in zip(together, by_two, strict=True):
        torch.testing.assert_close(found.parameters, other.parameters)
