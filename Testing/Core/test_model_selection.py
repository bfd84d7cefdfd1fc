"""Do no harm: initial transform, rigid motion or deformation is selected; the expected error; the verdict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from known_motion import SIZE, made_up_pair
from MMRegCore.assessment.expected_error import expected_error_mm
from MMRegCore.assessment.quality import JacobianSummary, Verdict
from MMRegCore.assessment.verdict import ACCEPTED_MM, REJECTED_MM, judge
from MMRegCore.geometry import Grid
from MMRegCore.ops import identity_positions, sample
from MMRegCore.prepare import Prepared
from MMRegCore.search.model_selection import Candidate, ModelSelection, rigid_part, select_model
from MMRegCore.search.sampled import SampledSimilarity
from MMRegCore.search.settings import ModelSelectionSettings
from MMRegCore.similarity.lc2 import Lc2
from MMRegCore.volume import Channel

SETTINGS = ModelSelectionSettings()
POSITIONS = identity_positions((SIZE,) * 3)


def sampled_at(prepared: Prepared, spacing_mm: float = 1.0) -> SampledSimilarity:
    return SampledSimilarity.of(prepared, Lc2(half_width=2), spacing_mm)


def selected_of(
    prepared: Prepared, displacement: torch.Tensor, settings: ModelSelectionSettings = SETTINGS
) -> tuple[torch.Tensor, ModelSelection]:
    return select_model(prepared, displacement, sampled_at(prepared), settings)


def candidate(selection: ModelSelection, name: str) -> Candidate:
    return next(each for each in selection.candidates if each.name == name)


def wave(length: float = 30.0) -> torch.Tensor:
    """A smooth field of some voxels that is not rigid."""
    return 2 * torch.sin(POSITIONS.roll(1, dims=1) * (6.28 / length))


def deformed_pair(displacement: torch.Tensor) -> Prepared:
    """A pair whose fixed image is the MR under a displacement: that is what aligns them."""
    prepared, _ = made_up_pair()
    fixed = sample(prepared.moving[0].image, POSITIONS + displacement)
    return replace(prepared, fixed=replace(prepared.fixed, image=fixed))


class TestModelSelection:
    def test_a_rigid_motion_that_fits_is_selected_and_a_deformation_that_adds_nothing_is_not(self) -> None:
        prepared, truth = made_up_pair((2.0, -2.0, 1.0), 3.0)
        displacement, selection = selected_of(prepared, truth - POSITIONS)
        assert selection.selected == "rigid"
        torch.testing.assert_close(displacement, truth - POSITIONS, atol=1e-2, rtol=0)

    def test_a_deformation_that_fits_is_selected(self) -> None:
        displacement, selection = selected_of(deformed_pair(wave()), wave())
        assert selection.selected == "deformed"
        assert candidate(selection, "deformed").significance > SETTINGS.significance
        torch.testing.assert_close(displacement, wave())

    def test_what_makes_it_worse_is_rejected(self) -> None:
        prepared, _ = made_up_pair()
        displacement, selection = selected_of(prepared, torch.full_like(POSITIONS, 2.0))
        assert selection.selected == "initial"
        assert float(displacement.abs().max()) == 0

    def test_an_improvement_that_chance_would_give_is_rejected(self) -> None:
        prepared, _ = made_up_pair(related=False)
        _, selection = selected_of(prepared, wave())
        assert selection.selected == "initial"
        assert "chance" in selection.reason

    @pytest.mark.parametrize("stricter", [{"significance": 100.0}, {"least_improvement": 10.0}])
    def test_the_settings_say_what_counts_as_better(self, stricter: dict[str, float]) -> None:
        _, selection = selected_of(deformed_pair(wave()), wave(), replace(SETTINGS, **stricter))
        assert selection.selected == "initial"

    def test_folds_are_shrunk_toward_the_rigid_part(self) -> None:
        prepared, folding = deformed_pair(wave(10.0)), wave(10.0)
        displacement, selection = selected_of(prepared, folding)
        assert selection.selected == "deformed"
        assert candidate(selection, "deformed").folding_voxels == 0
        rigid = rigid_part(prepared, folding)
        ratio = (displacement - rigid).norm() / (folding - rigid).norm()
        assert float(ratio) < 0.81

    def test_what_cannot_be_unfolded_is_rejected(self) -> None:
        prepared, _ = made_up_pair()
        _, selection = selected_of(prepared, 4 * wave(10.0))
        assert candidate(selection, "deformed").folding_voxels > 0
        assert selection.selected != "deformed"
        assert "folds" in selection.reason

    def test_all_three_are_compared(self) -> None:
        prepared, truth = made_up_pair((1.0, 0.0, 0.0))
        _, selection = selected_of(prepared, truth - POSITIONS)
        initial, rigid, _ = selection.candidates
        assert [each.name for each in selection.candidates] == ["initial", "rigid", "deformed"]
        assert (initial.improvement, initial.significance) == (0, 0)
        assert rigid.improvement == pytest.approx(rigid.similarity - initial.similarity, abs=1e-5)
        assert rigid.significance == pytest.approx(rigid.improvement / rigid.standard_error)
        assert rigid.improvement > 0


class TestExpectedError:
    NOTHING = torch.zeros_like(POSITIONS)

    def test_it_is_larger_where_the_mr_is_wrong(self) -> None:
        right, _ = made_up_pair()
        wrong, _ = made_up_pair(related=False)
        inside = right.fixed.weight > 0
        small, large = (expected_error_mm(p, self.NOTHING, sampled_at(p))[inside] for p in (right, wrong))
        assert float(large.mean()) > 2 * float(small.mean())

    def test_it_is_larger_in_the_half_without_structure(self) -> None:
        prepared, _ = made_up_pair()
        fixed = prepared.fixed.image.clone()
        fixed[..., 22:] = torch.randn(fixed[..., 22:].shape, generator=torch.Generator().manual_seed(5))
        # Large voxels, so that the two halves lie further apart than what is averaged.
        grid = Grid((SIZE,) * 3, np.diag([4.0, 4.0, 4.0, 1.0]))
        half = Prepared(grid, Channel(fixed, prepared.fixed.weight), prepared.moving)
        error = expected_error_mm(half, self.NOTHING, sampled_at(half, 4.0))
        assert float(error[..., 8:36, 8:36, 28:36].mean()) > 1.3 * float(error[..., 8:36, 8:36, 8:16].mean())

    def test_far_from_every_patch_nothing_is_known(self) -> None:
        prepared, _ = made_up_pair()
        (moving,) = prepared.moving
        nowhere = replace(prepared, moving=(Channel(moving.image, torch.zeros_like(moving.weight)),))
        error = expected_error_mm(prepared, self.NOTHING, sampled_at(nowhere))
        assert error.flatten().tolist() == pytest.approx([20.0] * error.numel())


class TestVerdict:
    @staticmethod
    def judged(
        expected: float | None,
        selected: str | None = "deformed",
        covered: float | None = 1.0,
        folds: int = 0,
        rival_mm: float | None = None,
    ) -> Verdict:
        selection = None if selected is None else ModelSelection(selected, "", (), rival_mm)
        jacobian = JacobianSummary(0.9, 0.9, 1.1, 1.1, 0.0, folds, 0.0)
        return judge(expected, selection, [] if covered is None else [covered], jacobian)

    @pytest.mark.parametrize(
        ("arguments", "level", "words"),
        [
            ({"expected": ACCEPTED_MM - 0.1}, "accept", "expected error"),
            ({"expected": ACCEPTED_MM + 0.1}, "review", "check the structures"),
            ({"expected": REJECTED_MM + 0.1}, "reject", "too large"),
            ({"expected": 0.5, "selected": "initial"}, "review", "initial transform was kept"),
            ({"expected": 0.5, "selected": "rigid"}, "review", "rigidly but not deformed"),
            ({"expected": 0.5, "covered": 0.6}, "review", "covers only 60 %"),
            ({"expected": 0.5, "covered": 0.2}, "reject", "covers only 20 %"),
            ({"expected": 0.5, "folds": 3}, "reject", "Folding (negative Jacobian) in 3 voxels"),
            ({"expected": 0.5, "rival_mm": 6.2}, "review", "equally well, 6 mm apart"),
            ({"expected": None, "selected": None}, "review", "not estimated"),
            ({"expected": 0.5, "covered": None}, "accept", "expected error"),
        ],
    )
    def test_the_gravest_finding_decides_and_comes_first(self, arguments: dict, level: str, words: str) -> None:
        verdict = self.judged(**arguments)
        assert verdict.level == level
        assert words in verdict.reasons[0]
        assert verdict.expected_error_mm == arguments["expected"]

    def test_every_finding_is_named(self) -> None:
        verdict = self.judged(REJECTED_MM + 1, "rigid", 0.2, 1)
        assert verdict.level == "reject"
        assert len(verdict.reasons) == 4
        assert "rigidly" in verdict.reasons[-1]
