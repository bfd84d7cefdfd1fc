"""Registration from volumes to result by the default preset, with known truth, on small images."""

import json
import logging

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore import __version__, pipeline
from MMRegCore import register as register_default
from MMRegCore.config import load_preset, with_changes
from MMRegCore.errors import Cancelled, DeviceError, GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import read_volume
from MMRegCore.monitor import Monitor
from MMRegCore.records import to_json
from MMRegCore.result import RegistrationResult
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume
from quick import QUICK, QUICK_MCBO
from scenes import box, error_mm, inner_points, scene, translation

pytestmark = pytest.mark.slow

SHIFT_MM = np.array([2.0, -1.5, 1.0])
SHIFT = translation(SHIFT_MM)
SHAPE = (32, 28, 30)
# For what must agree to a tenth of a voxel.
FINE = with_changes(QUICK, {"working_spacing_mm": 1.0, "lc2.search.sampling_spacing_mm": "2,1"})


@pytest.fixture(scope="module")
def fixed() -> Volume:
    """Texture at ``x + SHIFT_MM``: the moving image at y shows what lies at y, so the truth is the shift."""
    return scene(box(SHAPE), SHIFT.apply, name="us")


@pytest.fixture(scope="module")
def moving() -> Volume:
    return scene(box((40, 36, 38)), inverted=True, name="t1")


@pytest.fixture(scope="module")
def result(fixed, moving) -> RegistrationResult:
    return register(fixed, moving)


@pytest.fixture(scope="module")
def fine(fixed, moving) -> RegistrationResult:
    return register(fixed, moving, settings=FINE)


@pytest.fixture(scope="module")
def unselected(fixed, moving) -> RegistrationResult:
    """What the method found, without model selection."""
    return register(fixed, moving, settings=with_changes(QUICK, {"model_selection.enabled": False}))


def register(fixed, moving, **options) -> RegistrationResult:
    return register_default(fixed, moving, **{"settings": QUICK, "device": "cpu", **options})


def missed_mm(transform: SpatialTransform, points: np.ndarray) -> float:
    """Mean distance from the shift at points (N, 3)."""
    return float(np.linalg.norm(transform.apply(points) - points - SHIFT_MM, axis=1).mean())


class TestKnownTruth:
    def test_shift(self, result, fixed):
        quality = result.assessment.quality
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.3
        assert quality.model_selection.selected in ("rigid", "deformed")
        assert quality.verdict.expected_error_mm < 0.5
        assert {"expected_error", "displacement", "jacobian_determinant"} == {found.name for found in quality.maps}

    def test_shift_by_correlation(self, fixed, moving):
        result = register(fixed, moving, settings=QUICK_MCBO)
        quality = result.assessment.quality
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.8
        assert "inverse_consistency_error" in {found.name for found in quality.maps}
        assert quality.verdict.expected_error_mm is not None

    def test_without_model_selection_what_was_found_is_taken(self, fixed, unselected):
        quality = unselected.assessment.quality
        assert error_mm(unselected.transform, SHIFT.apply, fixed.grid) < 0.3
        assert quality.model_selection is None
        assert quality.verdict.expected_error_mm is None
        assert quality.verdict.level == "review"

    def test_smooth_field(self, smooth_field):
        grid = box((36, 38, 34))
        truth = composite_from_field(smooth_field(grid, 1.2), torch.ones(grid.shape))
        before = error_mm(SpatialTransform.identity(), truth.apply, grid)
        fixed, moving = scene(grid, truth.apply), scene(box((44, 44, 44)), inverted=True)
        after = error_mm(register(fixed, moving).transform, truth.apply, grid)
        assert before > 1.2
        assert after < 0.3 * before

    def test_oblique_anisotropic_grids_of_their_own(self):
        from_oblique = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
        fixed = scene(box((22, 34, 30), (0.9, 1.0, 1.5), from_oblique), SHIFT.apply)
        moving = scene(box((40, 30, 44), (1.1, 1.3, 1.0), from_oblique[::-1]), inverted=True)
        result = register(fixed, moving)
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.4
        assert result.warped[0].grid.matches(fixed.grid)

    @pytest.mark.parametrize("settings", ["default", "mcbo-clem"])
    def test_thin_volumes(self, settings):
        grid = box((10, 40, 44), (1.0, 1.0, 2.5))
        truth = translation((2.0, -1.0, 0.0))
        clem = with_changes(load_preset("mcbo-clem"), {"mcbo.half_width": "2"})
        fixed, moving = scene(grid, truth.apply), scene(grid, inverted=True)
        result = register(fixed, moving, settings=QUICK if settings == "default" else clem)
        points = grid.points_ras()[2:-2, 8:-8:3, 8:-8:3].reshape(-1, 3)
        missed = np.linalg.norm(result.transform.apply(points) - truth.apply(points), axis=1)
        assert missed.mean() < 0.5 * np.linalg.norm([2.0, 1.0])
        on_own_grid = result.provenance.working_grid.shape == grid.shape
        assert on_own_grid == (settings == "mcbo-clem")

    def test_cone_with_a_mask_found_by_itself(self, fixed, moving):
        d, h, w = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
        cone = torch.from_numpy((d > 1) & (d < 30) & (np.hypot(h - 14, w - 15) < 4 + 0.3 * d))
        cut = fixed.with_data(torch.where(cone, fixed.data, torch.tensor(0.0)))
        result = register(cut, moving)
        points = fixed.grid.points_ras()[(cone & (torch.from_numpy(d) > 6) & (torch.from_numpy(d) < 26)).numpy()][::7]
        assert missed_mm(result.transform, points) < 0.5
        assert float((result.assessment.mask != cone).double().mean()) < 0.05

    def test_moving_image_smaller_than_the_fixed_one(self, fixed):
        result = register(fixed, scene(box((18, 18, 18)), inverted=True))
        points = fixed.grid.points_ras()[11:-11:2, 9:-9:2, 10:-10:2].reshape(-1, 3)
        assert missed_mm(result.transform, points) < 0.3 * np.linalg.norm(SHIFT_MM)

    def test_holes_of_nan(self, fixed, moving):
        def with_holes(volume: Volume) -> Volume:
            data = volume.data.clone()
            data[0, 10:14, 10:14, 10:14] = torch.nan
            data[0, 20, 20, 20] = torch.inf
            return volume.with_data(data)

        result = register(with_holes(fixed), with_holes(moving))
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.4
        json.dumps(result.to_json(), allow_nan=False)

    @pytest.mark.parametrize("settings", [QUICK, with_changes(QUICK_MCBO, {"mcbo.fusion": "magnitude"})])
    def test_several_movings(self, fixed, moving, settings):
        other = scene(box((40, 36, 38)), name="t1")
        result = register(fixed, [moving, other], settings=settings)
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.8
        assert [volume.name for volume in result.warped] == ["t1", "t1_2"]
        assert [image.name for image in result.assessment.quality.moving] == ["t1", "t1_2"]


class TestSymmetry:
    """The same scene stored otherwise: the same transform in space, to a tenth of a voxel (samples lie at random)."""

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_flips(self, fixed, moving, fine, axis):
        matrix = fixed.grid.ras_from_ijk.copy()
        ijk = 2 - axis
        matrix[:3, 3] += matrix[:3, ijk] * (SHAPE[axis] - 1)
        matrix[:3, ijk] *= -1
        self.check(fine, Volume(fixed.data.flip(1 + axis), Grid(SHAPE, matrix)), moving)

    @pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
    def test_permutations(self, fixed, moving, fine, order):
        columns = [*(2 - axis for axis in reversed(order)), 3]
        grid = Grid(tuple(SHAPE[axis] for axis in order), fixed.grid.ras_from_ijk[:, columns])
        self.check(fine, Volume(fixed.data.permute(0, *(1 + axis for axis in order)), grid), moving)

    def check(self, result, stored_otherwise, moving):
        points = inner_points(box(SHAPE))
        other = register(stored_otherwise, moving, settings=FINE)
        apart = np.linalg.norm(result.transform.apply(points) - other.transform.apply(points), axis=1)
        assert apart.max() < 0.1
        selected = [each.assessment.quality.model_selection.selected for each in (result, other)]
        assert selected[0] == selected[1]


class TestInitialTransform:
    @pytest.fixture
    def far_moving(self) -> tuple[Volume, SpatialTransform]:
        """An image in a space of its own, and the rigid transform that nearly leads there."""
        initial = SpatialTransform(sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5, (100.0, -40.0, 25.0)))
        grid = box((46, 46, 46), centre=initial.apply(np.zeros((1, 3)))[0])
        return scene(grid, initial.apply_inverse, inverted=True), initial

    def test_linear(self, fixed, far_moving):
        moving, initial = far_moving
        with pytest.raises(GeometryError, match="to overlap under the initial transform; got .* mm between them"):
            register(fixed, moving)
        result = register(fixed, moving, initial_transform=initial)
        truth = SHIFT.then(initial)
        assert error_mm(initial, truth.apply, fixed.grid) > 2.6
        assert error_mm(result.transform, truth.apply, fixed.grid) < 0.3
        record = result.provenance.initial_transform
        assert record.is_linear
        assert np.array(record.linear_ras) == pytest.approx(initial.linear_ras)

    def test_nonlinear(self, fixed, moving, smooth_field):
        initial = composite_from_field(smooth_field(box((50, 50, 50)), 1.0), torch.ones(50, 50, 50))
        before = error_mm(initial, SHIFT.apply, fixed.grid)
        result = register(fixed, moving, initial_transform=initial)
        assert not result.transform.is_linear
        assert not result.provenance.initial_transform.is_linear
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.5 * before

    def test_truth_stays(self, fixed, moving):
        result = register(fixed, moving, initial_transform=SHIFT)
        assert error_mm(result.transform, SHIFT.apply, fixed.grid) < 0.1
        assert result.assessment.quality.model_selection.selected == "initial"

    def test_not_invertible(self, fixed, moving):
        flat = sitk.AffineTransform(3)
        flat.SetMatrix([1, 0, 0, 0, 1, 0, 0, 0, 0])
        with pytest.raises(GeometryError, match="the initial transform to be invertible"):
            register(fixed, moving, initial_transform=SpatialTransform(flat))


class TestResult:
    def test_outside_moves_with_the_linear_part(self, unselected):
        far = np.array([[400.0, 0, 0], [-200, 300, 50], [0, 0, -500], [90, -90, 90]])
        matrix = unselected.transform.linear_ras
        assert not unselected.transform.is_linear
        assert unselected.transform.apply(far) == pytest.approx(far @ matrix[:3, :3].T + matrix[:3, 3], abs=1e-6)
        assert matrix[:3, :3].T @ matrix[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)

    def test_warped_is_what_simpleitk_makes_of_it(self, unselected, fixed, moving):
        image = moving.grid.to_itk(moving.data[0].numpy())
        expected = sitk.GetArrayFromImage(
            sitk.Resample(image, fixed.grid.to_itk(), unselected.transform.itk, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        )
        core = (slice(4, -4),) * 3
        assert unselected.warped[0].data[0].numpy()[core] == pytest.approx(expected[core], abs=0.2)

    def test_provenance_is_json_and_says_what_was_done(self, result, fixed):
        provenance = result.provenance
        assert json.loads(json.dumps(to_json(provenance), allow_nan=False))["settings"] == QUICK.to_dict()
        assert provenance.versions.mmreg == __version__
        assert provenance.device == "cpu"
        assert provenance.fixed.shape == fixed.grid.shape
        assert provenance.initial_transform is None
        assert provenance.preset is None
        assert provenance.second_search is None
        assert {"prepare", "solve", "transform", "quality", "total"} == set(provenance.timings_s)
        assert provenance.peak_memory_bytes > 0

    def test_saved_transform_gives_the_same_points(self, unselected, fixed, tmp_path):
        unselected.save(tmp_path / "out", fixed=fixed)
        points = inner_points(fixed.grid)
        assert read_transform(tmp_path / "out" / "transform.h5").apply(points) == pytest.approx(
            unselected.transform.apply(points), abs=1e-4
        )
        assert torch.allclose(read_volume(tmp_path / "out" / "warped_t1.nii.gz").data, unselected.warped[0].data)

    @pytest.mark.parametrize("part", ["write_transform", "write_volume", "write_map", "write_report"])
    def test_nothing_is_left_when_a_part_cannot_be_written(self, result, fixed, tmp_path, monkeypatch, part):
        def disk_full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(f"MMRegCore.result.{part}", disk_full)
        with pytest.raises(InputError, match="No space left"):
            result.save(tmp_path / "out", fixed=fixed)
        assert list(tmp_path.iterdir()) == []


class TestConduct:
    def test_same_seed_same_result_and_inputs_as_they_were(self, fixed, moving):
        fixed = fixed.with_data(fixed.data.clone())
        fixed.data[0, 5, 5, 5] = torch.nan
        before = fixed.data.clone(), moving.data.clone()
        state = torch.random.get_rng_state()
        points = inner_points(fixed.grid)
        first, second = (register(fixed, moving, seed=3).transform.apply(points) for _ in range(2))
        assert np.array_equal(first, second)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(fixed.data.nan_to_num(-1), before[0].nan_to_num(-1))
        assert torch.equal(moving.data, before[1])
        assert fixed.mask is None

    def test_progress_grows_to_one(self, fixed, moving):
        reports: list[tuple[str, float]] = []
        register(fixed, moving, monitor=Monitor(lambda stage, fraction: reports.append((stage, fraction))))
        fractions = [fraction for _, fraction in reports]
        assert fractions == sorted(fractions)
        assert reports[0] == ("preparing the images", 0.0)
        assert reports[-1] == ("done", 1.0)
        assert {"rigid search", "deformation", "model selection", "composing the transform"} < {s for s, _ in reports}

    @pytest.mark.parametrize(
        "stage", ["preparing the images", "rigid search", "deformation", "model selection", "quality maps", "done"]
    )
    def test_cancelled_at_any_stage(self, fixed, moving, stage):
        stages: list[str] = []

        def stop(name: str, fraction: float) -> None:
            stages.append(name)
            if name == stage:
                monitor.cancel()

        monitor = Monitor(stop)
        if stage == "done":  # there is nothing left to stop
            register(fixed, moving, monitor=monitor)
        else:
            with pytest.raises(Cancelled):
                register(fixed, moving, monitor=monitor)
        assert stages.count(stage) == 1
        assert stages[-1] == stage

    def test_bad_arguments(self, fixed, moving):
        with pytest.raises(InputError, match="at least one moving image"):
            register(fixed, [])
        with pytest.raises(InputError, match="did you mean 'mcbo'"):
            register(fixed, moving, settings="mbco")
        with pytest.raises(DeviceError, match="'cuda:99' to be there"):
            register(fixed, moving, device="cuda:99")
        with pytest.raises(DeviceError, match=r"at least 0.1 GB; got 0.01"):
            register(fixed, moving, memory_gb=0.01)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    @pytest.mark.parametrize("settings", [QUICK, QUICK_MCBO], ids=["default", "mcbo"])
    def test_gpu_agrees_with_cpu(self, fixed, moving, settings):
        points = inner_points(fixed.grid)
        cpu, gpu = (
            register(fixed, moving, settings=settings, device=name).transform.apply(points) for name in ("cpu", "cuda")
        )
        assert np.linalg.norm(cpu - gpu, axis=1).mean() < 0.05


class TestMemory:
    def test_little_memory_gives_the_same(self, fixed, moving, result):
        points = inner_points(fixed.grid)
        little = register(fixed, moving, memory_gb=0.1)
        assert np.array_equal(little.transform.apply(points), result.transform.apply(points))
        assert little.provenance.memory_budget_bytes < result.provenance.memory_budget_bytes

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), DeviceError("none left")])
    def test_where_the_device_has_too_little_the_cpu_goes_on(self, fixed, moving, result, monkeypatch, caplog, error):
        # A device without memory stands in for a small GPU.
        original = pipeline._solve

        def solve(problem, **rest):
            if problem.prepared.fixed.image.device.type != "cpu":
                raise error
            return original(problem, **rest)

        monkeypatch.setattr(pipeline, "resolve_device", lambda name: torch.device("meta"))
        monkeypatch.setattr(pipeline, "_solve", solve)
        with caplog.at_level(logging.WARNING):
            found = register(fixed, moving)
        points = inner_points(fixed.grid)
        assert np.array_equal(found.transform.apply(points), result.transform.apply(points))
        assert found.provenance.device == "cpu"
        assert "the memory of meta did not suffice; going on with the CPU" in caplog.text

    def test_where_the_cpu_has_too_little_it_is_said(self, fixed, moving, monkeypatch):
        def solve(*_, **__):
            raise DeviceError("expected memory; got none")

        monkeypatch.setattr(pipeline, "_solve", solve)
        with pytest.raises(DeviceError, match="expected memory; got none"):
            register(fixed, moving)
