import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.files import atomic_path, staged_folder, stem_of, suffix_of
from MMRegCore.io.landmarks import Landmarks, write_landmarks
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def noise_volume(n: int = 40) -> Volume:
    data = torch.rand(1, n, n, n, generator=torch.Generator().manual_seed(0))
    return Volume(data, Grid((n, n, n), np.eye(4)), name="noise")


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("us.nii.gz", "us", ".nii.gz"),
        ("US.NII.GZ", "US", ".nii.gz"),
        ("F.mrk.json", "F", ".mrk.json"),
        ("a.b.nrrd", "a.b", ".nrrd"),
        ("transform.h5", "transform", ".h5"),
        ("bare", "bare", ""),
    ],
)
def test_stem_and_suffix(name, stem, suffix):
    assert (stem_of(name), suffix_of(name)) == (stem, suffix)


def test_atomic_path_puts_the_whole_file_in_place(tmp_path):
    target = tmp_path / "transform.nii.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert suffix_of(temporary) == ".nii.gz"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["transform.nii.gz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_the_old_file_after_any_exception(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("where", ["no such folder", "a file for a folder", "a folder for a file"])
def test_atomic_path_where_nothing_can_be_written(tmp_path, where):
    if where == "no such folder":
        target = tmp_path / "missing" / "a.txt"
    elif where == "a file for a folder":
        (tmp_path / "file").write_text("x")
        target = tmp_path / "file" / "a.txt"
    else:
        target = tmp_path / "folder"
        (target / "inner").mkdir(parents=True)
    before = names(tmp_path)
    with pytest.raises(InputError, match="cannot write") as caught, atomic_path(target) as temporary:
        temporary.write_text("x")
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("code", "text"), [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")]
)
def test_atomic_path_tells_why_the_system_refused(tmp_path, monkeypatch, code, text):
    def refuse(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match=f"cannot write .*a.txt: {text}"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == []


def test_full_disk_is_noticed_when_the_file_is_flushed(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_landmarks(Landmarks(np.zeros((1, 3)), ("a",)), tmp_path / "a.fcsv")
    assert names(tmp_path) == []


def test_staged_folder_moves_everything_at_the_end(tmp_path):
    folder = tmp_path / "deep" / "result"
    with staged_folder(folder) as staging:
        (staging / "a.txt").write_text("a")
        (staging / "sub").mkdir()
        (staging / "sub" / "b.txt").write_text("b")
        assert not (folder / "a.txt").exists()
    assert names(folder) == ["a.txt", "b.txt", "sub"]
    assert folder.stat().st_mode & 0o777 == tmp_path.joinpath("deep").stat().st_mode & 0o777


def test_staged_folder_replaces_files_and_keeps_others(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    with staged_folder(tmp_path) as staging:
        (staging / "a.txt").write_text("new")
    assert names(tmp_path) == ["a.txt", "mine.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InputError])
def test_staged_folder_leaves_nothing_after_an_exception(tmp_path, error):
    with pytest.raises(error), staged_folder(tmp_path / "deep" / "result") as staging:
        (staging / "half.txt").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_staged_folder_keeps_the_old_results_after_an_exception(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ValueError, match="stop"), staged_folder(tmp_path) as staging:
        (staging / "a.txt").write_text("half")
        raise ValueError("stop")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_staged_folder_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InputError, match="cannot write"), staged_folder(folder):
            pytest.fail("the body must not run")
    assert names(tmp_path) == ["file"]


def test_staged_folder_that_may_not_be_made(tmp_path, monkeypatch):
    make = Path.mkdir

    def refuse(self: Path, *args: object, **options: object) -> None:
        if self.name == "inner":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        make(self)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="Permission denied"), staged_folder(tmp_path / "outer" / "inner"):
        pytest.fail("the body must not run")
    assert names(tmp_path) == []


def test_staged_folder_sees_a_clash_before_it_moves_anything(tmp_path):
    (tmp_path / "z.txt").mkdir()
    with pytest.raises(InputError, match="z.txt is a folder"), staged_folder(tmp_path) as staging:
        (staging / "a.txt").write_text("a")
        (staging / "z.txt").write_text("z")
    assert names(tmp_path) == ["z.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted only as root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_image_on_a_full_disk(small_disk, name, capfd):
    with pytest.raises(InputError, match=f"cannot write .*{name}: No space left on device"):
        write_volume(noise_volume(), small_disk / name)
    assert names(small_disk) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["t.h5", "t.tfm", "t.nii.gz"])
def test_transform_on_a_full_disk(small_disk, name, capfd):
    grid = Grid((16, 16, 16), np.eye(4))
    displacement = torch.randn(16, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    transform = composite_from_field(DisplacementField(displacement, grid), torch.ones(16, 16, 16))
    with pytest.raises(InputError, match=f"cannot write .*{name}: No space left on device"):
        write_transform(transform, small_disk / name, grid=Grid((30, 30, 30), np.eye(4)))
    assert names(small_disk) == []
    assert capfd.readouterr() == ("", "")


def test_folder_of_results_on_a_full_disk(small_disk):
    with pytest.raises(InputError, match="No space left"), staged_folder(small_disk / "result") as staging:
        write_transform(SpatialTransform.identity(), staging / "transform.h5")
        write_volume(noise_volume(), staging / "warped.nii.gz")
    assert names(small_disk) == []


def test_landmarks_on_a_full_disk(small_disk):
    many = Landmarks(np.random.default_rng(0).random((3000, 3)), ("a point",) * 3000)
    with pytest.raises(InputError, match="No space left"):
        write_landmarks(many, small_disk / "a.mrk.json")
    assert names(small_disk) == []
