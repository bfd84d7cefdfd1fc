"""``mmreg simulate``: a case on disk whose ground truth the other verbs confirm."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore.cli import main
from MMRegCore.geometry import Grid
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import read_volume, write_volume
from MMRegCore.simulate import BrainShiftSettings, anatomy_from_mr, simulate
from MMRegCore.volume import Volume

pytestmark = pytest.mark.slow

SEED = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, Path]:
    """A skull-stripped brain of two balls, its T2 and a tumour, 3 mm."""
    folder = tmp_path_factory.mktemp("mr")
    matrix = np.diag([3.0, 3.0, 3.0, 1.0])
    matrix[:3, 3] = -75
    grid = Grid((51, 51, 51), matrix)
    points = grid.points_ras()
    radius = np.linalg.norm(points, axis=-1)
    noise = np.random.default_rng(0).standard_normal(radius.shape)
    t1 = (900 * (radius < 50) + 500 * ((radius >= 50) & (radius < 58)) - 700 * (radius < 12)) * (1 + 0.03 * noise)
    t1 += 200 * ((radius >= 58) & (radius < 64))
    tumour = np.linalg.norm(points - np.array([30.0, 5.0, 20.0]), axis=-1) < 10
    paths = {}
    for name, data in (("t1", t1), ("second", 1200 * (radius < 64) - t1), ("tumour", tumour)):
        paths[name] = folder / f"{name}.nii.gz"
        write_volume(Volume(torch.from_numpy(data.astype(np.float32))[None], grid, name=name), paths[name])
    return paths


@pytest.fixture(scope="module")
def written(images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("case") / "new"
    words = ["simulate", "--mr", images["t1"], images["second"], "--tumour-mask", images["tumour"], "--cavity"]
    words += ["--render", "flair", "--mean-shift-mm", 5, "--seed", SEED, "--output", output]
    assert main([str(word) for word in words]) == 0
    return output


def one_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    return lines[0]


def test_writes_what_a_registration_needs(written, images):
    assert {path.name for path in written.iterdir()} == {
        "ultrasound.nii.gz",
        "ultrasound_mask.nii.gz",
        "cavity.nii.gz",
        "mr_t1.nii.gz",
        "mr_second.nii.gz",
        "mr_FLAIR.nii.gz",
        "landmarks_ultrasound.mrk.json",
        "landmarks_mr.mrk.json",
        "truth.h5",
        "case.json",
    }
    assert torch.equal(read_volume(written / "mr_t1.nii.gz").data, read_volume(images["t1"]).data)
    ultrasound = read_volume(written / "ultrasound.nii.gz", mask_path=written / "ultrasound_mask.nii.gz")
    assert torch.equal(ultrasound.data[0] > 0, ultrasound.mask)
    described = json.loads((written / "case.json").read_text(encoding="utf-8"))
    assert described["options"]["seed"] == SEED
    assert described["shift"]["mean_mm"] == 5
    assert described["measured"]["mean_shift_mm"] == pytest.approx(5, rel=0.1)


def test_tre_of_the_truth_is_zero(written, capsys):
    words = ["tre", "--transform", written / "truth.h5"]
    words += ["--fixed-landmarks", written / "landmarks_ultrasound.mrk.json"]
    words += ["--moving-landmarks", written / "landmarks_mr.mrk.json"]
    assert main([str(word) for word in words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"]["mean"] > 3
    assert found["after"]["max"] < 0.05


def test_truth_is_the_field_in_the_whole_cone(written, images):
    anatomy = anatomy_from_mr([read_volume(images["t1"])], tumour=read_volume(images["tumour"]))
    case = simulate(anatomy, shift=BrainShiftSettings(mean_mm=5.0), seed=SEED)
    field = read_transform(written / "truth.h5").displacement_field(case.fixed.grid)
    assert case.fixed.grid.matches(read_volume(written / "ultrasound.nii.gz").grid)
    error = (field.displacement_mm - case.truth.displacement_mm).norm(dim=-1)[case.fixed.mask]
    assert float(error.max()) < 0.05


def test_apply_resamples_the_mr_on_the_ultrasound(written, tmp_path):
    words = ["apply", "--transform", written / "truth.h5", "--moving", written / "mr_t1.nii.gz"]
    words += ["--reference", written / "ultrasound.nii.gz", "--output", tmp_path / "warped.nii.gz"]
    assert main([str(word) for word in words]) == 0
    reference = read_volume(written / "ultrasound.nii.gz")
    assert read_volume(tmp_path / "warped.nii.gz").grid.matches(reference.grid)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mr", "absent.nii.gz"], "absent.nii.gz"),
        (["--tumour-mask", "absent.nii.gz"], "with --mr only; got no --mr"),
        (["--mean-shift-mm", "-1"], "at least 0"),
        (["--mr", "{t1}", "--render", "t1"], "contrasts that are not there; got t1"),
        (["--mr", "{t1}", "--entry", "0", "0", "0"], "a direction of three numbers that is not zero"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(images, tmp_path, capsys, words, message):
    output = tmp_path / "out"
    words = [word.format(t1=images["t1"]) for word in words]
    assert main(["simulate", *words, "--output", str(output)]) == 2
    assert message in one_line(capsys)
    assert not output.exists()
