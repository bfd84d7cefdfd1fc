"""A registration done again from its result.json: inputs by checksum, the same bytes, and what is not as it was."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore import read_volume, register
from MMRegCore.cli import main
from MMRegCore.errors import InputError
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.replay import difference_mm, find_inputs, read_provenance, replay, what_changed
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from quick import QUICK
from scenes import box, scene, translation

pytestmark = pytest.mark.slow


def bent() -> SpatialTransform:
    """A rigid part in ITK's own centred form, then a B-spline: a matrix does not tell it."""
    spline = sitk.BSplineTransformInitializer(box((30, 30, 30), 2.0).to_itk(), [4, 4, 4], 3)
    spline.SetParameters(np.random.default_rng(0).normal(size=len(spline.GetParameters()), scale=0.2).tolist())
    rigid = sitk.Euler3DTransform((3.0, 1.0, 2.0), 0.01, -0.02, 0.015, (0.3, 0.1, -0.2))
    return SpatialTransform(sitk.CompositeTransform([rigid, spline]))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with a result of masks, two MR of one name and a nonlinear initial transform, and its inputs beside."""
    folder = tmp_path_factory.mktemp("replay")
    for place in ("images", "other"):
        (folder / place).mkdir()
    grid = box((20, 22, 24))
    write_volume(scene(grid, translation((1.0, -1.0, 0.5)).apply), folder / "images" / "us.nii.gz")
    moving = scene(box((26, 28, 30)), inverted=True)
    write_volume(moving, folder / "images" / "t1.nii.gz")
    write_volume(moving.with_data(100 - moving.data), folder / "other" / "t1.nrrd")
    mask = torch.zeros(grid.shape)
    mask[3:-3, 3:-3, 3:-3] = 1
    write_volume(Volume(mask[None], grid), folder / "images" / "us_mask.nii.gz", dtype="uint8")
    write_transform(bent(), folder / "images" / "start.h5")
    paths = [folder / "images" / "t1.nii.gz", folder / "other" / "t1.nrrd"]
    fixed = read_volume(folder / "images" / "us.nii.gz", mask_path=folder / "images" / "us_mask.nii.gz")
    initial = read_transform(folder / "images" / "start.h5")
    moved = [read_volume(path) for path in paths]
    result = register(fixed, moved, settings=QUICK, initial_transform=initial, device="cpu", seed=3)
    result.save(folder / "result", fixed=fixed, transform_only=True)
    # Whatever they are called now.
    (folder / "images" / "us.nii.gz").rename(folder / "other" / "renamed.nii.gz")
    return folder


def changed(done: Path, folder: Path, change) -> Path:
    """A copy of the result in which ``change`` altered the provenance."""
    content = json.loads((done / "result" / "result.json").read_text(encoding="utf-8"))
    change(content["provenance"])
    (folder / "result.json").write_text(json.dumps(content))
    (folder / "transform.h5").write_bytes((done / "result" / "transform.h5").read_bytes())
    return folder / "result.json"


def test_the_same_bytes_again(done, capsys):
    assert main(["replay", str(done / "result" / "result.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["same"] is True
    assert told["largest_difference_mm"] == told["mean_difference_mm"] == 0
    assert told["may_differ_because"] == []
    found = {name: Path(path).name for name, path in told["inputs"].items()}
    assert found == {
        read_provenance(done / "result" / "result.json").fixed.name: "renamed.nii.gz",
        "us, mask": "us_mask.nii.gz",
        "t1": "t1.nii.gz",
        "t1_2": "t1.nrrd",
        "initial transform": "start.h5",
    }


def test_another_transform_is_told_with_its_distance_and_reasons(done, tmp_path):
    def other(provenance):
        provenance["threads"] = 64
        provenance["versions"]["torch"] = "1.0"

    path = changed(done, tmp_path, other)
    shifted = read_transform(path.parent / "transform.h5").then(translation((0.0, 0.25, 0.0)))
    write_transform(shifted, path.parent / "transform.h5")
    found, _, _ = replay(path, [done])
    assert not found.same
    assert found.largest_difference_mm == pytest.approx(0.25, abs=1e-5)
    assert found.mean_difference_mm == pytest.approx(0.25, abs=1e-5)
    assert [reason.split(":")[0] for reason in found.may_differ_because] == ["torch", "threads"]


def test_results_without_the_later_checksums_are_read(done, tmp_path):
    def older(provenance):
        provenance["initial_transform"] = {"linear_ras": np.eye(4).tolist(), "is_linear": True}
        for record in (provenance["fixed"], *provenance["moving"]):
            del record["sha256_of_mask"]

    provenance = read_provenance(changed(done, tmp_path, older))
    inputs = find_inputs(provenance, [done])
    assert int(inputs.fixed.mask.sum()) == provenance.fixed.mask_voxels
    assert inputs.initial.is_linear


def test_what_is_not_there_is_named(done):
    provenance = read_provenance(done / "result" / "result.json")
    with pytest.raises(InputError, match=r"expected the inputs .*'t1_2' \(30 × 28 × 26 voxels"):
        find_inputs(provenance, [done / "images", done / "other" / "renamed.nii.gz"])
    with pytest.raises(InputError, match="initial transform, which is not linear"):
        find_inputs(provenance, [done / "other", done / "images" / "t1.nii.gz", done / "images" / "us_mask.nii.gz"])
    with pytest.raises(InputError, match="the mask of 'us'"):
        find_inputs(provenance, [done / "other", done / "images" / "t1.nii.gz", done / "images" / "start.h5"])
    with pytest.raises(InputError, match="does not exist"):
        find_inputs(provenance, [done / "nowhere"])


@pytest.mark.parametrize("version", [0, 99, "none", None])
def test_other_schema_versions_are_refused(tmp_path, version):
    (tmp_path / "result.json").write_text(json.dumps({"schema_version": version, "provenance": {}}))
    with pytest.raises(InputError, match="schema version 1 to 1; got " + re.escape(str(version))):
        read_provenance(tmp_path / "result.json")


def test_the_same_voxels_at_another_place_are_not_the_input(done, tmp_path):
    provenance = read_provenance(done / "result" / "result.json")
    volume = read_volume(done / "images" / "t1.nii.gz")
    moved = replace(volume, grid=volume.grid.cropped((1, 0, 0), volume.grid.shape))
    write_volume(moved, tmp_path / "t1.nii.gz")
    places = [done / "other", done / "images" / "us_mask.nii.gz", done / "images" / "start.h5", tmp_path]
    with pytest.raises(InputError, match="'t1' "):
        find_inputs(provenance, places)


def test_the_difference_is_that_in_the_field_of_view():
    grid = box((8, 9, 10))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[2, 3, 4] = mask[5, 3, 4] = True
    fixed = scene(grid).with_mask(mask)
    scaled = SpatialTransform.from_matrix(np.diag([1.0, 1.0, 1.5, 1.0]))
    mean, largest = difference_mm(SpatialTransform.identity(), scaled, fixed)
    z = np.abs(grid.points_ras()[[2, 5], 3, 4, 2]) / 2
    assert (mean, largest) == pytest.approx((z.mean(), z.max()))


def test_nothing_changed(done):
    provenance = read_provenance(done / "result" / "result.json")
    assert what_changed(provenance, provenance) == ()
    assert what_changed(provenance, replace(provenance, device="cuda:0")) == ("device: cpu then, cuda:0 now",)


def test_landmarks_guide_it_again(tmp_path):
    fixed = scene(box((20, 22, 24)), translation((1.0, -1.0, 0.5)).apply, name="us")
    moving = scene(box((26, 28, 30)), inverted=True, name="t1")
    for image in (fixed, moving):
        write_volume(image, tmp_path / f"{image.name}.nii.gz")
    images = [read_volume(tmp_path / f"{name}.nii.gz") for name in ("us", "t1")]
    points = np.array([[8.0, 0, 2], [-6, 7, 1], [-3, -8, -6]])
    there = points + np.random.default_rng(0).normal(0, 1 / 3, (3, 3))
    result = register(*images, settings=QUICK, landmarks=(points, there), landmark_error_mm=0.7, device="cpu")
    result.save(tmp_path / "result", fixed=images[0], transform_only=True)
    told, _, again = replay(tmp_path / "result" / "result.json", [tmp_path])
    assert told.same
    assert again.provenance.landmarks == result.provenance.landmarks
