"""Tables and lists of landmarks as people have them: right numbers, or refused; see docs/reports.md."""

import json

import numpy as np
import pytest

from MMRegCore.errors import InputError
from MMRegCore.evaluate.landmarks import paired_points
from MMRegCore.evaluate.pairing import pair_by_label
from MMRegCore.io.landmarks import Landmarks, read_landmark_pairs, read_landmarks

MOVING, FIXED = [12.5, -3.25, 40.0], [10.5, -3.25, 40.0]
PAIRS = {
    "semicolon and comma": "mr_x;mr_y;mr_z;us_x;us_y;us_z\n12,5;-3,25;40,0;10,5;-3,25;40,0\n",
    "tab and comma": "mr_x\tmr_y\tmr_z\tus_x\tus_y\tus_z\n12,5\t-3,25\t40\t10,5\t-3,25\t40\n",
    "quoted commas": 'mr_x,mr_y,mr_z,us_x,us_y,us_z\n"12,5","-3,25","40,0","10,5","-3,25","40,0"\n',
    "semicolon and point": "12.5;-3.25;40;10.5;-3.25;40\n",
    "index first": ",mr_x,mr_y,mr_z,us_x,us_y,us_z\n0,12.5,-3.25,40,10.5,-3.25,40\n",
    "index last": "mr_x,mr_y,mr_z,us_x,us_y,us_z,index\n12.5,-3.25,40,10.5,-3.25,40,0\n",
    "label first": "sulcus,12.5,-3.25,40,10.5,-3.25,40\n",
    "other order": "us_z,mr_z,us_x,mr_x,us_y,mr_y\n40,40,10.5,12.5,-3.25,-3.25\n",
    "long names": "ultrasound_x,ultrasound_y,ultrasound_z,mri_x,mri_y,mri_z\n10.5,-3.25,40,12.5,-3.25,40\n",
    "axis first": "x_us,y_us,z_us,x_mr,y_mr,z_mr\n10.5,-3.25,40,12.5,-3.25,40\n",
    "units": "MR X (mm),MR Y (mm),MR Z (mm),US X (mm),US Y (mm),US Z (mm)\n12.5,-3.25,40,10.5,-3.25,40\n",
    "camel": "movingX,movingY,movingZ,fixedX,fixedY,fixedZ\n12.5,-3.25,40,10.5,-3.25,40\n",
    "short": "usx,usy,usz,t1x,t1y,t1z\n10.5,-3.25,40,12.5,-3.25,40\n",
    "anatomical": "mr_r,mr_a,mr_s,us_r,us_a,us_s\n12.5,-3.25,40,10.5,-3.25,40\n",
    "LPS by name": "mr_l,mr_p,mr_s,us_l,us_p,us_s\n-12.5,3.25,40,-10.5,3.25,40\n",
    "LPS by suffix": "mr_x_lps,mr_y_lps,mr_z_lps,us_x_lps,us_y_lps,us_z_lps\n-12.5,3.25,40,-10.5,3.25,40\n",
    "LPS by comment": "# CoordinateSystem = LPS\nmr_x,mr_y,mr_z,us_x,us_y,us_z\n-12.5,3.25,40,-10.5,3.25,40\n",
    "LPS by words": "# all points in LPS mm\n-12.5,3.25,40,-10.5,3.25,40\n",
    "LPS by number": "# CoordinateSystem = 1\n-12.5,3.25,40,-10.5,3.25,40\n",
    "header in a comment": "# us_x,us_y,us_z,mr_x,mr_y,mr_z\n10.5,-3.25,40,12.5,-3.25,40\n",
    "trailing delimiter": "12.5,-3.25,40,10.5,-3.25,40,\n",
    "byte order mark, CRLF": "\ufeffmr_x,mr_y,mr_z,us_x,us_y,us_z\r\n12.5,-3.25,40,10.5,-3.25,40\r\n",
}
NOT_PAIRS = {
    "seven numbers": "0,12.5,-3.25,40,10.5,-3.25,40\n",
    "source and target": "source_x,source_y,source_z,target_x,target_y,target_z\n1,2,3,4,5,6\n",
    "numbered": "x1,y1,z1,x2,y2,z2\n1,2,3,4,5,6\n",
    "one side": "mr_x,mr_y,mr_z\n1,2,3\n",
    "a column twice": "mr_x,mr_x,mr_z,us_x,us_y,us_z\n1,2,3,4,5,6\n",
    "a column less": "mr_x,mr_y,us_x,us_y,us_z\n1,2,3,4,5\n",
    "unquoted commas": "mr_x,mr_y,mr_z,us_x,us_y,us_z\n12,5,-3,25,40,0,10,5,-3,25,40,0\n",
    "both decimal signs": "mr_x;mr_y;mr_z;us_x;us_y;us_z\n12,5;-3.25;40;10;3;40\n",
    "thousands": "mr_x;mr_y;mr_z;us_x;us_y;us_z\n1.012,5;3;40;10;3;40\n",
    "centimetres": "mr_x_cm,mr_y_cm,mr_z_cm,us_x_cm,us_y_cm,us_z_cm\n1,2,3,4,5,6\n",
    "voxels": "# units = voxels\n1,2,3,4,5,6\n",
    "two systems": "# CoordinateSystem = LPS\n# RAS mm\n1,2,3,4,5,6\n",
    "system against names": "# RAS\nmr_l,mr_p,mr_s,us_l,us_p,us_s\n1,2,3,4,5,6\n",
    "voxel coordinates": "# CoordinateSystem = IJK\n1,2,3,4,5,6\n",
    "a cell less in a row": "1,2,3,4,5,6\n1,2,3,4,5\n",
    "Python's own digits": "1_0,2,3,4,5,6\n",
    "an open quote": '"1,2,3,4,5,6\n',
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_that_are_read(tmp_path, name):
    (tmp_path / "p.csv").write_text(PAIRS[name], encoding="utf-8", newline="")
    fixed, moving = read_landmark_pairs(tmp_path / "p.csv")
    np.testing.assert_array_equal(moving.points_ras, [MOVING])
    np.testing.assert_array_equal(fixed.points_ras, [FIXED])
    assert fixed.labels == moving.labels


@pytest.mark.parametrize("name", NOT_PAIRS)
def test_pairs_that_are_refused(tmp_path, name):
    (tmp_path / "p.csv").write_text(NOT_PAIRS[name])
    with pytest.raises(InputError, match="expected") as caught:
        read_landmark_pairs(tmp_path / "p.csv")
    assert str(tmp_path / "p.csv") in str(caught.value)


LISTS = {
    "Slicer's table": "label,r,a,s,defined,selected,visible,locked,description\nF-1,12.5,-3.25,40,1,1,1,0,\n",
    "Slicer's table in LPS": "label,l,p,s,defined,selected,visible,locked,description\nF-1,-12.5,3.25,40,1,1,1,0,\n",
    "decimal comma": "label;x;y;z\nF-1;12,5;-3,25;40\n",
    "quoted label": 'label,x,y,z\n"F-1",12.5,-3.25,40\n',
}
NOT_LISTS = {
    "Slicer's table, a point unset": "label,r,a,s,defined,selected,visible,locked,description\nF-1,1,2,3,0,1,1,0,\n",
    "two spaces": "label,x,y,z,r,a,s\nF-1,1,2,3,1,2,3\n",
    "pairs": "mr_x,mr_y,mr_z,us_x,us_y,us_z\n1,2,3,4,5,6\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_are_read(tmp_path, name):
    (tmp_path / "a.csv").write_text(LISTS[name])
    found = read_landmarks(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.points_ras, [MOVING])
    assert found.labels == ("F-1",)


@pytest.mark.parametrize("name", NOT_LISTS)
def test_lists_that_are_refused(tmp_path, name):
    (tmp_path / "a.csv").write_text(NOT_LISTS[name])
    with pytest.raises(InputError, match="expected"):
        read_landmarks(tmp_path / "a.csv")


FCSV = "# CoordinateSystem = LPS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"


@pytest.mark.parametrize("status", ["0", "1", "3"])
def test_points_of_fcsv_that_are_not_placed(tmp_path, status):
    (tmp_path / "a.fcsv").write_text(f"{FCSV}1,-99,-98,97,0,0,0,1,1,1,0,F-2,,,{status},0\n")
    with pytest.raises(InputError, match="to be placed; got 'F-2' without a position"):
        read_landmarks(tmp_path / "a.fcsv")


@pytest.mark.parametrize("end", ["", ",2,0", ",,", ",2"])
def test_points_of_fcsv_that_are_placed(tmp_path, end):
    (tmp_path / "a.fcsv").write_text(f"{FCSV}1,-99,-98,97,0,0,0,1,1,1,0,F-2,,{end}\n")
    np.testing.assert_array_equal(read_landmarks(tmp_path / "a.fcsv").points_ras, [[99, 98, 97]])


@pytest.mark.parametrize("head", ["# CoordinateSystem = LPS\n# CoordinateSystem = RAS\n"])
def test_fcsv_that_says_two_things(tmp_path, head):
    (tmp_path / "a.fcsv").write_text(head + "# columns = id,x,y,z\n1,2,3,4\n")
    with pytest.raises(InputError, match="one CoordinateSystem; got LPS and RAS"):
        read_landmarks(tmp_path / "a.fcsv")


@pytest.mark.parametrize("status", ["undefined", "missing", "preview", "", 0])
def test_points_of_json_that_are_not_placed(tmp_path, status):
    point = {"label": "F-2", "position": [1, 2, 3], "positionStatus": status}
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial", "controlPoints": [point]}]}))
    with pytest.raises(InputError, match="to be placed"):
        read_landmarks(tmp_path / "a.mrk.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"markups": [{"controlPoints": [{"position": [1, 2, 1e999]}]}]}',
        '{"markups": [{"controlPoints": [{"position": [1, 2, true]}]}]}',
        '{"markups": [{"controlPoints": [{"position": [1, 2, 3], "position": [4, 5, 6]}]}]}',
        '{"markups": [{"controlPoints": 3}]}',
        '{"markups": [{"controlPoints": ["a"]}]}',
        '{"markups": [3]}',
        '{"markups": [{"controlPoints": [{"position": [1, 2, 3]}], "coordinateUnits": 3}]}',
        "[" * 100_000,
    ],
)
def test_json_that_is_no_list_of_landmarks(tmp_path, text):
    (tmp_path / "a.mrk.json").write_text(text)
    with pytest.raises(InputError, match="expected"):
        read_landmarks(tmp_path / "a.mrk.json")


def test_a_tag_file_that_is_cut_off(tmp_path):
    (tmp_path / "a.tag").write_text('MNI Tag Point File\nVolumes = 1;\nPoints =\n 1 2 3 "a"\n 4 5 6')
    with pytest.raises(InputError, match="complete"):
        read_landmarks(tmp_path / "a.tag")


class TestPairing:
    def test_one_point_deleted_in_each_list(self):
        with pytest.raises(InputError, match="without a partner: F-2, F-3"):
            pair_by_label(["F-1", "F-3", "F-4"], ["F-1", "F-2", "F-4"])

    def test_one_point_deleted_in_one_list(self):
        with pytest.raises(InputError, match="got 2 fixed and 3 moving; without a partner: F-2"):
            pair_by_label(["F-1", "F-3"], ["F-1", "F-2", "F-3"])

    def test_labels_decide(self):
        assert pair_by_label(["b", "a "], ["a", "b"]).order == (1, 0)
        assert pair_by_label(["b", "a"], ["a", "b"]).by == "label"

    @pytest.mark.parametrize("labels", [(["", ""], ["", ""]), (["a", "b"], ["", ""]), (["a", "a"], ["a", "a"])])
    def test_the_order_decides_without_a_word(self, labels):
        assert pair_by_label(*labels).order == (0, 1)
        assert pair_by_label(*labels).warning == ""

    @pytest.mark.parametrize("labels", [(["a", "b"], ["c", "d"]), (["a", "b"], ["a", "a"])])
    def test_the_order_decides_with_a_word(self, labels, caplog):
        fixed, moving = (Landmarks(np.zeros((2, 3)), tuple(each)) for each in labels)
        paired_points(fixed, moving)
        assert "paired by their order" in caplog.text
