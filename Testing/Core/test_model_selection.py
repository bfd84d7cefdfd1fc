"""Do no harm: what is chosen from start, rigid motion and deformation; the expected error; the verdict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from known_motion import made_up_pair
from MMRegCore.config import ChoiceSettings
from MMRegCore.geometry import Grid
from MMRegCore.methods.choice import choose, rigid_part
from MMRegCore.methods.confidence import expected_error_mm
from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.preprocess import Prepared
from MMRegCore.qa.verdict import ACCEPTED_MM, REJECTED_MM, verdict_from
from MMRegCore.warp import sample, voxel_coordinates

SETTINGS = ChoiceSettings()


def displacement_to(truth: torch.Tensor) -> torch.Tensor:
    return (truth - voxel_coordinates(tuple(truth.shape[1:4]))).permute(0, 4, 1, 2, 3).flip(1)


def agreement_of(prepared: Prepared) -> Agreement:
    return Agreement.of(prepared, 1.0, 2)


def wave(prepared: Prepared, length: float = 30.0) -> torch.Tensor:
    """A smooth field of some voxels that is not rigid."""
    lattice = voxel_coordinates(tuple(prepared.fixed.shape[2:]))
    return 2 * torch.sin(lattice.permute(0, 4, 1, 2, 3).roll(1, dims=1) * (6.28 / length))


class TestChoice:
    def test_a_rigid_motion_that_fits_is_chosen_and_a_deformation_that_adds_nothing_is_not(self) -> None:
        prepared, truth = made_up_pair((2.0, -2.0, 1.0), 3.0)
        right = displacement_to(truth)
        choice = choose(prepared, right, agreement_of(prepared), SETTINGS)
        assert choice.chosen.name == "rigid"
        torch.testing.assert_close(choice.chosen.displacement_voxel, right, atol=1e-2, rtol=0)

    def test_a_deformation_that_fits_is_chosen(self) -> None:
        prepared, _ = made_up_pair()
        bent = wave(prepared)
        lattice = voxel_coordinates((44, 44, 44))
        # Bend the MR so that the wave is what brings it back.
        truth = lattice + bent.flip(1).permute(0, 2, 3, 4, 1)
        fixed = sample(prepared.moving[0], truth)
        pair = Prepared(prepared.grid, fixed, prepared.fixed_weight, prepared.moving, prepared.moving_weight)
        choice = choose(pair, bent, agreement_of(pair), SETTINGS)
        assert choice.chosen.name == "deformable"
        assert choice.chosen.significance > SETTINGS.significance

    def test_what_makes_it_worse_is_refused(self) -> None:
        prepared, _ = made_up_pair()
        choice = choose(prepared, torch.full((1, 3, 44, 44, 44), 2.0), agreement_of(prepared), SETTINGS)
        assert choice.chosen.name == "start"
        assert float(choice.chosen.displacement_voxel.abs().max()) == 0

    def test_a_gain_that_chance_would_give_is_refused(self) -> None:
        prepared, _ = made_up_pair(related=False)
        choice = choose(prepared, wave(prepared), agreement_of(prepared), SETTINGS)
        assert choice.chosen.name == "start"
        assert "chance" in choice.reason

    def test_folds_are_drawn_back(self) -> None:
        prepared, _ = made_up_pair()
        folding = wave(prepared, 10.0)
        choice = choose(prepared, folding, agreement_of(prepared), SETTINGS)
        deformable = choice.candidates[2]
        assert deformable.folding_voxels == 0
        rest = deformable.displacement_voxel - rigid_part(prepared, folding)
        assert float(rest.abs().max()) < 0.9 * float((folding - rigid_part(prepared, folding)).abs().max())

    def test_what_cannot_be_unfolded_is_refused(self) -> None:
        prepared, _ = made_up_pair()
        choice = choose(prepared, 4 * wave(prepared, 10.0), agreement_of(prepared), SETTINGS)
        assert choice.candidates[2].folding_voxels > 0
        assert choice.chosen.name != "deformable"
        assert "folds" in choice.reason

    def test_all_three_are_in_the_record(self) -> None:
        prepared, truth = made_up_pair((1.0, 0.0, 0.0))
        record = choose(prepared, displacement_to(truth), agreement_of(prepared), SETTINGS).to_dict()
        assert [row["name"] for row in record["candidates"]] == ["start", "rigid", "deformable"]
        assert record["chosen"] in ("start", "rigid", "deformable")
        assert record["candidates"][1]["improvement"] > 0


class TestExpectedError:
    def test_it_is_larger_where_the_mr_is_wrong(self) -> None:
        right, _ = made_up_pair()
        wrong, _ = made_up_pair(related=False)
        still = torch.zeros(1, 3, 44, 44, 44)
        inside = right.fixed_weight > 0
        small, large = (expected_error_mm(p, still, agreement_of(p))[inside] for p in (right, wrong))
        assert float(large.mean()) > 2 * float(small.mean())

    def test_it_is_larger_in_the_half_without_structure(self) -> None:
        prepared, _ = made_up_pair()
        fixed = prepared.fixed.clone()
        fixed[..., 22:] = torch.randn(fixed[..., 22:].shape, generator=torch.Generator().manual_seed(5))
        # Large voxels, so that the two halves lie further apart than what is averaged.
        grid = Grid((44, 44, 44), np.diag([4.0, 4.0, 4.0, 1.0]))
        half = Prepared(grid, fixed, prepared.fixed_weight, prepared.moving, prepared.moving_weight)
        error = expected_error_mm(half, torch.zeros(1, 3, 44, 44, 44), Agreement.of(half, 4.0, 2))
        assert float(error[..., 8:36, 8:36, 28:36].mean()) > 1.3 * float(error[..., 8:36, 8:36, 8:16].mean())

    def test_far_from_every_patch_nothing_is_known(self) -> None:
        pair, _ = made_up_pair()
        agreement = agreement_of(pair)
        nowhere = replace(agreement, weight=torch.zeros_like(agreement.weight))
        error = expected_error_mm(pair, torch.zeros(1, 3, 44, 44, 44), nowhere)
        assert error.flatten().tolist() == pytest.approx([20.0] * error.numel())


class TestVerdict:
    @staticmethod
    def numbers(
        expected: float | None, chosen: str | None = "deformable", covered: float = 1.0, folds: int = 0
    ) -> dict:
        return {
            "extra": {} if expected is None else {"expected_error_mm": {"mean": expected}},
            "choice": None if chosen is None else {"chosen": chosen},
            "moving": [{"coverage_share_after": covered}],
            "jacobian_determinant": {"folding_voxels": folds},
        }

    @pytest.mark.parametrize(
        ("arguments", "level", "word"),
        [
            ({"expected": ACCEPTED_MM - 0.1}, "accept", "expected error"),
            ({"expected": ACCEPTED_MM + 0.1}, "review", "look at"),
            ({"expected": REJECTED_MM + 0.1}, "reject", "too large"),
            ({"expected": 0.5, "chosen": "start"}, "review", "left where it was"),
            ({"expected": 0.5, "chosen": "rigid"}, "review", "as a whole"),
            ({"expected": 0.5, "covered": 0.6}, "review", "covers only 60 %"),
            ({"expected": 0.5, "covered": 0.2}, "reject", "covers only 20 %"),
            ({"expected": 0.5, "folds": 3}, "reject", "folds in 3 voxels"),
            ({"expected": None, "chosen": None}, "review", "not estimated"),
        ],
    )
    def test_the_worst_finding_decides_and_comes_first(self, arguments: dict, level: str, word: str) -> None:
        verdict = verdict_from(self.numbers(**arguments))
        assert verdict["level"] == level
        assert word in verdict["reasons"][0]
