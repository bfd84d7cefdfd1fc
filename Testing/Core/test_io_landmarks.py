import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MMRegCore.errors import InputError
from MMRegCore.io._markups import from_fcsv, from_mrk_json, to_fcsv, to_mrk_json
from MMRegCore.io._tables import from_csv, from_tag, to_csv, to_tag
from MMRegCore.io.landmarks import Landmarks, read_landmark_pairs, read_landmarks, write_landmarks

POINTS = np.array([[12.5, -3.25, 40.0], [-7.125, 88.0, 0.5]])

FCSV_LPS = """# Markups fiducial file version = 5.2
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,-12.5,3.25,40,0,0,0,1,1,1,0,sulcus,,,2,0
2,7.125,-88,0.5,0,0,0,1,1,1,0,"gyrus, left",,,2,0
"""
FCSV_410 = """# Markups fiducial file version = 4.10
# CoordinateSystem = 0
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
vtkMRMLMarkupsFiducialNode_0,12.5,-3.25,40,0,0,0,1,1,1,0,sulcus,,vtkMRMLScalarVolumeNode1
vtkMRMLMarkupsFiducialNode_1,-7.125,88,0.5,0,0,0,1,1,1,0,"gyrus, left",,vtkMRMLScalarVolumeNode1
"""
FCSV_SLICER_3 = """# Fiducial List file old.fcsv
# version = 2
# name = L
# numPoints = 2
# columns = label,x,y,z,sel,vis
sulcus,12.5,-3.25,40,1,1
"gyrus, left",-7.125,88,0.5,1,1
"""
CSV = """# RAS mm
x,y,z,label
12.5,-3.25,40,sulcus
-7.125,88,0.5,gyrus
"""
TAG_ONE = """MNI Tag Point File
Volumes = 1;
%Mon Jan 1 00:00:00 2018>>> written by register
%VIO_Volume: us.mnc

Points =
 12.5 -3.25 40 -1 -1 -1 "sulcus"
 -7.125 88 0.5 -1 -1 -1 "gyrus; left";
"""
TAG_TWO = """MNI Tag Point File
Volumes = 2;
% Volume: mr.mnc

Points =
 12.5 -3.25 40 13 -3 41 "1"
 -7.125 88 0.5 -7 89 1 "2";
"""


def markups(system="LPS", **changes):
    sign = -1 if system == "LPS" else 1
    points = [
        {"id": "1", "label": "sulcus", "position": [sign * 12.5, sign * -3.25, 40.0], "positionStatus": "defined"},
        {"id": "2", "label": "gyrus", "position": [sign * -7.125, sign * 88, 0.5], "positionStatus": "defined"},
    ]
    points[1].update(changes)
    return {"markups": [{"type": "Fiducial", "coordinateSystem": system, "controlPoints": points}]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("new.fcsv", FCSV_LPS),
        ("middle.fcsv", FCSV_410),
        ("old.fcsv", FCSV_SLICER_3),
        ("a.csv", CSV),
        ("bare.csv", "12.5,-3.25,40\n-7.125,88,0.5\n"),
        ("label_first.csv", "sulcus,12.5,-3.25,40\ngyrus,-7.125,88,0.5\n"),
        ("label_last.csv", "12.5;-3.25;40;sulcus\n-7.125;88;0.5;gyrus\n"),
        ("other_order.csv", "\ufefflabel\tz\ty\tx\nsulcus\t40\t-3.25\t12.5\ngyrus\t0.5\t88\t-7.125\n"),
        ("lps.csv", "# CoordinateSystem = LPS\nx,y,z\n-12.5,3.25,40\n7.125,-88,0.5\n"),
        ("ras_names.csv", "Name,R,A,S\nsulcus,12.5,-3.25,40\ngyrus,-7.125,88,0.5\n"),
        ("one.tag", TAG_ONE),
        ("lps.mrk.json", json.dumps(markups())),
        ("ras.mrk.json", json.dumps(markups("RAS"))),
    ],
)
def test_every_format_gives_ras(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    landmarks = read_landmarks(tmp_path / name)
    np.testing.assert_array_equal(landmarks.points_ras, POINTS)
    assert landmarks.points_ras.dtype == np.float64
    assert len(landmarks) == 2
    if name not in ("bare.csv", "lps.csv"):
        assert landmarks.labels[0] == "sulcus"
        assert landmarks.labels[1].startswith("gyrus")


def test_markups_are_lps_where_they_do_not_say(tmp_path):
    made = markups()
    del made["markups"][0]["coordinateSystem"]
    (tmp_path / "a.mrk.json").write_text(json.dumps(made))
    np.testing.assert_array_equal(read_landmarks(tmp_path / "a.mrk.json").points_ras, POINTS)


@pytest.mark.parametrize(
    ("suffix", "first"), [(".fcsv", "1,-12.5,3.25"), (".mrk.json", "-12.5,"), (".csv", "12.5,-3.25")]
)
def test_files_for_slicer_are_lps_and_tables_ras(tmp_path, suffix, first):
    write_landmarks(Landmarks(POINTS, ("a", "b")), tmp_path / f"a{suffix}")
    assert first in (tmp_path / f"a{suffix}").read_text()


label = st.text(st.characters(codec="utf-8", exclude_characters='",;\t"', exclude_categories=("C", "Z")), max_size=8)
coordinate = st.floats(-1e4, 1e4, allow_nan=False)
some_landmarks = st.lists(st.tuples(coordinate, coordinate, coordinate, label), min_size=1, max_size=6)


@given(rows=some_landmarks)
def test_writing_and_reading_gives_the_same_numbers(rows):
    landmarks = Landmarks(np.array([row[:3] for row in rows]), tuple(row[3] for row in rows))
    texts = {from_mrk_json: to_mrk_json, from_fcsv: to_fcsv, from_csv: to_csv}
    for read, write in texts.items():
        again = read(write(landmarks))
        np.testing.assert_array_equal(again.points_ras, landmarks.points_ras)
        assert again.labels == landmarks.labels
    tags = from_tag(to_tag(landmarks), volumes=1)[0]
    np.testing.assert_array_equal(tags.points_ras, landmarks.points_ras)
    assert tags.labels == landmarks.labels


@pytest.mark.parametrize("suffix", [".fcsv", ".mrk.json", ".csv", ".tag"])
def test_awkward_labels_do_not_break_a_file(tmp_path, suffix):
    labels = ('left, "upper"\nedge; #1', "", "ß")
    path = tmp_path / f"a{suffix}"
    write_landmarks(Landmarks(np.arange(9.0).reshape(3, 3), labels), path)
    again = read_landmarks(path)
    np.testing.assert_array_equal(again.points_ras, np.arange(9.0).reshape(3, 3))
    assert re.match(r"left.*upper.*edge.*1", again.labels[0], re.DOTALL)
    assert again.labels[2] == "ß"


def test_pairs_from_a_table_are_moving_first(tmp_path):
    text = "# RAS mm; MR -> US\n# mr_x,mr_y,mr_z,us_x,us_y,us_z\n1,2,3,4,5,6\n7,8,9,10,11,12\n"
    (tmp_path / "p.csv").write_text(text)
    fixed, moving = read_landmark_pairs(tmp_path / "p.csv")
    np.testing.assert_array_equal(moving.points_ras, [[1, 2, 3], [7, 8, 9]])
    np.testing.assert_array_equal(fixed.points_ras, [[4, 5, 6], [10, 11, 12]])
    assert fixed.labels == moving.labels == ("1", "2")


@pytest.mark.parametrize("comment", ["", "# "])
def test_pairs_from_a_table_whose_header_reverses_them(tmp_path, comment):
    (tmp_path / "p.csv").write_text(f"{comment}us_x,us_y,us_z,mr_x,mr_y,mr_z\n4,5,6,1,2,3\n")
    fixed, moving = read_landmark_pairs(tmp_path / "p.csv")
    np.testing.assert_array_equal(fixed.points_ras, [[4, 5, 6]])
    np.testing.assert_array_equal(moving.points_ras, [[1, 2, 3]])


def test_pairs_from_tags_are_moving_first(tmp_path):
    (tmp_path / "p.tag").write_text(TAG_TWO)
    fixed, moving = read_landmark_pairs(tmp_path / "p.tag")
    np.testing.assert_array_equal(moving.points_ras, POINTS)
    np.testing.assert_array_equal(fixed.points_ras, [[13, -3, 41], [-7, 89, 1]])


def test_real_pairs(case24):
    fixed, moving = read_landmark_pairs(case24["landmarks"])
    distances = np.linalg.norm(fixed.points_ras - moving.points_ras, axis=1)
    assert len(fixed) == 16
    assert distances.mean() == pytest.approx(1.10, abs=0.005)
    np.testing.assert_allclose(moving.points_ras[0], [33.958828, 22.299719, 0.491735])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.fcsv", "# CoordinateSystem = IJK\n# columns = id,x,y,z\n1,2,3,4\n"),
        ("a.fcsv", "# columns = id,label\n1,a\n"),
        ("a.fcsv", "# columns = id,x,y,z\n1,2,three,4\n"),
        ("a.fcsv", "# columns = id,x,y,z\n1,2\n"),
        ("a.fcsv", "# columns = id,x,y,z\n"),
        ("a.fcsv", "# columns = id,x,y,z\n1,2,nan,4\n"),
        ("a.csv", "1,2,3,4,5,6\n"),
        ("a.csv", "1,10,20,30\n"),
        ("a.csv", "1,2\n"),
        ("a.csv", "1,2,oops\n"),
        ("a.csv", "x,y,z\n"),
        ("a.csv", "u,v,w\n1,2,3\n"),
        ("a.csv", "# only a comment\n"),
        ("a.csv", "1,2,inf\n"),
        ("a.tag", TAG_TWO),
        ("a.tag", "something else"),
        ("a.tag", "MNI Tag Point File\nVolumes = 1;\nPoints =\n 1 2;\n"),
        ("a.tag", "MNI Tag Point File\nVolumes = 1;\nPoints =;\n"),
        ("a.mrk.json", "{not json"),
        ("a.mrk.json", "[1, 2]"),
        ("a.mrk.json", '{"markups": [{"controlPoints": []}]}'),
        ("a.mrk.json", '{"markups": 3}'),
        ("a.mrk.json", json.dumps(markups("IJK"))),
        ("a.mrk.json", json.dumps(markups(positionStatus="undefined"))),
        ("a.mrk.json", json.dumps(markups(position=None))),
        ("a.mrk.json", json.dumps(markups(position=[1, 2]))),
        ("a.mrk.json", json.dumps({"markups": markups()["markups"] * 2})),
        ("a.mrk.json", json.dumps({"markups": [{**markups()["markups"][0], "coordinateUnits": "um"}]})),
        ("a.mrk.json", json.dumps(markups(position=[1, 2, math.nan]))),
        ("a.csv", ""),
        ("a.txt", "1,2,3\n"),
    ],
)
def test_bad_landmark_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="expected") as caught:
        read_landmarks(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "1,2,3\n"),
        ("a.csv", "1,2,3,4,5,six\n"),
        ("a.tag", TAG_ONE),
        ("a.fcsv", FCSV_LPS),
        ("a.csv", "# none\n"),
    ],
)
def test_bad_pairs(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="expected"):
        read_landmark_pairs(tmp_path / name)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_landmarks(tmp_path / "a.fcsv")
    (tmp_path / "b.fcsv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not text"):
        read_landmarks(tmp_path / "b.fcsv")


def test_written_names_must_say_the_format(tmp_path):
    with pytest.raises(InputError, match="ends in one of"):
        write_landmarks(Landmarks(POINTS, ("a", "b")), tmp_path / "a.json")


def test_landmarks_check_themselves():
    with pytest.raises(InputError, match="one label per landmark"):
        Landmarks(POINTS, ("a",))
    with pytest.raises(InputError, match="finite"):
        Landmarks(POINTS * np.nan, ("a", "b"))
    assert len(Landmarks(np.empty((0, 3)), ())) == 0
