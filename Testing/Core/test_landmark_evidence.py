"""Landmarks as evidence: the start that they give, their term in the search, and what a result tells of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from MMRegCore import register as register_default
from MMRegCore.assessment.notes import notes_on_landmarks
from MMRegCore.assessment.quality import GivenLandmarks, JacobianSummary, LandmarkDistances
from MMRegCore.assessment.verdict import judge
from MMRegCore.cli import main
from MMRegCore.config import with_changes
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io.landmarks import Landmarks, write_landmarks
from MMRegCore.io.volumes import write_volume
from MMRegCore.methods.protocol import Solution
from MMRegCore.ops import rotation_matrix
from MMRegCore.prepare import prepare
from MMRegCore.search.landmarks import LandmarkPairs
from MMRegCore.search.motion_model import MotionModel
from MMRegCore.search.rigid import posterior_cost
from MMRegCore.search.sampled import Evidence, Levels
from MMRegCore.search.settings import MotionPriorSettings
from MMRegCore.transform import SpatialTransform
from quick import QUICK, QUICK_MCBO, SET_QUICK, small_pictures
from scenes import box, error_mm, inner_points, scene, translation

TRIANGLE = np.array([[8.0, 0, 2], [-6, 7, 1], [-3, -8, -6]])
# As far off as nobody navigates: 60 mm and 60°.
FAR = np.eye(4)
FAR[:3, :3] = rotation_matrix(np.radians(60) * np.array([2, -1, 2]) / 3)
FAR[:3, 3] = 60 * np.array([1, 2, -2]) / 3
FAR = SpatialTransform.from_matrix(FAR)
# The fixed image lies where the moving one's middle comes from.
CENTRE = FAR.apply_inverse(np.zeros((1, 3)))[0]


def pairs(fixed: np.ndarray, moving: np.ndarray, error_mm: float = 2.0, **more: object) -> LandmarkPairs:
    return LandmarkPairs(fixed, moving, error_mm, **more)


@pytest.fixture(scope="module")
def fixed():
    return scene(box((32, 28, 30), centre=tuple(CENTRE)), FAR.apply, name="us")


@pytest.fixture(scope="module")
def moving():
    return scene(box((52, 50, 54)), inverted=True, name="t1")


def marks(error_mm: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three points in the fixed image, and their partners set with an error."""
    points = TRIANGLE + CENTRE
    return points, FAR.apply(points) + np.random.default_rng(seed).normal(0, error_mm, (3, 3))


def register(fixed, moving, **options):
    return register_default(fixed, moving, **{"settings": QUICK, "device": "cpu", **options})


class TestStart:
    @pytest.mark.parametrize("initial", [SpatialTransform.identity(), translation((5.0, -3.0, 9.0))])
    def test_three_pairs_give_the_rigid_transform(self, initial):
        start = pairs(TRIANGLE, FAR.apply(TRIANGLE)).start(initial)
        points = np.random.default_rng(1).normal(0, 20, (9, 3))
        assert start.motion == "rigid"
        assert np.allclose(start.transform.apply(points), FAR.apply(points))

    def test_noise_is_fitted_by_least_squares_without_a_reflection(self):
        points = TRIANGLE * [1, 1, 0.01]
        there = FAR.apply(points) + np.random.default_rng(0).normal(0, 0.5, (3, 3))
        start = pairs(points, there).start(SpatialTransform.identity())
        matrix = start.matrix_ras[:3, :3]
        assert np.allclose(matrix @ matrix.T, np.eye(3))
        assert np.linalg.det(matrix) == pytest.approx(1)
        fitted = np.square(start.pairs.residuals_mm(start.transform)).sum()
        for axis in np.eye(3):
            turned = np.eye(4)
            turned[:3, :3] = rotation_matrix(0.02 * axis)
            middle = there.mean(axis=0)
            turned[:3, 3] = middle - turned[:3, :3] @ middle
            other = start.transform.then(SpatialTransform.from_matrix(turned))
            assert np.square(start.pairs.residuals_mm(other)).sum() > fitted

    @pytest.mark.parametrize(
        "points",
        [TRIANGLE[:1], TRIANGLE[:2], np.array([[0.0, 0, 0], [10, 1, 0], [20, 0, 0], [35, 0, 1]])],
        ids=["one", "two", "almost on a line"],
    )
    def test_what_leaves_a_rotation_open_gives_a_translation(self, points):
        start = pairs(points, points + np.array([1.0, 2, 3])).start(SpatialTransform.identity())
        assert start.motion == "translation"
        assert np.allclose(start.matrix_ras, translation((1.0, 2, 3)).linear_ras)

    def test_whether_a_line_is_one_depends_on_the_error(self):
        points = np.array([[0.0, 0, 0], [10, 2, 0], [20, 0, 0]])
        assert pairs(points, points, 0.2).start(SpatialTransform.identity()).motion == "rigid"
        assert pairs(points, points, 2.0).start(SpatialTransform.identity()).motion == "translation"


class TestRefused:
    @pytest.mark.parametrize(
        ("fixed", "moving", "error", "told"),
        [
            (TRIANGLE, TRIANGLE[:2], 2.0, "got 3 fixed and 2 moving"),
            (TRIANGLE[:0], TRIANGLE[:0], 2.0, "at least one; got 0 fixed"),
            (TRIANGLE[:, :2], TRIANGLE, 2.0, r"expected fixed landmarks of three coordinates, \(N, 3\)"),
            (TRIANGLE, np.full((3, 3), np.nan), 2.0, "expected finite coordinates"),
            (TRIANGLE, TRIANGLE[[0, 1, 0]], 2.0, "got moving landmarks 1 and 3 at one"),
            (TRIANGLE, TRIANGLE, 0.0, "above 0 mm; got 0"),
            (TRIANGLE, TRIANGLE, np.nan, "above 0 mm; got nan"),
        ],
    )
    def test_sets_that_are_none(self, fixed, moving, error, told):
        with pytest.raises(InputError, match=told):
            pairs(fixed, moving, error)

    def test_points_outside_of_their_image(self, fixed, moving):
        at_fixed, at_moving = marks(0.0)
        with pytest.raises(InputError, match=r"landmark 2 at \(.*\), \d+ mm outside of 'us'"):
            register(fixed, moving, landmarks=(at_fixed + np.diag([0, 90, 0]), at_moving))
        with pytest.raises(InputError, match=r"landmark c at \(.*\), \d+ mm outside of 't1'"):
            far = Landmarks(at_moving + np.diag([0, 0, -99]), ("a", "b", "c"))
            register(fixed, moving, landmarks=(Landmarks(at_fixed, ("a", "b", "c")), far))

    def test_lists_that_are_no_two(self, fixed, moving):
        with pytest.raises(InputError, match="expected two lists of landmarks"):
            register(fixed, moving, landmarks=(TRIANGLE,))


@pytest.fixture(scope="module")
def prepared():
    start = translation((1.5, 0, 0))
    images = scene(box((24, 22, 26), 1.5)), [scene(box((30, 30, 30), 1.5), inverted=True)]
    return prepare(*images, start, spacing_mm=1.5, masked=True, margin_mm=0.0), start


class TestTerm:
    @pytest.mark.parametrize("deformed", [False, True])
    def test_is_that_of_a_normal_distribution_in_millimetres(self, prepared, deformed):
        pair, start = prepared
        model = MotionModel.of(pair, MotionPriorSettings())
        parameters = model.identity() if deformed else model.identity()[:12]
        parameters = torch.randn(parameters.shape, generator=torch.Generator().manual_seed(0)) * 0.5
        given = pairs(TRIANGLE, TRIANGLE + np.array([3.0, -1, 2]), 1.7)
        ijk = (pair.grid.ijk_from_ras[:3, :3] @ TRIANGLE.T).T + pair.grid.ijk_from_ras[:3, 3]
        positions = torch.from_numpy(ijk[:, ::-1].copy()).float().t()[None, :, :, None, None]
        moved = model.move(parameters, positions)[0, :, :, 0, 0].t().numpy()[:, ::-1]
        there = start.apply(moved @ pair.grid.ras_from_ijk[:3, :3].T + pair.grid.ras_from_ijk[:3, 3])
        expected = np.square(there - given.moving_ras).sum() / (2 * 1.7**2)
        assert float(given.on(pair, start).cost(model)(parameters[None])) == pytest.approx(expected, rel=1e-4)

    def test_counts_in_the_posterior_like_the_prior(self, prepared):
        pair, start = prepared
        model = MotionModel.of(pair, MotionPriorSettings())
        evidence = Evidence(((1.0, Levels(pair).at("lc2", 3.0, 2)),))
        term = pairs(TRIANGLE, TRIANGLE + 2.0).on(pair, start)
        parameters = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
        without, weighed = (posterior_cost(evidence, model, 200.0, each)(parameters) for each in (None, term))
        assert torch.allclose(weighed - without, term.cost(model)(parameters) / 200, atol=1e-6)

    def test_three_pairs_are_all_that_is_known_of_the_rigid_motion(self, prepared):
        """The prior lies about their own start, and would count them twice; the deformation keeps its prior."""
        pair, _ = prepared
        start = pairs(TRIANGLE, TRIANGLE + 2.0).start(SpatialTransform.identity())
        model = MotionModel.of(pair, MotionPriorSettings())
        parameters = torch.randn(2, len(model.identity()), generator=torch.Generator().manual_seed(0))
        left = model.surprise(parameters) + start.on(pair).cost(model)(parameters)
        likelihood = start.pairs.on(pair, start.transform).cost(model)(parameters)
        assert torch.allclose(left, likelihood + parameters[:, 6:].square().sum(dim=1) / 2, rtol=1e-4)
        few = pairs(TRIANGLE[:2], TRIANGLE[:2] + 2.0).start(SpatialTransform.identity())
        assert not few.on(pair).replaces_prior


@pytest.mark.slow
class TestRegister:
    def test_three_landmarks_bring_in_what_is_60_mm_and_60_degrees_off(self, fixed, moving):
        points, there = marks(1.0)
        result = register(fixed, moving, landmarks=(points, there), landmark_error_mm=1.0)
        given = result.assessment.quality.landmarks
        grid = fixed.grid
        at_start = pairs(points, there).start(SpatialTransform.identity()).transform
        assert error_mm(result.transform, FAR.apply, grid) < min(0.5, 0.5 * error_mm(at_start, FAR.apply, grid))
        assert (given.motion, given.use, given.count) == ("rigid", "search", 3)
        assert given.given.mean > 50
        assert given.after.mean < 2.5
        assert any("cannot judge the result" in note for note in result.assessment.quality.notes)
        record = result.provenance.landmarks
        assert np.allclose(record.moving_ras, there)
        assert np.allclose(record.start_ras, at_start.linear_ras)
        assert result.provenance.initial_transform is None

    def test_without_them_the_images_do_not_meet(self, fixed, moving):
        with pytest.raises(GeometryError, match="overlap under the initial transform"):
            register(fixed, moving)

    def test_they_are_paired_by_their_labels(self, fixed, moving):
        points, there = marks(0.0)
        turned = Landmarks(there[[2, 0, 1]], ("c", "a", "b"))
        result = register(fixed, moving, landmarks=(Landmarks(points, ("a", "b", "c")), turned))
        assert result.assessment.quality.landmarks.start.max < 1e-6

    def test_they_stay_as_evidence(self, fixed, moving):
        """Where the images tell little, exact landmarks hold the result."""
        points = inner_points(fixed.grid, rim=7, step=7)
        held = translation((1.0, -1.0, 0.5))
        there = held.apply(FAR.apply(points))
        few = with_changes(QUICK, {"lc2.search.effective_sample_size": "1", "model_selection.enabled": False})
        result = register(fixed, moving, settings=few, landmarks=(points, there), landmark_error_mm=0.05)
        assert result.assessment.quality.landmarks.after.mean < 0.1
        assert error_mm(result.transform, FAR.then(held).apply, fixed.grid) < 0.2

    def test_a_method_that_cannot_weigh_them_says_so(self, fixed, moving):
        result = register(fixed, moving, settings=QUICK_MCBO, landmarks=marks(0.5))
        assert result.assessment.quality.landmarks.use == "start"
        assert any("nothing more" in note for note in result.assessment.quality.notes)
        assert error_mm(result.transform, FAR.apply, fixed.grid) < 1.5

    def test_an_initial_transform_comes_first(self, fixed, moving):
        points, there = marks(0.0)
        initial = translation((-40.0, 0, 0))
        result = register(
            fixed, moving, initial_transform=initial, landmarks=(points[:1], there[:1]), settings=QUICK_MCBO
        )
        record = result.provenance
        assert np.allclose(record.initial_transform.linear_ras, initial.linear_ras)
        assert np.allclose(record.landmarks.start_ras, translation(there[0] - initial.apply(points[:1])[0]).linear_ras)
        assert result.assessment.quality.landmarks.motion == "translation"


class TestTold:
    given = GivenLandmarks(
        3, 2.0, "rigid", "search", *(LandmarkDistances(*v) for v in ((60.0, 70.0), (1.0, 2.0), (1.5, 2.5))), "F2"
    )
    fine = JacobianSummary(0.9, 0.95, 1.05, 1.1, 0.01, 0, 0.0)

    def test_landmarks_that_agree_are_no_reason_to_believe(self):
        without, with_them = (judge(1.0, None, [1.0], self.fine, each) for each in (None, self.given))
        assert without == with_them

    def test_a_landmark_that_ends_far_away_asks_for_review(self):
        far = replace(self.given, after=LandmarkDistances(4.0, 9.0))
        verdict = judge(1.0, None, [1.0], self.fine, far)
        assert verdict.level == "review"
        assert "Given landmark F2 ends 9.0 mm from its partner" in verdict.reasons[0]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({}, "a rigid start and counted in the search"),
            ({"use": "rigid search"}, "counted in the rigid search, not in the deformation"),
            ({"use": "start", "motion": "translation", "count": 1}, "1 landmark pair given"),
            ({"motion": "translation"}, "too close to one line"),
        ],
    )
    def test_notes(self, change, told):
        first, second = notes_on_landmarks(replace(self.given, **change))
        assert told in first
        assert "60.0 mm on average before, 1.0 mm at the start, 1.5 mm after" in second

    def test_none_are_not_mentioned(self):
        assert notes_on_landmarks(None) == ()

    def test_a_method_that_says_nothing_used_them_for_the_start(self):
        assert Solution(torch.zeros(1)).landmark_use == "start"


@pytest.fixture(scope="module")
def files(fixed, moving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks")
    write_volume(fixed, folder / "us.nii.gz")
    write_volume(moving, folder / "t1.nii.gz")
    points, there = marks(0.5)
    rows = [",".join(map(str, (*b, *a))) for a, b in zip(points.tolist(), there.tolist(), strict=True)]
    (folder / "pairs.csv").write_text("\n".join(["mr_x,mr_y,mr_z,us_x,us_y,us_z", *rows]))
    write_landmarks(Landmarks(points, ("a", "b", "c")), folder / "us.mrk.json")
    write_landmarks(Landmarks(there, ("a", "b", "c")), folder / "mr.fcsv")
    return folder


@pytest.mark.slow
class TestCommandLine:
    def run(self, files, *options: str) -> int:
        images = ["--fixed", str(files / "us.nii.gz"), "--moving", str(files / "t1.nii.gz")]
        return main(["register", *images, *SET_QUICK, "--device", "cpu", *options])

    def test_pairs_in_one_file(self, files, tmp_path, monkeypatch):
        small_pictures(monkeypatch)
        options = ["--landmarks", str(files / "pairs.csv"), "--landmark-error-mm", "1"]
        assert self.run(files, *options, "--output", str(tmp_path / "out")) == 0
        content = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
        assert content["quality"]["landmarks"]["error_mm"] == 1.0
        assert content["quality"]["landmarks"]["given"]["mean"] > 50
        assert "cannot judge the result" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    def test_two_files(self, files, tmp_path):
        options = ["--fixed-landmarks", str(files / "us.mrk.json"), "--moving-landmarks", str(files / "mr.fcsv")]
        assert self.run(files, *options, "--transform-only", "--output", str(tmp_path / "out")) == 0
        content = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
        assert content["provenance"]["landmarks"]["error_mm"] == 2.0

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--landmark-error-mm", "2"], "expected --landmark-error-mm with landmarks only"),
            (["--landmarks", "pairs.csv", "--landmark-error-mm", "-1"], "above 0 mm; got -1"),
            (["--landmarks", "none.csv"], "none.csv"),
            (["--fixed-landmarks", "us.mrk.json"], "expected --landmarks PAIRS"),
            (["--fixed-landmarks", "mr.fcsv", "--moving-landmarks", "mr.fcsv"], "outside of 'us'"),
        ],
    )
    def test_bad_input_is_one_line(self, files, tmp_path, capsys, options, told):
        options = [str(files / text) if text.endswith((".csv", ".json", ".fcsv")) else text for text in options]
        assert self.run(files, *options, "--output", str(tmp_path / "out")) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert told in error
        assert not (tmp_path / "out").exists()
