"""Slicer's markups: .fcsv and .mrk.json."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from typing import Any, cast

from MMRegCore.errors import InputError
from MMRegCore.geometry import ras_from_lps_points
from MMRegCore.io._points import Landmarks, comments_and_rows, header_value, in_ras, numbers, rows_of

# Of a control point, in Slicer: undefined, preview, defined, missing.
_DEFINED_STATUS = 2
# Beyond this a coordinate is none; JSON can hold infinity too.
_LARGEST = 1e300
_OLD_COLUMNS = "label,x,y,z,sel,vis"


def from_mrk_json(text: str) -> Landmarks:
    lists = [item for item in markups_in(text)["markups"] if item["controlPoints"]]
    if len(lists) != 1:
        raise InputError(f"expected one list of control points; got {len(lists)}")
    if lists[0].get("type", "Fiducial") != "Fiducial":
        raise InputError(f"expected a list of points; got markups of the type {lists[0]['type']}")
    points = [_placed(point) for point in lists[0]["controlPoints"]]
    labels = [str(point.get("label", "")) for point in lists[0]["controlPoints"]]
    return in_ras(points, system_of(lists[0]), labels)


def markups_in(text: str) -> dict[str, Any]:
    """The content of a .mrk.json file, whose ``markups`` is a list of objects with a list of ``controlPoints`` each.

    Raises
    ------
    InputError
        When it is no such file, or not in mm.
    """
    wrong = InputError("expected Slicer markups (an object with 'markups'); got another JSON or none")
    try:
        content = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise wrong from error
    items = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise wrong
    for item in items:
        points = item.setdefault("controlPoints", [])
        if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
            raise wrong
        units = item.get("coordinateUnits", "mm")
        if any(unit != "mm" for unit in (units if isinstance(units, list) else [units])):
            raise InputError(f"expected landmarks in mm; got '{units}'")
    return cast("dict[str, Any]", content)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ``ValueError`` where it says something twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def system_of(item: dict[str, Any]) -> str:
    """The coordinate system of markups: 'LPS', which it is where they do not say, or 'RAS'.

    Raises
    ------
    InputError
        For another system.
    """
    system = str(item.get("coordinateSystem", "LPS")).upper()
    if system not in ("LPS", "RAS"):
        raise InputError(f"expected landmarks in RAS or LPS; got '{system}'")
    return system


def is_placed(point: dict[str, Any]) -> bool:
    """Whether a control point has a position that counts."""
    return bool(point.get("positionStatus", "defined") == "defined" and is_vector(point.get("position")))


def is_vector(value: object, length: int = 3) -> bool:
    """Whether a value of JSON is a list of so many finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST for v in value)
    )


def _placed(point: dict[str, Any]) -> list[float]:
    """Leaving out a point that is not placed would pair the others with the wrong partners."""
    if not is_placed(point):
        raise InputError(f"expected every landmark to be placed; got '{point.get('label', '')}' without a position")
    return cast("list[float]", point["position"])


def from_fcsv(text: str) -> Landmarks:
    comments, rows = comments_and_rows(text)
    # Slicer 3 wrote label,x,y,z,sel,vis; since 4.0 the first column is an identifier.
    columns = [c.strip() for c in header_value(comments, "columns", _OLD_COLUMNS).split(",")]
    if not {"x", "y", "z"} <= set(columns):
        raise InputError(f"expected columns x, y and z; got '{','.join(columns)}'")
    system = header_value(comments, "CoordinateSystem", "RAS")
    points, labels = [], []
    for row in _split(rows):
        values = dict(zip(columns, row, strict=False))
        label = values.get("label", "")
        if not {"x", "y", "z"} <= values.keys():
            raise InputError(f"expected columns x, y and z; got '{','.join(row)}'")
        if not _is_defined(row, columns):
            raise InputError(f"expected every landmark to be placed; got '{label}' without a position")
        points.append(numbers([values["x"], values["y"], values["z"]]))
        labels.append(label)
    return in_ras(points, system, labels)


def _split(rows: Sequence[str]) -> list[list[str]]:
    try:
        return list(csv.reader(rows, strict=True))
    except csv.Error as error:
        raise InputError(f"expected rows of comma-separated values; got some that cannot be split: {error}") from error


def _is_defined(row: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether a point is placed; Slicer 5 writes that behind the columns that its header names."""
    place = columns.index("positionStatus") if "positionStatus" in columns else len(columns)
    return "associatedNodeID" not in columns or len(row) <= place or row[place].strip() in ("", str(_DEFINED_STATUS))


def to_mrk_json(landmarks: Landmarks) -> str:
    points = [
        {"id": str(number), "label": label, "position": point, "positionStatus": "defined"}
        for number, (label, point) in enumerate(
            zip(landmarks.labels, ras_from_lps_points(landmarks.points_ras).tolist(), strict=True), start=1
        )
    ]
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
        "markups-schema-v1.0.3.json#"
    )
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    return json.dumps({"@schema": schema, "markups": [markup]}, indent=2) + "\n"


def to_fcsv(landmarks: Landmarks) -> str:
    lines = [
        "# Markups fiducial file version = 5.0",
        "# CoordinateSystem = LPS",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    for number, (x, y, z, label) in enumerate(rows_of(landmarks, ras_from_lps_points(landmarks.points_ras)), start=1):
        lines.append(f"{number},{x},{y},{z},0,0,0,1,1,1,0,{_quoted(label)},,")
    return "\n".join(lines) + "\n"


def _quoted(label: str) -> str:
    return '"' + label.replace('"', '""') + '"' if re.search(r'[",]', label) else label
