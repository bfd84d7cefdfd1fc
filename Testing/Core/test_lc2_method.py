"""Registration by LC²: agreement, motion, rigid search and the whole method on pairs with known motion."""

import math
from dataclasses import replace

import pytest
import torch

from known_motion import error_voxel, made_up_pair
from MMRegCore.config import Lc2Settings, MotionSettings
from MMRegCore.errors import Cancelled
from MMRegCore.methods.lc2 import agreement_levels, lc2
from MMRegCore.monitor import Monitor
from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.optimisation.motion import LINEAR, Motion
from MMRegCore.optimisation.rigid import find_rigid
from MMRegCore.preprocess import Prepared
from MMRegCore.similarity import standardised
from MMRegCore.warp import sample, voxel_coordinates

SETTINGS = Lc2Settings(lattice_mm=(2.0, 1.0), radius=(2, 2), iterations=15, reach_mm=6.0)


def _gain(agreement: Agreement, aside: float) -> float:
    return float(agreement.mean_gain(agreement.positions + aside))


def _at_voxels(prepared: Prepared, agreement: Agreement) -> torch.Tensor:
    return sample(standardised(prepared.fixed, prepared.fixed_weight), agreement.positions.round())


class TestAgreement:
    def test_it_is_largest_at_the_truth_in_every_direction(self) -> None:
        prepared, truth = made_up_pair((1.0, -2.0, 0.5))
        agreement = Agreement.of(prepared, 1.0, 2)
        offset = (truth - voxel_coordinates((44, 44, 44)))[0, 0, 0, 0]

        def at(extra: torch.Tensor) -> float:
            return float(agreement.mean_gain(agreement.positions + offset + extra))

        best = at(torch.zeros(3))
        assert best > 0.5
        for axis in range(3):
            for distance in (-1.0, 1.0):
                extra = torch.zeros(3)
                extra[axis] = distance
                assert at(extra) < 0.8 * best

    def test_interpolation_does_not_pull_it_off_the_truth(self) -> None:
        # On the voxels' own lattice a noisy MR agrees better half a voxel off, where interpolation smooths its noise.
        prepared, _ = made_up_pair()
        noise = 0.15 * torch.randn(prepared.fixed.shape, generator=torch.Generator().manual_seed(8))
        noisy = Prepared(
            prepared.grid,
            prepared.fixed,
            prepared.fixed_weight,
            (prepared.moving[0] + noise,),
            prepared.moving_weight,
        )
        agreement = Agreement.of(noisy, 1.0, 2)
        on_lattice = replace(agreement, positions=agreement.positions.round(), fixed=_at_voxels(noisy, agreement))
        for aside in (-0.4, 0.4):
            assert _gain(agreement, aside) < _gain(agreement, 0.0)
        assert _gain(on_lattice, 0.4) > _gain(on_lattice, 0.0)

    def test_what_no_mr_covers_gains_nothing(self) -> None:
        prepared, _ = made_up_pair()
        agreement = Agreement.of(prepared, 1.0, 2)
        whole = float(agreement.mean_gain(agreement.positions))
        half = float(agreement.mean_gain(agreement.positions + torch.tensor([22.0, 0.0, 0.0])))
        assert half < 0.6 * whole
        assert float(agreement.mean_gain(agreement.positions + 100)) == 0

    def test_shares_add_up_to_the_field_of_view(self) -> None:
        agreement = Agreement.of(made_up_pair()[0], 1.0, 2)
        assert float(agreement.shares().sum()) == pytest.approx(1, abs=0.15)

    def test_a_displacement_moves_the_samples(self) -> None:
        agreement = Agreement.of(made_up_pair()[0], 2.0, 2)
        displacement = torch.zeros(1, 3, 44, 44, 44)
        displacement[:, 0] = 3.0  # d
        moved = agreement.displaced(displacement) - agreement.positions
        torch.testing.assert_close(moved[..., 2], torch.full_like(moved[..., 2], 3.0))
        assert float(moved[..., :2].abs().max()) == 0


class TestMotion:
    def test_no_parameters_no_motion(self) -> None:
        motion = Motion.of(made_up_pair()[0], MotionSettings())
        lattice = voxel_coordinates((44, 44, 44))
        torch.testing.assert_close(motion.move(motion.still(), lattice), lattice)

    def test_a_random_deformation_is_as_large_and_as_smooth_as_expected(self) -> None:
        prepared, _ = made_up_pair()
        settings = MotionSettings(deformation_mm=2.0, length_mm=6.0)
        motion = Motion.of(prepared, settings)
        lattice = voxel_coordinates((44, 44, 44))[:, 8:36, 8:36, 8:36]
        fields = []
        for seed in range(60):
            parameters = torch.randn(motion.still().shape, generator=torch.Generator().manual_seed(seed))
            parameters[:LINEAR] = 0
            fields.append((motion.move(parameters, lattice) - lattice)[0])
        stack = torch.stack(fields)
        assert float(stack.std()) == pytest.approx(2.0, rel=0.1)
        apart = (stack[:, :, :, 6:] * stack[:, :, :, :-6]).mean() / stack.square().mean()
        assert float(apart) == pytest.approx(0.607, abs=0.08)  # exp(-½) at one length

    def test_the_rigid_part_keeps_distances(self) -> None:
        motion = Motion.of(made_up_pair()[0], MotionSettings())
        points = torch.rand((1, 5, 1, 1, 3), generator=torch.Generator().manual_seed(0)) * 40
        moved = motion.move(torch.tensor([1.0, -0.5, 0.2, 2.0, -1.0, 0.5, 1.0, -1.0, 2.0, 0.5, 1.0, -1.0]), points)
        torch.testing.assert_close(torch.pdist(moved[0, :, 0, 0]), torch.pdist(points[0, :, 0, 0]))
        assert float((moved - points).norm(dim=-1).min()) > 0.5

    def test_a_stretch_is_what_was_asked_for(self) -> None:
        points = torch.rand((1, 5, 1, 1, 3), generator=torch.Generator().manual_seed(0)) * 40
        wider = torch.tensor([0.0] * 6 + [1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
        for percent, factor in ((0.0, 1.0), (10.0, math.exp(0.1))):
            motion = Motion.of(made_up_pair()[0], MotionSettings(stretch_percent=percent))
            expected = factor * (points - motion.centre) + motion.centre
            torch.testing.assert_close(motion.move(wider, points), expected)

    def test_a_pose_leaves_the_deformation_out(self) -> None:
        motion = Motion.of(made_up_pair()[0], MotionSettings())
        pose = torch.tensor([1.0, -0.5, 0.2, 2.0, -1.0, 0.5, 1.0, -1.0, 2.0, 0.5, 1.0, -1.0])
        points = torch.rand((1, 5, 1, 1, 3)) * 40
        torch.testing.assert_close(motion.move(motion.from_pose(pose), points), motion.move(pose, points))


def test_the_rigid_search_finds_a_shift_beyond_the_reach_of_a_gradient() -> None:
    prepared, truth = made_up_pair((6.0, -4.0, 5.0), 4.0)
    motion = Motion.of(prepared, MotionSettings())
    poses = find_rigid(
        agreement_levels(prepared, SETTINGS), motion, evidence=200, reach=6.0, step=3.0, monitor=Monitor()
    )
    lattice = voxel_coordinates((44, 44, 44))
    found = motion.move(poses[0].parameters, lattice)
    assert float((found - truth).norm(dim=-1)[prepared.fixed_weight[:, 0] > 0].mean()) < 0.5
    assert [pose.cost for pose in poses] == sorted(pose.cost for pose in poses)


def test_the_whole_method_finds_pose_and_deformation() -> None:
    prepared, truth = made_up_pair((2.0, -1.0, 1.0), 3.0)
    solution = lc2(prepared, SETTINGS, Monitor())
    before = error_voxel(torch.zeros_like(solution.displacement_voxel), truth, prepared.fixed_weight)
    after = error_voxel(solution.displacement_voxel, truth, prepared.fixed_weight)
    assert before > 2.4
    assert after < 0.4


def test_a_stretch_is_found_on_request() -> None:
    prepared, truth = made_up_pair((2.0, -1.0, 1.0), stretch=1.1)
    still = MotionSettings(deformation_mm=0.0)
    errors = []
    for motion in (still, replace(still, stretch_percent=8.0)):
        found = lc2(prepared, replace(SETTINGS, motion=motion), Monitor()).displacement_voxel
        errors.append(error_voxel(found, truth, prepared.fixed_weight))
    assert errors[0] > 0.8
    assert errors[1] < 0.3


def test_the_expected_motion_decides_where_the_images_say_nothing() -> None:
    prepared, _ = made_up_pair(related=False)
    solution = lc2(prepared, Lc2Settings(lattice_mm=(2.0, 1.0), radius=(2, 2), evidence=1.0), Monitor())
    assert float(solution.displacement_voxel.abs().max()) < 0.5


def test_it_can_be_cancelled() -> None:
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled):
        lc2(made_up_pair()[0], SETTINGS, monitor)
