"""Forward and backward displacement, and how far each undoes the other."""

import pytest
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.optimisation.inverse_consistency import inverse_consistency_error, make_inverse_consistent


@pytest.fixture
def pair(oblique_grid, smooth_field) -> tuple[torch.Tensor, torch.Tensor]:
    """A field and its inverse, in voxels."""
    field = smooth_field(oblique_grid, 2.0)
    return field.to_voxel(), field.inverse().to_voxel()


def core(values: torch.Tensor) -> torch.Tensor:
    return values[..., 5:-5, 5:-5, 5:-5]


def test_exact_inverses_have_no_error_and_stay(pair):
    assert float(core(inverse_consistency_error(*pair)).max()) < 0.02
    forward, backward = make_inverse_consistent(*pair, 15)
    assert float(core(forward - pair[0]).abs().max()) < 0.05
    assert float(core(backward - pair[1]).abs().max()) < 0.05


def test_error_becomes_smaller(pair):
    forward, backward = pair[0] + 0.8, pair[1] + 0.5
    before = core(inverse_consistency_error(forward, backward)).mean()
    after = core(inverse_consistency_error(*make_inverse_consistent(forward, backward, 15))).mean()
    assert float(before) > 1.5
    assert float(after) < 0.1 * float(before)


def test_two_shifts_meet_half_way():
    forward = torch.zeros(1, 3, 10, 10, 10)
    forward[:, 0] = 2.0
    found, back = make_inverse_consistent(forward, torch.zeros_like(forward), 20)
    assert torch.allclose(found[0, 0], torch.ones(10, 10, 10), atol=1e-4)
    assert torch.allclose(back[0, 0], -torch.ones(10, 10, 10), atol=1e-4)


def test_no_iterations_change_nothing(pair):
    assert make_inverse_consistent(*pair, 0) == pair


def test_swapping_the_fields_swaps_the_results(pair):
    forward, backward = pair[0] + 0.3, pair[1]
    there = make_inverse_consistent(forward, backward, 5)
    back = make_inverse_consistent(backward, forward, 5)
    assert torch.equal(there[0], back[1])
    assert torch.equal(there[1], back[0])


def test_error_is_in_the_unit_of_the_spacing():
    forward = torch.zeros(1, 3, 6, 6, 6)
    forward[:, 0], forward[:, 2] = 3.0, 1.0
    error = inverse_consistency_error(forward, torch.zeros_like(forward), (2.0, 5.0, 8.0))
    assert error.shape == (1, 1, 6, 6, 6)
    assert torch.allclose(error, torch.full_like(error, 10.0))


def test_error_of_fields_in_mm(oblique_grid, smooth_field):
    field = smooth_field(oblique_grid, 2.0)
    zero = DisplacementField.zero(oblique_grid)
    k, j, i = oblique_grid.spacing_mm[::-1].tolist()
    error = inverse_consistency_error(field.to_voxel(), zero.to_voxel(), (k, j, i))
    assert torch.allclose(error[0, 0], field.magnitude_mm(), atol=1e-4)
