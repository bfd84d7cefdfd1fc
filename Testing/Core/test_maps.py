"""Quality maps: how they are coloured and written, and that one file more is one map more."""

import json
import sys

import numpy as np
import pytest
import torch

from MMRegCore import register
from MMRegCore.assessment import maps
from MMRegCore.assessment.assess import assess
from MMRegCore.assessment.maps import MapSpec, find_map, map_specs
from MMRegCore.errors import InputError
from MMRegCore.io.volumes import read_volume
from MMRegCore.result import write_map
from MMRegCore.transform import SpatialTransform
from quick import QUICK, small_pictures
from scenes import box, scene, translation


def written_maps(assessment, folder):
    """Every map as read from its file, by name."""
    for found in assessment.maps:
        write_map(found, assessment.mask, folder)
    return {path.name.removesuffix(".nii.gz"): read_volume(path) for path in folder.iterdir()}


def test_every_map_is_written_and_holds_its_background_outside_the_mask(smooth_volume, oblique_grid, tmp_path):
    mask = torch.zeros(oblique_grid.shape, dtype=torch.bool)
    mask[4:-4, 5:-6, 3:-3] = True
    fixed = smooth_volume(oblique_grid).with_mask(mask)
    given = {name: torch.full(oblique_grid.shape, 2.5) for name in ("expected_error", "inverse_consistency_error")}
    matrix = np.diag([1.1, 1.0, 0.9, 1.0])
    found = written_maps(assess(fixed, [fixed], SpatialTransform.from_matrix(matrix), maps=given), tmp_path)
    assert set(found) == set(map_specs())
    assert all(volume.grid.matches(oblique_grid) for volume in found.values())
    inside = {name: volume.data[0][mask] for name, volume in found.items()}
    assert (inside["expected_error"] == 2.5).all()
    assert (inside["inverse_consistency_error"] == 2.5).all()
    torch.testing.assert_close(inside["jacobian_determinant"], torch.tensor(0.99).expand(int(mask.sum())))
    points = oblique_grid.points_ras()[mask.numpy()]
    np.testing.assert_allclose(inside["displacement"], np.linalg.norm(points @ matrix[:3, :3].T - points, axis=1), 1e-4)
    for name, volume in found.items():
        assert (volume.data[0][~mask] == (name == "jacobian_determinant")).all()


def test_what_the_method_does_not_give_is_not_written(smooth_volume, oblique_grid, tmp_path):
    fixed = smooth_volume(oblique_grid)
    found = written_maps(assess(fixed, [fixed], SpatialTransform.identity()), tmp_path)
    assert set(found) == {"displacement", "jacobian_determinant"}


def test_the_scale_of_volume_change_is_centred_at_one():
    low, high = find_map("jacobian_determinant").limits_of(torch.tensor([0.4, 0.9, 1.1, 1.2]))
    assert (low + high) / 2 == 1
    assert low == pytest.approx(0.4, abs=0.02)


def test_the_scale_of_lengths_begins_at_zero_and_is_never_empty():
    for values in (torch.zeros(5), torch.tensor([]), torch.tensor([1.0, 2.0])):
        low, high = find_map("displacement").limits_of(values)
        assert low == 0 < high


def test_the_scale_of_the_expected_error_is_the_same_for_all_results():
    for values in (torch.zeros(5), torch.tensor([50.0])):
        assert find_map("expected_error").limits_of(values) == (0.0, 4.0)


@pytest.mark.parametrize("spec", map_specs().values(), ids=map_specs())
def test_every_map_explains_itself(spec: MapSpec):
    assert spec.title
    assert spec.sentence
    assert len(spec.colours) > 2
    assert all(len(colour) == 7 and int(colour[1:], 16) >= 0 for colour in spec.colours)


def test_an_unknown_map_is_named():
    with pytest.raises(InputError, match="out of expected_error, displacement, .*; got 'doubt'"):
        find_map("doubt")


BRIGHTNESS = '''
"""Brightness of the registered MR."""

from MMRegCore.assessment.maps import MAGNITUDE, MapSpec

MAP = MapSpec(
    "brightness",
    "Brightness of the <MR>",
    "a.u.",
    "how bright the MR is",
    colours=MAGNITUDE,
    order=9,
    background=-1.0,
    compute=lambda measured: measured.after[0].data[0],
)
'''


@pytest.fixture
def brightness(tmp_path, monkeypatch):
    """A map from a file that was dropped into a folder of maps."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "brightness.py").write_text(BRIGHTNESS, encoding="utf-8")
    monkeypatch.setattr(maps, "__path__", [*maps.__path__, str(folder)])
    yield
    del sys.modules["MMRegCore.assessment.maps.brightness"]
    del maps.brightness


@pytest.mark.usefixtures("brightness")
def test_one_file_more_is_one_map_more(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    small_pictures(monkeypatch)
    fixed = scene(box((24, 26, 28)), translation((1.0, 0.0, 0.0)).apply, name="US")
    result = register(fixed, scene(box((30, 32, 34)), name="T1"), settings=QUICK, device="cpu")
    result.save(tmp_path / "out", fixed=fixed)
    # Computed and written.
    written = read_volume(tmp_path / "out" / "brightness.nii.gz")
    expected = torch.where(result.assessment.mask, result.warped[0].data, torch.tensor(-1.0))
    torch.testing.assert_close(written.data, expected)
    # Listed in result.json, last, with all that a viewer needs.
    content = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    summary = content["quality"]["maps"][-1]
    about = {"name": "brightness", "file": "brightness.nii.gz", "title": "Brightness of the <MR>", "unit": "a.u."}
    assert about.items() <= summary.items()
    assert summary["background"] == -1
    inside = result.warped[0].data[0][result.assessment.mask]
    assert summary["inside"]["mean"] == pytest.approx(float(inside.mean()), rel=1e-4)
    # Drawn in the report.
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<img class="brightness" alt="Brightness of the &lt;MR&gt; in a.u." src="data:image/png' in report
    assert "<td>Brightness of the &lt;MR&gt; in a.u.</td>" in report
