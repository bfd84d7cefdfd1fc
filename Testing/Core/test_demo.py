"""The demonstration, on a coarse grid, and its comparison with the truth."""

import functools
import json

import numpy as np
import pytest
import torch

from MMRegCore import demo, register
from MMRegCore.config import with_changes
from MMRegCore.displacement import DisplacementField
from MMRegCore.geometry import Grid
from MMRegCore.io.landmarks import read_landmarks
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import read_volume
from MMRegCore.records import from_json
from MMRegCore.simulate import SimulatedCase, simulate
from MMRegCore.volume import Volume
from quick import QUICK, small_pictures
from scenes import translation

pytestmark = pytest.mark.slow


def test_comparison_with_the_truth_by_hand():
    grid = Grid((6, 6, 6), np.eye(4))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[2:4, 2:4, 2:4] = True
    # Outside of the mask the truth is another one, and must not count.
    truth_mm = torch.full((*grid.shape, 3), 9.0)
    truth_mm[mask] = torch.tensor([3.0, 0.0, 4.0])
    points = np.array([[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    case = SimulatedCase(
        fixed=Volume(torch.zeros(1, *grid.shape), grid, mask),
        moving=(),
        truth=DisplacementField(truth_mm, grid),
        landmarks_fixed=points,
        landmarks_moving=points + np.array([3.0, 0.0, 4.0]),
    )
    result = demo.compare_with_truth(case, translation((3.0, 0.0, 3.0)))
    assert result.field.unit == result.landmarks.unit == "mm"
    for state, length_mm in (("before", 5.0), ("after", 1.0)):
        field = getattr(result.field, state)
        assert (field.mean, field.max) == pytest.approx((length_mm, length_mm))
        assert getattr(result.landmarks, state).mean == pytest.approx(length_mm)


def test_demo_writes_result_case_and_truth(tmp_path, monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.setattr(demo, "simulate", functools.partial(simulate, spacing_mm=2.0))
    settings = with_changes(QUICK, {"lc2.search.range_mm": 6.0, "lc2.iterations": 15})
    monkeypatch.setattr(demo, "register", functools.partial(register, settings=settings))
    small_pictures(monkeypatch)
    truth = demo.run_demo(tmp_path / "demo", device="cpu")
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"transform.h5", "result.json", "report.html", "truth.json", "input_ultrasound.nii.gz"} <= written
    content = json.loads((tmp_path / "demo" / "truth.json").read_text(encoding="utf-8"))
    assert from_json(demo.DemoResult, content) == truth
    assert truth.field.after.mean < 0.5 * truth.field.before.mean
    assert truth.landmarks.count == len(read_landmarks(tmp_path / "demo" / "landmarks_mr.mrk.json"))
    # The files must say the same as the numbers: redo the landmark error from them.
    transform = read_transform(tmp_path / "demo" / "transform.h5")
    fixed, moving = (read_landmarks(tmp_path / "demo" / f"landmarks_{name}.mrk.json") for name in ("ultrasound", "mr"))
    error_mm = np.linalg.norm(transform.apply(fixed.points_ras) - moving.points_ras, axis=1)
    assert error_mm.mean() == pytest.approx(truth.landmarks.after.mean, abs=0.01)
    assert read_volume(tmp_path / "demo" / "input_ultrasound.nii.gz").data.max() > 50
