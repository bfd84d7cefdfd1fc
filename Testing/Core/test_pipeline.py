"""Registration from volumes to result, with known truth, on small images."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore import __version__
from MMRegCore import register as register_default
from MMRegCore.config import load_preset, with_changes
from MMRegCore.errors import Cancelled, DeviceError, GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io import read_transform, read_volume
from MMRegCore.monitor import Monitor
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume

SHIFT_MM = np.array([2.0, -1.5, 1.0])
SHAPE = (32, 28, 30)
# Few levels and candidates: seconds become a second, and the way through the pipeline is the same.
QUICK = with_changes(
    load_preset("mcbo"),
    {
        "mcbo.strides": "1,2",
        "mcbo.weights": "1/2,1/2",
        "mcbo.half_width": "2",
        "mcbo.instance.iterations": "3",
        "mcbo.inverse_consistency_iterations": "5",
        "choice.compete": "false",
    },
)
Scene = Callable[..., Volume]


def box(shape=SHAPE, spacing=1.0, direction=None, centre=(0.0, 0.0, 0.0)) -> Grid:
    """A grid (D, H, W) around ``centre``."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if direction is None else direction) * spacing
    matrix[:3, 3] = np.array(centre) - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, matrix)


def shift(vector=SHIFT_MM) -> SpatialTransform:
    matrix = np.eye(4)
    matrix[:3, 3] = vector
    return SpatialTransform.from_matrix(matrix)


@pytest.fixture
def scene(blobs) -> Scene:
    """``scene(grid, moved, inverted)``: the texture on a grid; ``moved`` takes points to where they are looked up."""

    def make(grid=None, moved=None, *, inverted=False, name="image") -> Volume:
        grid = grid or box()
        points = grid.points_ras()
        if moved is not None:
            points = moved(points.reshape(-1, 3)).reshape(points.shape)
        return Volume(torch.from_numpy(blobs(points, inverted))[None], grid, name=name)

    return make


@pytest.fixture
def fixed(scene) -> Volume:
    """Texture at ``x + SHIFT_MM``: the moving image at y shows what lies at y, so the truth is the shift."""
    return scene(moved=shift().apply, name="us")


@pytest.fixture
def moving(scene) -> Volume:
    return scene(box((40, 36, 38)), inverted=True, name="t1")


def register(fixed, moving, **options):
    return register_default(fixed, moving, **{"settings": QUICK, "device": "cpu", **options})


def inner_points(grid: Grid, rim: int = 6) -> np.ndarray:
    return grid.points_ras()[rim:-rim:3, rim:-rim:3, rim:-rim:3].reshape(-1, 3)


def error_mm(transform: SpatialTransform, truth: Callable, grid: Grid) -> float:
    points = inner_points(grid)
    return float(np.linalg.norm(transform.apply(points) - truth(points), axis=1).mean())


class TestKnownTruth:
    def test_shift(self, fixed, moving):
        result = register(fixed, moving)
        assert error_mm(result.transform, shift().apply, fixed.grid) < 0.8

    def test_smooth_field(self, scene, smooth_field):
        grid = box((36, 38, 34))
        truth = composite_from_field(smooth_field(grid, 1.2), torch.ones(grid.shape))
        start = error_mm(SpatialTransform.identity(), truth.apply, grid)
        fixed, moving = scene(grid, truth.apply), scene(box((44, 44, 44)), inverted=True)
        after = error_mm(register(fixed, moving).transform, truth.apply, grid)
        assert start > 1.2
        assert after < 0.5 * start

    def test_oblique_anisotropic_grids_of_their_own(self, scene):
        from_oblique = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
        fixed = scene(box((22, 34, 30), (0.9, 1.0, 1.5), from_oblique), shift().apply)
        moving = scene(box((40, 30, 44), (1.1, 1.3, 1.0), from_oblique[::-1]), inverted=True)
        result = register(fixed, moving)
        assert error_mm(result.transform, shift().apply, fixed.grid) < 0.8
        assert result.warped[0].grid.matches(fixed.grid)

    def test_thin_volumes_on_their_own_grid(self, scene):
        grid = box((10, 40, 44), (1.0, 1.0, 2.5))
        truth = shift(np.array([2.0, -1.0, 0.0]))
        settings = with_changes(load_preset("mcbo-clem"), {"mcbo.half_width": "2"})
        fixed, moving = scene(grid, truth.apply), scene(grid, inverted=True)
        result = register(fixed, moving, settings=settings)
        points = grid.points_ras()[2:-2, 8:-8:3, 8:-8:3].reshape(-1, 3)
        missed = np.linalg.norm(result.transform.apply(points) - truth.apply(points), axis=1)
        assert result.provenance["working_grid"]["shape"] == [10, 40, 44]
        assert missed.mean() < 0.5 * np.linalg.norm([2.0, 1.0])

    def test_cone_with_a_mask_found_by_itself(self, fixed, moving):
        d, h, w = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
        cone = torch.from_numpy((d > 1) & (d < 30) & (np.hypot(h - 14, w - 15) < 4 + 0.3 * d))
        cut = replace(fixed, data=torch.where(cone, fixed.data, torch.tensor(0.0)))
        result = register(cut, moving)
        points = fixed.grid.points_ras()[(cone & (torch.from_numpy(d) > 6) & (torch.from_numpy(d) < 26)).numpy()][::7]
        missed = np.linalg.norm(result.transform.apply(points) - points - SHIFT_MM, axis=1)
        assert missed.mean() < 0.8
        assert float((result.assessment.mask != cone).double().mean()) < 0.05

    def test_moving_image_smaller_than_the_fixed_one(self, fixed, scene):
        small = scene(box((18, 18, 18)), inverted=True)
        result = register(fixed, small)
        points = fixed.grid.points_ras()[11:-11:2, 9:-9:2, 10:-10:2].reshape(-1, 3)
        missed = np.linalg.norm(result.transform.apply(points) - points - SHIFT_MM, axis=1)
        assert missed.mean() < 0.5 * np.linalg.norm(SHIFT_MM)

    def test_holes_of_nan(self, fixed, moving):
        for volume in (fixed, moving):
            volume.data[0, 10:14, 10:14, 10:14] = torch.nan
            volume.data[0, 20, 20, 20] = torch.inf
        result = register(fixed, moving)
        assert error_mm(result.transform, shift().apply, fixed.grid) < 0.7
        json.dumps(result.assessment.numbers, allow_nan=False)

    @pytest.mark.parametrize("fusion", ["mean", "magnitude", "signed-max"])
    def test_several_movings(self, fixed, moving, scene, fusion):
        other = scene(box((40, 36, 38)), name="t1")
        result = register(fixed, [moving, other], settings=replace(QUICK, fusion=fusion))
        assert error_mm(result.transform, shift().apply, fixed.grid) < 0.8
        assert [volume.name for volume in result.warped] == ["t1", "t1_2"]


class TestSymmetry:
    """The same scene stored otherwise: the same transform in space, to a tenth of a voxel (control points move)."""

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_flips(self, fixed, moving, axis):
        matrix = fixed.grid.ras_from_ijk.copy()
        ijk = 2 - axis
        matrix[:3, 3] += matrix[:3, ijk] * (SHAPE[axis] - 1)
        matrix[:3, ijk] *= -1
        flipped = Volume(fixed.data.flip(1 + axis), Grid(SHAPE, matrix))
        self.check(fixed, flipped, moving)

    def test_permutation(self, fixed, moving):
        matrix = fixed.grid.ras_from_ijk[:, [1, 2, 0, 3]]
        permuted = Volume(fixed.data.permute(0, 3, 1, 2), Grid((SHAPE[2], SHAPE[0], SHAPE[1]), matrix))
        self.check(fixed, permuted, moving)

    def check(self, fixed, stored_otherwise, moving):
        points = inner_points(fixed.grid)
        one, two = (register(volume, moving).transform.apply(points) for volume in (fixed, stored_otherwise))
        assert np.linalg.norm(one - two, axis=1).max() < 0.1


class TestInitialTransform:
    @pytest.fixture
    def far_moving(self, scene) -> tuple[Volume, SpatialTransform]:
        """An image in a space of its own, and the rigid transform that nearly leads there."""
        start = SpatialTransform(
            sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5, (100.0, -40.0, 25.0)),
        )
        grid = box((46, 46, 46), centre=start.apply(np.zeros((1, 3)))[0])
        return scene(grid, start.apply_inverse, inverted=True), start

    def test_linear(self, fixed, far_moving):
        moving, start = far_moving
        with pytest.raises(GeometryError, match="to overlap under the initial transform; got .* mm between them"):
            register(fixed, moving)
        result = register(fixed, moving, initial_transform=start)
        truth = shift().then(start)
        assert error_mm(start, truth.apply, fixed.grid) > 2.6
        assert error_mm(result.transform, truth.apply, fixed.grid) < 0.8

    def test_nonlinear(self, fixed, moving, smooth_field):
        start = composite_from_field(smooth_field(box((50, 50, 50)), 1.0), torch.ones(50, 50, 50))
        before = error_mm(start, shift().apply, fixed.grid)
        result = register(fixed, moving, initial_transform=start)
        assert not result.transform.is_linear
        assert error_mm(result.transform, shift().apply, fixed.grid) < 0.5 * before

    def test_truth_stays(self, fixed, moving):
        result = register(fixed, moving, initial_transform=shift())
        assert error_mm(result.transform, shift().apply, fixed.grid) < 0.4

    def test_not_invertible(self, fixed, moving):
        flat = sitk.AffineTransform(3)
        flat.SetMatrix([1, 0, 0, 0, 1, 0, 0, 0, 0])
        with pytest.raises(GeometryError, match="the initial transform to be invertible"):
            register(fixed, moving, initial_transform=SpatialTransform(flat))


class TestResult:
    @pytest.fixture
    def result(self, fixed, moving):
        return register(fixed, moving)

    def test_outside_moves_with_the_linear_part(self, result):
        far = np.array([[400.0, 0, 0], [-200, 300, 50], [0, 0, -500], [90, -90, 90]])
        matrix = result.transform.linear_ras
        assert not result.transform.is_linear
        assert result.transform.apply(far) == pytest.approx(far @ matrix[:3, :3].T + matrix[:3, 3], abs=1e-6)
        assert matrix[:3, :3].T @ matrix[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)

    def test_warped_is_what_simpleitk_makes_of_it(self, result, fixed, moving, itk_on):
        image = itk_on(moving.grid, moving.data[0].numpy())
        reference = itk_on(fixed.grid, fixed.data[0].numpy())
        expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, result.transform.itk, sitk.sitkLinear))
        core = (slice(4, -4),) * 3
        assert result.warped[0].data[0].numpy()[core] == pytest.approx(expected[core], abs=0.2)

    def test_provenance_is_json_and_says_what_was_done(self, result, fixed):
        told = json.loads(json.dumps(result.provenance, allow_nan=False))
        assert told["mmreg"]["mmreg"] == __version__
        assert told["device"] == "cpu"
        assert told["settings"] == json.loads(json.dumps(QUICK.to_dict()))
        assert told["fixed"]["shape"] == list(fixed.grid.shape)
        assert told["initial_transform"] == "identity"
        assert {"prepare", "method", "transform", "qa", "total"} <= set(told["timings_s"])
        assert told["peak_memory_bytes"] > 0

    def test_saved_transform_gives_the_same_points(self, result, fixed, tmp_path):
        result.save(tmp_path / "out", fixed=fixed)
        points = inner_points(fixed.grid)
        assert read_transform(tmp_path / "out" / "transform.h5").apply(points) == pytest.approx(
            result.transform.apply(points), abs=1e-4
        )
        assert torch.allclose(read_volume(tmp_path / "out" / "warped_t1.nii.gz").data, result.warped[0].data)
        assert (
            json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["qa"]["moving"][0]["name"]
            == "t1"
        )

    def test_nothing_is_left_when_a_part_cannot_be_written(self, result, fixed, tmp_path, monkeypatch):
        monkeypatch.setattr("MMRegCore.pipeline.write_report", _raise_disk_full)
        with pytest.raises(InputError, match="No space left"):
            result.save(tmp_path / "out", fixed=fixed)
        assert list(tmp_path.iterdir()) == []


def _raise_disk_full(*_, **__):
    raise OSError(28, "No space left on device")


class TestConduct:
    def test_same_seed_same_result_and_inputs_as_they_were(self, fixed, moving):
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
        told: list[tuple[str, float]] = []
        register(fixed, moving, monitor=Monitor(lambda stage, fraction: told.append((stage, fraction))))
        fractions = [fraction for _, fraction in told]
        assert fractions == sorted(fractions)
        assert told[0] == ("preparing the images", 0.0)
        assert told[-1] == ("done", 1.0)

    def test_cancelled_in_the_middle(self, fixed, moving):
        def stop(stage: str, fraction: float) -> None:
            if fraction > 0.3:
                monitor.cancel()

        monitor = Monitor(stop)
        with pytest.raises(Cancelled):
            register(fixed, moving, monitor=monitor)

    def test_bad_arguments(self, fixed, moving):
        with pytest.raises(InputError, match="at least one moving image"):
            register(fixed, [])
        with pytest.raises(InputError, match="did you mean 'mcbo'"):
            register(fixed, moving, settings="mbco")
        with pytest.raises(DeviceError, match="'cuda:99' to be there"):
            register(fixed, moving, device="cuda:99")
        with pytest.raises(DeviceError, match=r"at least 0.1 GB; got 0.01"):
            register(fixed, moving, memory_gb=0.01)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    def test_gpu_agrees_with_cpu(self, fixed, moving):
        points = inner_points(fixed.grid)
        cpu, gpu = (register(fixed, moving, device=name).transform.apply(points) for name in ("cpu", "cuda"))
        assert np.linalg.norm(cpu - gpu, axis=1).mean() < 0.05
