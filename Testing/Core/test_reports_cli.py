"""The command line in odd surroundings: pipes of other encodings, hostile names, killed runs; see docs/reports.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.apply import grid_that_holds, resample_image
from MMRegCore.cli import main
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.files import atomic_path, staged_folder
from MMRegCore.io.volumes import write_volume
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume, distinctly_named
from quick import SET_QUICK, small_pictures

SHAPE = (16, 18, 20)
ROOT = Path(__file__).parents[2]


def mmreg(*words, encoding="utf-8", cwd=None):
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "MMRegCore", *map(str, words)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, check=False)


@pytest.mark.slow
class TestOutput:
    @pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
    def test_presets_can_be_printed(self, encoding):
        done = mmreg("presets", "--show", "lc2", encoding=encoding)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
    def test_json_lines_are_ascii(self, encoding, tmp_path):
        words = ["register", "--fixed", "ß∂.nii", "--moving", "b", "--output", tmp_path / "out", "--json-progress"]
        done = mmreg(*words, encoding=encoding)
        assert done.returncode == 2
        assert json.loads(done.stdout.decode("ascii"))["exit_code"] == 2

    def test_a_folder_that_is_not_utf_8(self, tmp_path):
        words = ["register", "--fixed", "a.nii", "--moving", "b.nii", "--output", tmp_path / "caf\udce9"]
        done = mmreg(*words)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
        assert b"a path in UTF-8" in done.stderr


class TestNames:
    def image(self, name="a"):
        return Volume(torch.rand(1, *SHAPE), Grid(SHAPE, np.eye(4)), name=name)

    def test_long_ones_are_cut_and_still_differ(self):
        first, second = distinctly_named([self.image("ß" * 121), self.image("ß" * 121)])
        assert len(first.name.encode()) <= 100
        assert second.name == f"{first.name}_2"

    @pytest.mark.parametrize("name", ["../../a", "a/b", "a\\b", "a\nb", "a:b"])
    def test_separators_do_not_lead_elsewhere(self, name):
        (named,) = distinctly_named([self.image(name)])
        assert not set("/\\\n:") & set(named.name)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["x" * 240, "<script>alert(1)</script>", "$\\frac{1$", "a&b'\"c"])
    def test_a_whole_run(self, name, tmp_path, monkeypatch):
        small_pictures(monkeypatch)
        name = name.replace("/", "∕")
        image = self.image()
        write_volume(image, tmp_path / "us.nrrd")
        write_volume(image, tmp_path / f"{name}.nrrd")
        words = ["register", "--fixed", tmp_path / "us.nrrd", "--moving", tmp_path / f"{name}.nrrd"]
        assert main([*map(str, words), "--output", str(tmp_path / "out"), "--device", "cpu", *SET_QUICK]) == 0
        assert len(list((tmp_path / "out").glob("warped_*.nii.gz"))) == 1
        assert "<script>alert" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    def test_an_output_name_as_long_as_may_be(self, tmp_path):
        name = "y" * 248 + ".nii.gz"
        write_volume(self.image(), tmp_path / name)
        assert (tmp_path / name).is_file()


class TestAbandonedFolders:
    def test_of_a_killed_process_goes_with_the_next_run(self, tmp_path):
        code = (
            "import os, signal, sys\nfrom MMRegCore.io.files import staged_folder\n"
            "with staged_folder(sys.argv[1]) as folder:\n"
            "    (folder / 'half.nii').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
        assert len(list(tmp_path.glob(".*-partial"))) == 1
        with staged_folder(tmp_path) as folder:
            (folder / "whole.nii").write_text("whole")
        assert [path.name for path in tmp_path.iterdir()] == ["whole.nii"]

    def test_of_a_living_process_stays(self, tmp_path):
        with staged_folder(tmp_path) as first:
            (first / "a").write_text("a")
            with staged_folder(tmp_path) as second:
                (second / "b").write_text("b")
            assert (first / "a").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

    def test_other_hidden_folders_stay(self, tmp_path):
        (tmp_path / ".git").mkdir()
        with staged_folder(tmp_path) as folder:
            (folder / "a").write_text("a")
        assert (tmp_path / ".git").is_dir()


class TestGridThatHolds:
    def image(self):
        array = np.zeros((10, 12, 14), np.uint8)
        array[2:9, 3:11, 1:12] = 1
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.5, 2.0))
        return image

    def shifted(self, shift):
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        return SpatialTransform.from_matrix(matrix)

    @pytest.mark.parametrize("shift", [(0, 0, 0), (7, 0, 0), (-5, 6, -8), (1000, 0, 0), (0.5, 0, 0)])
    def test_nothing_is_cut_off(self, shift):
        image = self.image()
        moved = resample_image(image, self.shifted(shift), interpolation="nearest")
        assert sitk.GetArrayFromImage(moved).sum() == sitk.GetArrayFromImage(image).sum()
        assert moved.GetNumberOfPixels() < 5 * image.GetNumberOfPixels()

    def test_a_grid_that_holds_all_is_kept(self):
        assert grid_that_holds(self.image(), self.shifted((0.6, 0, 0))).matches(Grid.from_itk(self.image()))

    def test_an_image_without_content(self):
        empty = sitk.Image(4, 5, 6, sitk.sitkUInt8)
        assert grid_that_holds(empty, self.shifted((90, 0, 0))).itk_size == (4, 5, 6)


def test_paths_with_a_null_byte(tmp_path):
    from MMRegCore.io.volumes import read_volume

    with pytest.raises(InputError, match="expected"):
        read_volume("a\0b.nii")
    with pytest.raises(InputError, match="expected|cannot"), atomic_path(tmp_path / "a\0b"):
        pass
