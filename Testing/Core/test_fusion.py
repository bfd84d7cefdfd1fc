"""Fusion of the fields of several modalities."""

import math

import pytest
import torch

from MMRegCore.optimisation.fusion import fuse

WAYS = ("signed-max", "mean", "magnitude", "confidence")


def fields(count: int = 2, seed: int = 0, size: int = 12) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, size, size, size, generator=random) for _ in range(count)]


def fused(several: list[torch.Tensor], how: str) -> torch.Tensor:
    """Fused with errors that differ from voxel to voxel and belong to the fields."""
    return fuse(several, how, [field.norm(dim=1, keepdim=True) for field in several])


@pytest.mark.parametrize("how", WAYS)
def test_one_field_and_equal_fields_stay(how):
    field = fields(1)[0]
    assert fused([field], how) is field
    assert torch.allclose(fused([field, field.clone(), field.clone()], how), field)


def test_by_hand():
    first = torch.tensor([3.0, 0.0, -1.0]).reshape(1, 3, 1, 1, 1)
    second = torch.tensor([-1.0, 2.0, -3.0]).reshape(1, 3, 1, 1, 1)
    # Weights 1/(0.25 + 0.75) and 1/(0.25 + 3.75): four to one.
    errors = [torch.full((1, 1, 1, 1, 1), value).sqrt() for value in (0.75, 3.75)]
    results = {how: fuse([first, second], how, errors).flatten().tolist() for how in WAYS}
    assert results["confidence"] == pytest.approx([2.2, 0.4, -1.4])
    assert {how: results[how] for how in WAYS[:3]} == {
        "signed-max": [3, 2, -1],
        "mean": [1, 1, -2],
        "magnitude": [-1, 2, -3],
    }


def test_signed_maximum_is_biased_and_the_others_are_not():
    # The larger of two N(0, σ) lies at +σ/√π on average: two noisy fields of nothing become a movement.
    pair = fields(size=60)
    assert float(fused(pair, "signed-max").mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=0.005)
    for how in ("mean", "magnitude", "confidence"):
        assert float(fused(pair, how).mean()) == pytest.approx(0, abs=0.005)


def flipped(field: torch.Tensor) -> torch.Tensor:
    """The same displacement on a grid with its first axis turned round."""
    return field.flip(2) * torch.tensor([-1.0, 1.0, 1.0]).reshape(1, 3, 1, 1, 1)


@pytest.mark.parametrize("how", WAYS)
def test_flips(how):
    three = fields(3)
    same = torch.allclose(flipped(fused(three, how)), fused([flipped(field) for field in three], how))
    assert same == (how != "signed-max")


@pytest.mark.parametrize("how", WAYS)
def test_order_does_not_matter(how):
    three = fields(3)
    assert torch.allclose(fused(three, how), fused(three[::-1], how), atol=1e-6)
