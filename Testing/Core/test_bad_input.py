"""Bad input, end to end: exit code 2, one line that says what was expected and what came, nothing left behind."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.cli import main
from MMRegCore.cli.screen import Screen
from MMRegCore.geometry import Grid
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from quick import SET_QUICK, small_pictures

pytestmark = pytest.mark.slow

SHAPE = (16, 18, 20)
Run = Callable[..., int]


def grid(offset_mm: float = 0.0, shape=SHAPE) -> Grid:
    matrix = np.eye(4)
    matrix[0, 3] = offset_mm
    return Grid(shape, matrix)


def noise(seed: int = 0, shape=SHAPE) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(10, 100, (1, *shape)))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a sound pair, us.nrrd and t1.nrrd, and an output folder that holds an older result."""
    write_volume(Volume(noise(), grid()), tmp_path / "us.nrrd")
    write_volume(Volume(noise(), grid()), tmp_path / "t1.nrrd")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("older", encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(files, monkeypatch) -> Run:
    """``run(fixed=..., moving=..., more...)`` with files of the folder: the exit code of a registration."""
    small_pictures(monkeypatch)

    def register(*more: object, fixed: str = "us.nrrd", moving: str = "t1.nrrd", output: str = "out") -> int:
        given = ["register", "--fixed", files / fixed, "--moving", files / moving, "--output", files / output]
        return main([str(text) for text in [*given, "--device", "cpu", *SET_QUICK, *more]])

    return register


@pytest.fixture
def refused(run, files, capsys, monkeypatch) -> Callable[..., None]:
    """``refused(message, more..., fixed=...)``: runs, and checks all that bad input has in common."""
    # On a slow machine a run that fails at its end tells its progress before.
    monkeypatch.setattr(Screen, "interval_s", float("inf"))

    def check(message: str, *more: object, **names: str) -> None:
        before = sorted(files.rglob("*"))
        assert run(*more, **names) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1, shown.err
        assert message in shown.err
        assert sorted(files.rglob("*")) == before
        assert (files / "out" / "result.json").read_text(encoding="utf-8") == "older"

    return check


def save(array: np.ndarray, path: Path, *, vector: bool = False) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))


class TestFiles:
    @pytest.mark.parametrize("role", ["fixed", "moving"])
    def test_missing(self, refused, role):
        refused("nowhere.nii.gz", **{role: "nowhere.nii.gz"})

    @pytest.mark.parametrize("name", ["bad.nii.gz", "bad.nrrd", "bad.mha", "bad.nii"])
    def test_unreadable(self, refused, files, name):
        (files / name).write_bytes(b"this is not an image")
        refused(name, fixed=name)

    def test_cut_short(self, refused, files):
        write_volume(Volume(noise(), grid()), files / "whole.nii", compress=False)
        (files / "cut.nii").write_bytes((files / "whole.nii").read_bytes()[:2000])
        refused("cut.nii", moving="cut.nii")

    def test_folder_without_images(self, refused, files):
        (files / "empty").mkdir()
        refused("empty", fixed="empty")

    def test_two_dimensions(self, refused, files):
        save(np.random.default_rng(0).random((20, 20)).astype(np.float32), files / "flat.nrrd")
        refused("flat.nrrd", fixed="flat.nrrd")

    def test_four_dimensions(self, refused, files):
        save(np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32), files / "four.nii.gz")
        refused("four.nii.gz", moving="four.nii.gz")

    def test_vectors(self, refused, files):
        save(np.random.default_rng(0).random((*SHAPE, 3)).astype(np.float32), files / "vector.nrrd", vector=True)
        refused("vector.nrrd", fixed="vector.nrrd")

    @pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
    def test_spacing(self, refused, files, spacing):
        save(noise()[0].numpy().astype(np.float32), files / "bad.nii")
        content = bytearray((files / "bad.nii").read_bytes())
        content[80:84] = struct.pack("<f", spacing)  # pixdim[1] of the NIfTI header
        (files / "bad.nii").write_bytes(bytes(content))
        refused("spacing", fixed="bad.nii")


class TestVoxels:
    def test_nan_and_infinite_voxels_just_work(self, run, files):
        values = noise()
        values[0, :4], values[0, 8, 8, 8] = torch.nan, torch.inf
        write_volume(Volume(values, grid()), files / "holes.nrrd")
        assert run(fixed="holes.nrrd", moving="holes.nrrd") == 0
        assert (files / "out" / "transform.h5").exists()

    def test_nothing_but_nan(self, refused, files):
        write_volume(Volume(torch.full((1, *SHAPE), torch.nan), grid()), files / "nan.nrrd")
        refused("expected finite voxels in 'nan'; got only NaN or infinite ones", moving="nan.nrrd")

    @pytest.mark.parametrize("role", ["fixed", "moving"])
    def test_constant(self, refused, files, role):
        write_volume(Volume(torch.full((1, *SHAPE), 7.0), grid()), files / "flat.nrrd")
        refused("expected structure in 'flat'; got the constant 7", **{role: "flat.nrrd"})

    def test_one_voxel_thin(self, refused, files):
        write_volume(Volume(noise(shape=(1, 18, 20)), grid(shape=(1, 18, 20))), files / "thin.nrrd")
        refused("at least 8 voxels along every axis of 'thin'; got 20 × 18 × 1", moving="thin.nrrd")


class TestMasks:
    def write(self, path: Path, mask: torch.Tensor, on: Grid | None = None) -> Path:
        write_volume(Volume(mask[None].float(), on or grid()), path, dtype="uint8")
        return path

    @pytest.mark.parametrize("option", ["--fixed-mask", "--moving-mask"])
    def test_empty(self, refused, files, option):
        refused("mask", option, self.write(files / "mask.nrrd", torch.zeros(SHAPE)))

    @pytest.mark.parametrize("option", ["--fixed-mask", "--moving-mask"])
    def test_all_one_just_works(self, run, files, option):
        path = self.write(files / "mask.nrrd", torch.ones(SHAPE))
        assert run(option, path, "--transform-only") == 0

    @pytest.mark.parametrize("option", ["--fixed-mask", "--moving-mask"])
    def test_other_grid_just_works(self, run, files, option):
        coarse = Grid((8, 9, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
        path = self.write(files / "mask.nrrd", torch.ones(8, 9, 10), coarse)
        assert run(option, path, "--transform-only") == 0

    def test_elsewhere(self, refused, files):
        path = self.write(files / "mask.nrrd", torch.ones(SHAPE), grid(500))
        refused("mask", "--fixed-mask", path)

    def test_single_voxel(self, run, files, capsys):
        mask = torch.zeros(SHAPE)
        mask[8, 9, 10] = 1
        # Either it can be worked with or it is refused in plain words; never an internal error.
        assert run("--fixed-mask", self.write(files / "mask.nrrd", mask)) in (0, 2)
        assert "internal" not in capsys.readouterr().err


class TestSpace:
    def test_no_overlap_says_how_far(self, refused, files):
        write_volume(Volume(noise(), grid(60)), files / "away.nrrd")
        refused("got 41 mm between them (60 mm between their centres)", moving="away.nrrd")

    def test_small_mr_just_works(self, run, files):
        matrix = np.eye(4)
        matrix[:3, 3] = 4
        write_volume(Volume(noise()[:, 4:13, 4:13, 4:13], Grid((9, 9, 9), matrix)), files / "small.nrrd")
        assert run(moving="small.nrrd") == 0

    def test_transform_that_cannot_be_inverted(self, refused, files):
        flat = sitk.AffineTransform(3)
        flat.SetMatrix([1, 0, 0, 0, 1, 0, 0, 0, 0])
        sitk.WriteTransform(flat, str(files / "flat.tfm"))
        refused("invertible", "--initial-transform", files / "flat.tfm")

    def test_transform_in_two_dimensions(self, refused, files):
        sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(files / "two.tfm"))
        refused("two.tfm", "--initial-transform", files / "two.tfm")

    def test_transform_that_leads_away(self, refused, files):
        matrix = np.eye(4)
        matrix[2, 3] = 1000
        write_transform(SpatialTransform.from_matrix(matrix), files / "away.h5")
        refused("mm between them", "--initial-transform", files / "away.h5")


class TestOptions:
    @pytest.mark.parametrize(
        ("message", "more"),
        [
            ("did you mean 'mcbo-published'", ["--preset", "mcbo-publishd"]),
            ("did you mean 'lc2.iterations'", ["--set", "lc2.iteration=3"]),
            ("lc2.search.half_width", ["--set", "lc2.search.half_width=4.5"]),
            ("did you mean 'mcbo'", ["--set", "method=mbco"]),
            ("did you mean 'ncc'", ["--set", "model_selection.similarity=nccc"]),
            ("working_spacing_mm", ["--set", "working_spacing_mm=-1"]),
            ("cuda:77", ["--device", "cuda:77"]),
            ("at least 0.1 GB", ["--memory-gb", "0.001"]),
        ],
    )
    def test_unusable(self, refused, message, more):
        refused(message, *more)


class TestOutput:
    def test_not_a_folder(self, refused, files):
        (files / "file").write_text("x")
        refused("expected --output to be a folder that can be written", output="file/out")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
    def test_not_writable(self, refused, files):
        (files / "locked").mkdir(mode=0o500)
        refused("expected --output to be a folder that can be written", output="locked")

    @pytest.mark.parametrize("output", ["out", "new/folder"])
    def test_full_disk(self, refused, monkeypatch, output):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        refused("No space left on device", output=output)
