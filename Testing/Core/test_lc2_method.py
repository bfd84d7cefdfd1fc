"""Registration by LC²: sampled similarity, motion model, rigid search and the whole method on known motions."""

import math
from dataclasses import replace

import pytest
import torch

from known_motion import SIZE, error_voxel, made_up_pair
from MMRegCore.errors import Cancelled
from MMRegCore.methods.lc2 import METHOD, Lc2Settings, _plausible, _rival_mm, extended, solve
from MMRegCore.monitor import Monitor
from MMRegCore.ops import avg_pool, identity_positions, sample
from MMRegCore.optimisation.lbfgs import Minimum
from MMRegCore.prepare import Prepared
from MMRegCore.search.motion_model import LINEAR, MotionModel
from MMRegCore.search.rigid import _distinct, find_rigid, posterior_cost
from MMRegCore.search.sampled import Evidence, Levels, SampledSimilarity
from MMRegCore.search.settings import MotionPriorSettings, SearchSettings
from MMRegCore.similarity.descriptors.mind import Mind, mind_ssc
from MMRegCore.similarity.lc2 import Lc2, standardise
from MMRegCore.volume import Channel
from scenes import problem

pytestmark = pytest.mark.slow

SEARCH = SearchSettings(sampling_spacing_mm=(2.0, 1.0), half_width=(2, 2), starts=256, range_mm=6.0, range_deg=6.0)
SETTINGS = Lc2Settings(search=SEARCH, iterations=15)
# For motions that a gradient finds.
NEAR = replace(SETTINGS, search=replace(SEARCH, starts=0))
POSITIONS = identity_positions((SIZE,) * 3)
# Translation, rotation, scale and shear.
PARAMETERS = torch.tensor([1.0, -0.5, 0.2, 2.0, -1.0, 0.5, 1.0, -1.0, 2.0, 0.5, 1.0, -1.0])


def sampled_at(prepared: Prepared, spacing_mm: float = 1.0) -> SampledSimilarity:
    return SampledSimilarity.of(prepared, Lc2(half_width=2), spacing_mm)


def along(axis: int, distance: float) -> torch.Tensor:
    """(3,): an offset of points along one axis."""
    return distance * torch.eye(3)[axis]


def as_volume(points: torch.Tensor) -> torch.Tensor:
    """Positions (1, 3, N, 1, 1) of points (N, 3)."""
    return points.t()[None, :, :, None, None]


def some_points() -> torch.Tensor:
    """(1, 3, 5, 1, 1): positions in voxels."""
    return torch.rand((1, 3, 5, 1, 1), generator=torch.Generator().manual_seed(0)) * 40


def distances(points: torch.Tensor) -> torch.Tensor:
    return torch.pdist(points[0, :, :, 0, 0].T)


class TestSampledSimilarity:
    def test_it_is_largest_at_the_truth_in_every_direction(self) -> None:
        prepared, truth = made_up_pair((1.0, -2.0, 0.5))
        sampled = sampled_at(prepared)
        there = sampled.points + (truth - POSITIONS)[0, :, 0, 0, 0]
        best = float(sampled.mean(there))
        assert best > 0.5
        for axis in range(3):
            for distance in (-1.0, 1.0):
                assert float(sampled.mean(there + along(axis, distance))) < 0.8 * best

    def test_interpolation_does_not_pull_it_off_the_truth(self) -> None:
        # On the voxels' own grid a noisy MR is more similar half a voxel off, where interpolation smooths its noise.
        prepared, _ = made_up_pair()
        (moving,) = prepared.moving
        noise = 0.15 * torch.randn(moving.image.shape, generator=torch.Generator().manual_seed(8))
        noisy = replace(prepared, moving=(replace(moving, image=moving.image + noise),))
        jittered = sampled_at(noisy)
        at_voxels = jittered.points.round()
        fixed = sample(standardise(noisy.fixed.image, noisy.fixed.weight), as_volume(at_voxels))[0, :, :, 0, 0].t()
        on_grid = replace(jittered, points=at_voxels, fixed=fixed)

        def mean(sampled: SampledSimilarity, offset: float) -> float:
            return float(sampled.mean(sampled.points + offset))

        for offset in (-0.4, 0.4):
            assert mean(jittered, offset) < mean(jittered, 0.0)
        assert mean(on_grid, 0.4) > mean(on_grid, 0.0)

    def test_what_no_mr_covers_counts_as_no_similarity(self) -> None:
        sampled = sampled_at(made_up_pair()[0])
        whole = float(sampled.mean(sampled.points))
        half = float(sampled.mean(sampled.points + along(2, SIZE / 2)))
        assert half < 0.6 * whole
        assert float(sampled.mean(sampled.points + 100)) == 0

    def test_shares_add_up_to_the_field_of_view(self) -> None:
        assert float(sampled_at(made_up_pair()[0]).shares().sum()) == pytest.approx(1, abs=0.15)

    def test_a_displacement_moves_the_samples(self) -> None:
        sampled = sampled_at(made_up_pair()[0], 2.0)
        displacement = torch.zeros(1, 3, SIZE, SIZE, SIZE)
        displacement[:, 0] = 3.0  # d
        moved = sampled.displaced(displacement) - sampled.points
        torch.testing.assert_close(moved[:, 0], torch.full_like(moved[:, 0], 3.0))
        assert float(moved[:, 1:].abs().max()) == 0

    def test_it_is_what_comparing_on_the_whole_lattice_gives(self) -> None:
        # The field of view is a ball of the box, and the motion moves a part of it off the MR.
        prepared, _ = made_up_pair()
        radius = (POSITIONS - SIZE / 2).square().sum(dim=1, keepdim=True).sqrt()
        fixed = Channel(prepared.fixed.image, prepared.fixed.weight * (radius < SIZE / 3))
        sampled = sampled_at(replace(prepared, fixed=fixed))
        assert len(sampled.points) < 0.7 * sampled.lattice.active.numel()
        points = sampled.points + torch.tensor([2.0, 0.3, -SIZE / 3])
        values = sampled.moving(points)
        moving, weight = values[:, :-1], values[:, -1:] * sampled.moving.covers(points)
        whole = sampled.measure.compare(*(sampled.lattice.spread(each) for each in (sampled.fixed, moving, weight)))
        found = sampled.at(points)
        share = whole.support / whole.support.sum() * found.support.sum()
        torch.testing.assert_close(found.support, share)
        torch.testing.assert_close(found.value * share, whole.value * share, atol=1e-6, rtol=1e-4)

    def test_motions_are_compared_together_as_they_are_alone(self) -> None:
        sampled = sampled_at(made_up_pair()[0], 2.0)
        several = torch.stack([sampled.points + shift for shift in (0.0, 0.7, 30.0)], dim=1)
        alone = torch.stack([sampled.mean(points) for points in several.unbind(1)])
        torch.testing.assert_close(sampled.means(several), alone)

    def test_its_gradient_is_the_one_that_differences_give(self) -> None:
        prepared, _ = made_up_pair()
        sampled = sampled_at(prepared, 2.0)
        points = (sampled.points + 0.37).requires_grad_()
        (gradient,) = torch.autograd.grad(sampled.mean(points), points)
        direction = torch.randn(points.shape, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            ends = [float(sampled.mean(points + sign * 0.01 * direction)) for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 0.02 == pytest.approx(float((gradient * direction).sum()), rel=0.02)

    def test_a_field_of_view_that_no_sample_meets_has_no_similarity(self) -> None:
        prepared, _ = made_up_pair()
        thin = torch.zeros_like(prepared.fixed.weight)
        thin[..., 3, 5, 7] = 1
        sampled = sampled_at(replace(prepared, fixed=Channel(prepared.fixed.image, thin)), 3.0)
        points = sampled.points.clone().requires_grad_()
        value = sampled.mean(points)
        assert float(value.detach()) == 0
        (gradient,) = torch.autograd.grad(value, points)
        assert not gradient.any()

    def test_a_large_field_of_view_is_sampled_more_coarsely(self, monkeypatch) -> None:
        prepared, _ = made_up_pair()
        every = sampled_at(prepared)
        monkeypatch.setattr("MMRegCore.search.sampled._MOST_SAMPLES", len(every.points) // 4)
        some = sampled_at(prepared)
        assert len(every.points) / 6 < len(some.points) < len(every.points) / 3
        assert some.patch_spacing_mm > 1.4 * every.patch_spacing_mm
        assert float(some.mean(some.points)) == pytest.approx(float(every.mean(every.points)), rel=0.3)

    def test_every_level_is_made_once(self) -> None:
        levels = Levels(made_up_pair()[0])
        fine = levels.at("lc2", 1.0, 2)
        assert levels.at("lc2", 1.0, 2) is fine
        assert levels.at("lc2", 1.0, 1) is not fine

    def test_a_descriptor_alone_at_the_coarsest_level_then_beside_the_similarity(self) -> None:
        levels = Levels(made_up_pair()[0])
        search = replace(SEARCH, sampling_spacing_mm=(3.0, 2.0, 1.0), half_width=(1, 2, 2), descriptor_weight=4.0)

        def parts(settings: SearchSettings) -> list[list[tuple[float, str]]]:
            return [[(w, type(s.measure).__name__) for w, s in level.parts] for level in levels.all(settings)]

        both = [(1.0, "Lc2"), (4.0, "Mind")]
        assert parts(search) == [both[1:], both, both[:1]]
        assert parts(replace(search, descriptor_weight=0.0)) == [both[:1]] * 3
        assert parts(replace(search, sampling_spacing_mm=(1.0,), half_width=(2,))) == [both[:1]]

    def test_unrelated_descriptors_count_as_what_no_mr_covers(self) -> None:
        prepared, _ = made_up_pair(related=False)
        sampled = SampledSimilarity.of(prepared, Mind(), 2.0)
        related = SampledSimilarity.of(made_up_pair()[0], Mind(), 2.0)
        assert abs(float(sampled.mean(sampled.points))) < 0.1 * float(related.mean(related.points))

    def test_descriptors_are_made_of_the_image_as_it_is(self) -> None:
        prepared, _ = made_up_pair()
        sampled = SampledSimilarity.of(prepared, Mind(), 2.0)
        described = avg_pool(mind_ssc(prepared.moving[0].image), 2)
        torch.testing.assert_close(sampled.moving.rows[:, :-1], described[0].flatten(1).t())


class TestMotionModel:
    @pytest.fixture
    def model(self) -> MotionModel:
        return MotionModel.of(made_up_pair()[0], MotionPriorSettings())

    def test_no_parameters_no_motion(self, model: MotionModel) -> None:
        torch.testing.assert_close(model.move(model.identity(), POSITIONS), POSITIONS)

    def test_a_random_deformation_is_as_large_and_as_smooth_as_expected(self) -> None:
        prior = MotionPriorSettings(deformation_mm=2.0, correlation_length_mm=6.0)
        model = MotionModel.of(made_up_pair()[0], prior)
        positions = POSITIONS[..., 8:36, 8:36, 8:36]
        fields = []
        for seed in range(60):
            parameters = torch.randn(model.identity().shape, generator=torch.Generator().manual_seed(seed))
            parameters[:LINEAR] = 0
            fields.append((model.move(parameters, positions) - positions)[0])
        stack = torch.stack(fields)
        assert float(stack.std()) == pytest.approx(2.0, rel=0.1)
        for axis in (2, 3, 4):
            near, far = stack.narrow(axis, 0, 22), stack.narrow(axis, 6, 22)
            correlation = (near * far).mean() / stack.square().mean()
            assert float(correlation) == pytest.approx(0.607, abs=0.08)  # exp(-½) at one length

    def test_the_rigid_part_keeps_distances(self, model: MotionModel) -> None:
        points = some_points()
        moved = model.move(PARAMETERS, points)
        torch.testing.assert_close(distances(moved), distances(points))
        assert float((moved - points).norm(dim=1).min()) > 0.5

    def test_large_translations_and_rotations_are_less_of_a_surprise_than_to_a_gaussian(self) -> None:
        def surprise(degrees_of_freedom: float, parameter: int, value: float) -> float:
            model = MotionModel.of(made_up_pair()[0], MotionPriorSettings(degrees_of_freedom=degrees_of_freedom))
            parameters = model.identity()
            parameters[parameter] = value
            return float(model.surprise(parameters[None]))

        for number in (0, 3):
            assert surprise(1000.0, number, 5.0) == pytest.approx(12.5, rel=0.02)
            assert surprise(3.0, number, 5.0) == pytest.approx(3 * math.log1p(25 / 3))
        assert surprise(3.0, LINEAR, 5.0) == pytest.approx(12.5)

    def test_scale_is_that_of_the_prior(self) -> None:
        points = some_points()
        wider = torch.tensor([0.0] * 6 + [1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
        for percent, factor in ((0.0, 1.0), (10.0, math.exp(0.1))):
            model = MotionModel.of(made_up_pair()[0], MotionPriorSettings(scale_shear_percent=percent))
            centre = model.centre.reshape(1, 3, 1, 1, 1)
            torch.testing.assert_close(model.move(wider, points), factor * (points - centre) + centre)

    def test_points_move_as_positions_do(self, model: MotionModel) -> None:
        points = 45 * torch.rand((50, 3), generator=torch.Generator().manual_seed(1)) - 2
        whole = torch.randn(model.identity().shape, generator=torch.Generator().manual_seed(2))
        for parameters in (PARAMETERS, whole):
            moved = as_volume(model.at(points)(parameters[None])[:, 0])
            torch.testing.assert_close(moved, model.move(parameters, as_volume(points)), atol=1e-4, rtol=1e-5)

    def test_a_linear_motion_leaves_the_deformation_out(self, model: MotionModel) -> None:
        points = some_points()
        whole = model.from_linear(PARAMETERS)
        torch.testing.assert_close(model.move(whole, points), model.move(PARAMETERS, points))


class TestRigidSearch:
    # Beyond the range of a gradient.
    FAR = ((6.0, -4.0, 5.0), 4.0)

    @pytest.mark.parametrize("similarity", ["lc2", "ncc", "nmi", "mind"])
    def test_it_finds_a_shift_by_any_similarity(self, similarity: str) -> None:
        prepared, truth = made_up_pair(*self.FAR, noise=0.1)
        model = MotionModel.of(prepared, SEARCH.prior)
        search = replace(SEARCH, similarity=similarity, descriptor_weight=0.0)
        found, *_ = find_rigid(Levels(prepared), model, search, Monitor())
        moved = model.move(found, POSITIONS) - POSITIONS
        assert error_voxel(moved, truth, prepared.fixed.weight) < (0.8 if similarity == "mind" else 0.5)

    def test_it_finds_what_a_gradient_does_not(self) -> None:
        prepared, truth = made_up_pair(*self.FAR)
        model = MotionModel.of(prepared, SEARCH.prior)

        def error(starts: int) -> float:
            search = replace(SEARCH, starts=starts, descriptor_weight=0.0)
            found, *_ = find_rigid(Levels(prepared), model, search, Monitor())
            return error_voxel(model.move(found, POSITIONS) - POSITIONS, truth, prepared.fixed.weight)

        assert error(0) > 2.0
        assert error(256) < 0.5

    def test_it_finds_a_large_rotation(self) -> None:
        prepared, truth = made_up_pair((6.0, -4.0, 5.0), 14.0, noise=0.1)
        model = MotionModel.of(prepared, SEARCH.prior)
        search = replace(SEARCH, sampling_spacing_mm=(3.0, 2.0), starts=512, range_mm=8.0, range_deg=15.0)
        found, *_ = find_rigid(Levels(prepared), model, search, Monitor())
        assert error_voxel(model.move(found, POSITIONS) - POSITIONS, truth, prepared.fixed.weight) < 2.5

    def test_its_cost_is_the_negative_log_posterior_per_sample(self) -> None:
        prepared, _ = made_up_pair()
        model, sampled = MotionModel.of(prepared, SEARCH.prior), sampled_at(prepared)
        similarity = float(sampled.means(model.at(sampled.points)(PARAMETERS[None])))
        expected = float(model.surprise(PARAMETERS[None])) / 200 - 2 * similarity
        cost = posterior_cost(Evidence(((1.5, sampled), (0.5, sampled))), model, 200.0)
        assert float(cost(PARAMETERS[None])) == pytest.approx(expected)

    def test_candidates_are_kept_best_first_and_each_once(self) -> None:
        costs = (0.3, 0.1, 0.2)
        far, near = torch.zeros(LINEAR), torch.zeros(LINEAR)
        far[0], near[0] = 1.0, 0.1
        candidates = [Minimum(p, c) for p, c in zip((far, near, torch.zeros(LINEAR)), costs, strict=True)]
        assert [candidate.value for candidate in _distinct(candidates)] == [0.1, 0.3]


def test_the_whole_method_finds_rigid_motion_and_deformation() -> None:
    prepared, truth = made_up_pair((2.0, -1.0, 1.0), 3.0)
    solution = solve(problem(prepared), SETTINGS)
    before = error_voxel(torch.zeros_like(solution.displacement_voxel), truth, prepared.fixed.weight)
    after = error_voxel(solution.displacement_voxel, truth, prepared.fixed.weight)
    assert before > 2.4
    assert after < 0.4
    assert not solution.affine


def test_scale_is_found_on_request() -> None:
    prepared, truth = made_up_pair((2.0, -1.0, 1.0), scale=1.1)
    linear = MotionPriorSettings(deformation_mm=0.0)
    solutions = [
        solve(problem(prepared), replace(NEAR, search=replace(NEAR.search, prior=prior)))
        for prior in (linear, replace(linear, scale_shear_percent=8.0))
    ]
    errors = [error_voxel(found.displacement_voxel, truth, prepared.fixed.weight) for found in solutions]
    assert errors[0] > 0.8
    assert errors[1] < 0.3
    assert [found.affine for found in solutions] == [False, True]


def test_several_moving_images_explain_together() -> None:
    prepared, truth = made_up_pair((2.0, -1.0, 1.0), 3.0)
    half = torch.zeros_like(prepared.fixed.weight)
    half[..., : SIZE // 2] = 1
    (moving,) = prepared.moving
    noise = torch.rand(moving.image.shape, generator=torch.Generator().manual_seed(5))
    parts = [Channel(torch.where(part > 0, moving.image, noise), moving.weight) for part in (half, 1 - half)]
    found = solve(problem(replace(prepared, moving=tuple(parts))), NEAR)
    assert error_voxel(found.displacement_voxel, truth, prepared.fixed.weight) < 0.4


def test_the_prior_decides_where_the_images_say_nothing() -> None:
    prepared, _ = made_up_pair(related=False)
    settings = replace(SETTINGS, search=replace(SEARCH, effective_sample_size=1.0))
    assert float(solve(problem(prepared), settings).displacement_voxel.abs().max()) < 0.5


def test_scouting_finds_where_the_method_begins() -> None:
    prepared, _ = made_up_pair((4.0, -3.0, 2.0), 3.0)
    found = extended(replace(SETTINGS, search=replace(SEARCH, extended_range_mm=9.0)))
    assert found is not None
    start = found.scout(problem(prepared), found.settings)
    whole = solve(problem(prepared), SETTINGS)
    assert whole.start is not None
    assert not found.is_new(start, whole.start)
    assert found.is_new(start, torch.zeros(LINEAR))
    begun = solve(replace(problem(prepared), start=start), SETTINGS)
    torch.testing.assert_close(begun.displacement_voxel, whole.displacement_voxel, atol=0.2, rtol=0)


def test_the_extended_search_looks_further() -> None:
    found = extended(replace(SETTINGS, search=replace(SEARCH, range_mm=6.0, extended_range_mm=15.0)))
    assert found is not None
    assert (found.settings.search.range_mm, found.further_mm, found.spacing_mm) == (15.0, 9.0, 1.0)
    assert extended(found.settings) is None
    assert METHOD.extended is extended


def test_two_places_that_fit_equally_well_are_told() -> None:
    def rival_mm(shift: float, *, related: bool) -> float | None:
        prepared, _ = made_up_pair(related=related)
        model = MotionModel.of(prepared, SEARCH.prior)
        other = model.identity()
        other[0] = shift / model.translation
        return _rival_mm([model.identity(), other], sampled_at(prepared), model, prepared.spacing_mm)

    assert rival_mm(5.0, related=False) == pytest.approx(5.0, rel=1e-3)
    assert rival_mm(2.0, related=False) is None
    assert rival_mm(5.0, related=True) is None


def test_only_hypotheses_near_the_best_are_deformed() -> None:
    hypotheses = [torch.full((LINEAR,), value) for value in (0.0, 0.01, 0.5)]
    near = _plausible(hypotheses, lambda parameters: parameters.mean(dim=1))
    assert [float(each[0]) for each in near] == pytest.approx([0.0, 0.01])


def test_it_can_be_cancelled() -> None:
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled):
        solve(problem(made_up_pair()[0], monitor=monitor), SETTINGS)
