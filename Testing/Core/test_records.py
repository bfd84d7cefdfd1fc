"""Typed records as JSON, on toy classes and on those of a result."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.provenance import ImageRecord, InitialTransformRecord, Versions, WorkingGrid, image_record, versions
from MMRegCore.records import from_json, read_json, to_json
from MMRegCore.transform import SpatialTransform
from MMRegCore.version import __version__
from MMRegCore.volume import Volume


@dataclass(frozen=True)
class Point:
    x: float
    label: str


@dataclass(frozen=True)
class Record:
    name: str
    count: int
    good: bool
    kind: Literal["rigid", "deformed"]
    mean_mm: float | None
    nearest: Point | None
    points: tuple[Point, ...]
    pair: tuple[int, str]
    rows: tuple[tuple[float, ...], ...]
    settings: dict[str, Any] = field(default_factory=dict)


RECORD = Record(
    "a", 3, True, "rigid", 1.5, Point(1.0, "p"), (Point(2.0, "q"), Point(3.0, "r")), (1, "b"), ((1.0, 2.0), ()),
    {"method": "lc2", "lc2": {"range_mm": [1, 2]}},
)  # fmt: skip
EMPTY = Record("", 0, False, "deformed", None, None, (), (0, ""), ())


def through_json(record: Record) -> dict[str, Any]:
    return json.loads(json.dumps(to_json(record), allow_nan=False))


@pytest.mark.parametrize("record", [RECORD, EMPTY])
def test_a_record_in_json_has_lists_and_no_tuples(record):
    assert to_json(record) == through_json(record)
    assert from_json(Record, to_json(record)) == record


@pytest.mark.parametrize("record", [RECORD, EMPTY])
def test_round_trip(record):
    again = from_json(Record, through_json(record))
    assert again == record
    assert to_json(again) == to_json(record)


@given(
    st.builds(
        Record,
        name=st.text(max_size=5),
        count=st.integers(),
        good=st.booleans(),
        kind=st.sampled_from(["rigid", "deformed"]),
        mean_mm=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        nearest=st.none() | st.builds(Point, st.floats(0, 1), st.text(max_size=3)),
        points=st.lists(st.builds(Point, st.floats(0, 1), st.text(max_size=3)), max_size=3).map(tuple),
        pair=st.tuples(st.integers(), st.text(max_size=3)),
        rows=st.lists(st.lists(st.floats(0, 1), max_size=3).map(tuple), max_size=3).map(tuple),
        settings=st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    )
)
def test_round_trip_of_any_record(record):
    assert from_json(Record, through_json(record)) == record


def test_whole_numbers_become_floats_where_those_are_expected():
    again = from_json(Record, {**through_json(RECORD), "mean_mm": 2, "rows": [[1]]})
    assert isinstance(again.mean_mm, float)
    assert isinstance(again.rows[0][0], float)


def test_keys_of_a_later_version_are_left_out():
    content = through_json(RECORD)
    content["colour"] = "red"
    content["nearest"]["y"] = 2.0
    assert from_json(Record, content) == RECORD


@pytest.mark.parametrize("key", ["name", "nearest", "settings"])
def test_a_missing_key_is_named(key):
    content = through_json(RECORD)
    del content[key]
    with pytest.raises(InputError, match=f"expected Record to have {key}; got "):
        from_json(Record, content)


def test_a_missing_key_of_a_part_is_named_with_its_place():
    content = through_json(RECORD)
    del content["points"][1]["x"]
    with pytest.raises(InputError, match=r"expected Record.points to have x; got label"):
        from_json(Record, content)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", 3, "expected Record.name to be str; got 3"),
        ("name", None, "expected Record.name to be str; got None"),
        ("count", "3", "expected Record.count to be int; got '3'"),
        ("count", 2.5, "expected Record.count to be int; got 2.5"),
        ("count", True, "expected Record.count to be int; got True"),
        ("good", 1, "expected Record.good to be bool; got 1"),
        ("kind", "affine", "expected Record.kind to be .*'rigid'.*'deformed'.*; got 'affine'"),
        ("mean_mm", "1.5", "expected Record.mean_mm to be float; got '1.5'"),
        ("mean_mm", True, "expected Record.mean_mm to be float; got True"),
        ("nearest", [1, "p"], "expected Record.nearest to be a JSON object; got"),
        ("points", {"x": 1}, "expected Record.points to be .*; got {'x': 1}"),
        ("points", "ab", "expected Record.points to be .*; got 'ab'"),
        ("points", [3], "expected Record.points to be a JSON object; got 3"),
        ("pair", [1], r"expected Record.pair to be .*; got \[1\]"),
        ("pair", [1, 2], "expected Record.pair to be str; got 2"),
        ("rows", [["a"]], "expected Record.rows to be float; got 'a'"),
        ("settings", [1], "expected Record.settings to be dict.*; got"),
    ],
)
def test_a_wrong_kind_is_named_with_its_place(key, value, message):
    with pytest.raises(InputError, match=message):
        from_json(Record, {**through_json(RECORD), key: value})


@pytest.mark.parametrize("value", [None, 3, [1], "text"])
def test_what_is_no_object(value):
    with pytest.raises(InputError, match="expected Record to be a JSON object"):
        from_json(Record, value)


def test_an_object_is_read_from_a_file(tmp_path):
    (tmp_path / "a.json").write_text('{"straße": [1, 2]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", "a card") == {"straße": [1, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a card; a.json cannot be read: .*No such file"),
        (b"{", "expected a card; a.json cannot be read"),
        (b"\xff\xfe{}", "expected a card; a.json cannot be read"),
        (b"[1]", "expected a card, a JSON object; got list in a.json"),
    ],
)
def test_what_is_no_file_with_an_object(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "a.json", "a card")


class TestProvenance:
    def test_an_image_can_be_found_again(self, any_grid):
        data = torch.rand(1, *any_grid.shape, generator=torch.Generator().manual_seed(0))
        mask = torch.zeros(any_grid.shape, dtype=torch.bool)
        mask[3:5, 4:7] = True
        record = image_record(Volume(data, any_grid, mask, "us"))
        assert from_json(ImageRecord, json.loads(json.dumps(to_json(record)))) == record
        assert (record.name, record.shape, record.mask_voxels) == ("us", any_grid.shape, int(mask.sum()))
        assert record.spacing_mm == (0.8, 1.1, 1.7)
        assert np.array_equal(record.ras_from_ijk, any_grid.ras_from_ijk)
        assert image_record(Volume(data, any_grid, name="other")).sha256_of_voxels == record.sha256_of_voxels
        data[0, 1, 2, 3] += 1
        assert image_record(Volume(data, any_grid)).sha256_of_voxels != record.sha256_of_voxels
        assert image_record(Volume(data, any_grid)).mask_voxels is None

    def test_the_initial_transform_and_the_working_grid(self):
        matrix = np.eye(4)
        matrix[:3, 3] = [1.5, -2.0, 0.25]
        initial = InitialTransformRecord.of(SpatialTransform.from_matrix(matrix))
        assert initial.is_linear
        assert np.array_equal(initial.linear_ras, matrix)
        grid = WorkingGrid.of(Grid((8, 9, 10), np.diag([0.5, 0.5, 0.5, 1.0])))
        assert grid == WorkingGrid((8, 9, 10), (0.5, 0.5, 0.5))
        for record in (initial, grid):
            assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record

    def test_versions_of_this_installation(self):
        found = versions()
        assert found.mmreg == __version__
        assert found.torch == torch.__version__
        assert found.numpy == np.__version__
        assert from_json(Versions, to_json(found)) == found
