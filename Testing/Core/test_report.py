"""The report: anatomy the right way round, one safe self-contained file, and no pictures without matplotlib."""

import base64
import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore.assessment.assess import Assessment, assess
from MMRegCore.assessment.quality import Verdict
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError, MMRegError
from MMRegCore.geometry import Grid, transform_points
from MMRegCore.report.planes import planes_through
from MMRegCore.report.report import write_report
from MMRegCore.search.model_selection import Candidate, ModelSelection
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume
from quick import small_pictures

pytest.importorskip("matplotlib")
from PIL import Image

pytestmark = pytest.mark.slow

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order and collects what a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[np.ndarray]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, data = str(attributes["src"]).split(",", 1)
                assert kind == "data:image/png;base64"
                found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int))
        return found


@pytest.fixture
def case(oblique_grid: Grid, smooth_field: Callable[..., DisplacementField]) -> tuple[Volume, Assessment]:
    x, y, z = np.moveaxis(oblique_grid.points_ras() - oblique_grid.centre_ras, -1, 0)
    values = torch.from_numpy(np.sin(x / 2) * np.cos(y / 3) + np.sin(z / 2.5))[None]
    mask = torch.from_numpy(x**2 + y**2 + z**2 < 15**2)
    fixed = Volume(values.exp() * mask, oblique_grid, mask, "US")
    moving = [Volume(-values, oblique_grid, None, name) for name in ("T1", "<i>FLAIR")]
    transform = composite_from_field(smooth_field(oblique_grid, 2.0), mask)
    return fixed, assess(fixed, moving, transform, maps={"inverse_consistency_error": torch.rand(oblique_grid.shape)})


@pytest.fixture
def brief(case: tuple[Volume, Assessment]) -> tuple[Volume, Assessment]:
    """The same with one moving image and without maps, which take long to draw."""
    fixed, whole = case
    return fixed, replace(whole, before=whole.before[:1], after=whole.after[:1], maps=())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pictures(monkeypatch)


def written(path: Path, case: tuple[Volume, Assessment], **provenance: object) -> Page:
    write_report(path, *case, provenance, title="Case <7> & co")
    return Page(path.read_text(encoding="utf-8"))


def test_planes_show_anatomy_as_radiologists_hold_it(any_grid: Grid) -> None:
    ras = any_grid.points_ras() - any_grid.centre_ras
    mask = torch.ones(any_grid.shape, dtype=torch.bool)
    expected = {"axial": ("x", "y", "RLAP"), "coronal": ("x", "z", "RLSI"), "sagittal": ("y", "z", "APSI")}
    # Brighter towards the patient's right, the nose and the top.
    ramps = {"x": ras[..., 0], "y": ras[..., 1], "z": ras[..., 2]}
    for plane in planes_through(any_grid, mask):
        across, down, letters = expected[plane.name]
        assert "".join(plane.letters) == letters
        for axis, name in ((1, across), (0, down)):
            picture = plane.cut(Volume(torch.from_numpy(ramps[name])[None], any_grid))
            steps = np.diff(picture, axis=axis) / plane.pixel_mm
            # The ramp is 1 per mm and falls from left to right and from top to bottom.
            assert np.nanmedian(steps) == pytest.approx(-1, abs=1e-3)
            assert abs(np.nanmedian(np.diff(picture, axis=1 - axis))) < 1e-3


def test_planes_go_through_the_centroid_and_hold_the_whole_mask(oblique_grid: Grid) -> None:
    mask = torch.zeros(oblique_grid.shape, dtype=torch.bool)
    mask[4:9, 20:28, 3:20] = True
    points = transform_points(oblique_grid.ras_from_ijk, mask.nonzero().flip(1).double().numpy())
    for plane in planes_through(oblique_grid, mask):
        assert plane.grid.spacing_mm == pytest.approx([plane.pixel_mm] * 3)
        ijk = transform_points(plane.grid.ijk_from_ras, points)
        assert ijk[:, :2].min() > 0
        assert (ijk[:, :2].max(axis=0) < plane.grid.itk_size[:2]).all()
        centre = transform_points(plane.grid.ijk_from_ras, points.mean(axis=0)[None])[0]
        assert centre[2] == pytest.approx(0, abs=1e-6)
        shown = plane.cut_mask(mask, oblique_grid)
        assert shown.any()
        assert not shown[0].any()
        assert not shown[:, 0].any()


@pytest.mark.usefixtures("small")
def test_the_report_is_one_well_formed_safe_file(tmp_path: Path, case: tuple[Volume, Assessment]) -> None:
    path = tmp_path / "report.html"
    page = written(
        path, case, timings_s={"solve": 1.23456}, note="<script>alert(1)</script>", nested={"a": {"b": [1, None]}}
    )
    text = path.read_text(encoding="utf-8")
    assert page.open == []
    assert "<script" not in text
    assert not re.search(r"(src|href|url)\s*[=(]\s*['\"]?(https?:|//|file:)", text)
    assert page.text.count("Case <7> & co") == 2
    assert "Research software, not a medical device" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "<i>FLAIR" in page.text
    assert "solve1.235" in page.text
    assert "a, b1, –" in page.text
    for note in case[1].quality.notes:
        assert note in page.text
    assert len(page.images()) == 2 * (3 + 2) + 3
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_size < 4e6


def test_the_pictures_show_the_change_and_nothing_else(case: tuple[Volume, Assessment]) -> None:
    from MMRegCore.report.figures import Pictures

    def pixels(strips: list) -> dict[str, np.ndarray]:
        opened = {strip.key: Image.open(io.BytesIO(strip.png)).convert("RGB") for strip in strips}
        return {key: np.asarray(picture).astype(int) for key, picture in opened.items()}

    fixed, assessment = case
    views = pixels(Pictures(fixed, assessment).alignment(0))
    assert {view.shape for view in views.values()} == {views["before"].shape}
    header = 45
    assert (np.abs(views["before"] - views["after"])[header:].max(axis=-1) > 40).mean() > 0.05
    # The outlines come from the ultrasound alone: the same orange pixels before and after.
    orange = [(v[header:, :, 0] - v[header:, :, 2] > 120) for v in views.values()]
    assert orange[0].sum() > 500
    assert (orange[1] & orange[2]).sum() > 0.8 * orange[1].sum()
    assert (orange[0] & orange[2]).sum() > 0.8 * orange[0].sum()

    # The titles differ, and with them the palette: by a few gray levels.
    unchanged = assess(fixed, [assessment.before[0]], SpatialTransform.identity())
    for strips in (Pictures(fixed, unchanged).alignment(0), Pictures(fixed, unchanged).checkerboard(0)):
        views = pixels(strips)
        np.testing.assert_allclose(views["before"][header:], views["after"][header:], atol=10)
    tiles = pixels(Pictures(fixed, assessment).checkerboard(0))
    assert (np.abs(tiles["before"] - tiles["after"])[header:].max(axis=-1) > 40).mean() > 0.03


def test_without_matplotlib_the_report_says_what_to_install(
    tmp_path: Path, case: tuple[Volume, Assessment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")] + ["MMRegCore.report.figures"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MMRegError, match=r"pip install 'mmreg\[report\]'"):
        import MMRegCore.report.figures  # noqa: F401
    page = written(tmp_path / "report.html", case)
    assert page.open == []
    assert page.images() == []
    assert "pip install 'mmreg[report]'" in page.text
    assert "Numbers" in page.text


@pytest.mark.usefixtures("small")
def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path, brief: tuple[Volume, Assessment]) -> None:
    with pytest.raises(InputError, match="cannot write"):
        written(tmp_path / "absent" / "report.html", brief)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_odd_images_are_drawn(tmp_path: Path) -> None:
    for shape in [(1, 20, 20), (1, 1, 1), (6, 40, 5)]:
        grid = Grid(shape, np.diag([0.01, 0.01, 0.2, 1.0]))
        data = torch.zeros(1, *shape)
        data[0, 0, 0, 0] = torch.nan if data.numel() > 1 else 0.0
        flat = Volume(data, grid, name="flat")
        page = written(tmp_path / "report.html", (flat, assess(flat, [flat], SpatialTransform.identity())))
        assert len(page.images()) == 3 + 2 + 2


def test_a_real_case_stays_small(tmp_path: Path, case24: dict[str, Path]) -> None:
    from MMRegCore.io.volumes import read_volume

    fixed = read_volume(case24["us"])
    fixed = fixed.with_mask(fixed.data[0] > 0)
    moving = [read_volume(case24[key]) for key in ("t1", "flair")]
    result = assess(fixed, moving, SpatialTransform.identity())
    write_report(tmp_path / "report.html", fixed, result, {}, title="Case 24")
    assert 5e5 < (tmp_path / "report.html").stat().st_size < 4e6
    assert 0.02 < result.quality.moving[0].mind_distance_after < 0.5


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("level", "sign"), [("accept", "✓ Accept"), ("review", "! Review"), ("reject", "✗ Reject")])
def test_the_verdict_comes_first_in_words_with_its_reasons(
    tmp_path: Path, brief: tuple[Volume, Assessment], level: str, sign: str
) -> None:
    fixed, assessment = brief
    quality = replace(assessment.quality, verdict=Verdict(level, ("It <is> so.",), 1.0))
    judged = replace(assessment, quality=quality)
    page = written(tmp_path / "report.html", (fixed, judged))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.index(sign) < text.index('class="cards"')
    assert "It &lt;is&gt; so." in text
    assert page.open == []


@pytest.mark.usefixtures("small")
def test_the_candidates_are_compared_in_a_table(tmp_path: Path, brief: tuple[Volume, Assessment]) -> None:
    fixed, assessment = brief
    candidates = [Candidate(name, value, 0.1, 0.02, 5.0, 0) for name, value in (("initial", 0.123), ("rigid", 0.456))]
    selection = ModelSelection("rigid", "it <fits>", tuple(candidates))
    quality = replace(assessment.quality, model_selection=selection)
    page = written(tmp_path / "report.html", (fixed, replace(assessment, quality=quality)))
    assert "Candidate transforms (selected: rigid; it <fits>)" in page.text
    assert "0.456" in page.text
    assert page.open == []
