"""What runs without torch: settings, presets, help, landmarks, geometry; also on interpreters where there is none.

A folder of its own, because the fixtures of the other tests need torch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from MMRegCore.cli import main
from MMRegCore.config import describe, load_preset, preset_names, presets_as_json, with_changes
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.landmarks import Landmarks, read_landmarks, write_landmarks


@pytest.fixture(autouse=True)
def torch_forbidden(monkeypatch):
    """As if torch were not installed."""
    if "torch" in sys.modules:
        pytest.skip("torch was imported by other tests of this process")
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_of_a_preset_is_described_and_can_be_given_back(name):
    settings = load_preset(name)
    changes = {about.key: about.default for about in describe(settings)}
    assert with_changes(settings, changes) == settings


def test_a_form_can_be_built():
    presets = json.loads(json.dumps(presets_as_json()))["presets"]
    kinds = {setting["kind"] for preset in presets for setting in preset["settings"]}
    assert kinds == {"switch", "integer", "number", "text", "choice"}
    assert all(setting["label"] and setting["help"] for preset in presets for setting in preset["settings"])


@pytest.mark.parametrize("command", [["--help"], ["register", "--help"], ["presets"], ["presets", "--show", "lc2"]])
def test_help_and_presets(command, capsys):
    assert main(command) == 0
    assert len(capsys.readouterr().out) > 200


def test_a_wrong_setting_is_told_before_torch_is_waited_for(tmp_path, capsys):
    command = ["register", "--fixed", "us.nii.gz", "--moving", "t1.nii.gz", "--output", str(tmp_path / "out")]
    assert main([*command, "--set", "lc2.search.range=18"]) == 2
    assert "lc2.search.range_mm" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv", ".csv", ".tag"])
def test_landmarks_come_back(tmp_path: Path, suffix):
    points = Landmarks(np.array([[1.5, -2.25, 3.0], [10.0, 20.0, -30.125]]), ("a", "b"))
    write_landmarks(points, tmp_path / f"points{suffix}")
    again = read_landmarks(tmp_path / f"points{suffix}")
    np.testing.assert_allclose(again.points_ras, points.points_ras, atol=1e-9)
    assert again.labels == points.labels


def test_grids():
    grid = Grid((4, 5, 6), np.diag([-0.5, 0.5, 2.0, 1.0]))
    assert Grid.from_itk(grid.to_itk()).matches(grid)
    with pytest.raises(InputError, match="invertible"):
        Grid((4, 5, 6), np.diag([0.0, 1.0, 1.0, 1.0]))
