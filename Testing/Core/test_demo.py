"""The demonstration, on a coarse grid, and its comparison with the truth."""

import functools
import json

import numpy as np
import pytest
import torch

from MMRegCore import demo
from MMRegCore.displacement import DisplacementField
from MMRegCore.geometry import Grid
from MMRegCore.io import read_landmarks, read_transform, read_volume
from MMRegCore.simulate import SimulatedCase, simulate
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume


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
    matrix = np.eye(4)
    matrix[:3, 3] = [3.0, 0.0, 3.0]
    result = demo.compare_with_truth(case, SpatialTransform.from_matrix(matrix))
    assert result["field"]["before"] == pytest.approx({"mean": 5.0, "max": 5.0})
    assert result["field"]["after"] == pytest.approx({"mean": 1.0, "max": 1.0})
    assert result["landmarks"]["before"]["mean"] == pytest.approx(5.0)
    assert result["landmarks"]["after"]["mean"] == pytest.approx(1.0)


def test_demo_writes_result_case_and_truth(tmp_path, monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.setattr(demo, "simulate", functools.partial(simulate, spacing_mm=1.5))
    truth = demo.run_demo(tmp_path / "demo", device="cpu")
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"transform.h5", "result.json", "report.html", "truth.json", "input_ultrasound.nii.gz"} <= written
    assert json.loads((tmp_path / "demo" / "truth.json").read_text(encoding="utf-8")) == truth
    assert truth["field"]["after"]["mean"] < 0.5 * truth["field"]["before"]["mean"]
    assert truth["landmarks"]["count"] == len(read_landmarks(tmp_path / "demo" / "landmarks_mr.mrk.json"))
    # The files must say the same as the numbers: redo the landmark error from them.
    transform = read_transform(tmp_path / "demo" / "transform.h5")
    fixed, moving = (read_landmarks(tmp_path / "demo" / f"landmarks_{name}.mrk.json") for name in ("ultrasound", "mr"))
    error_mm = np.linalg.norm(transform.apply(fixed.points_ras) - moving.points_ras, axis=1)
    assert error_mm.mean() == pytest.approx(truth["landmarks"]["after"]["mean"], abs=0.01)
    assert read_volume(tmp_path / "demo" / "input_ultrasound.nii.gz").data.max() > 50
