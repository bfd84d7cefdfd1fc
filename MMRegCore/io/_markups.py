"""Slicer's markups: .fcsv and .mrk.json."""

from __future__ import annotations

import csv
import json
import re
from typing import Any, cast

from MMRegCore.errors import InputError
from MMRegCore.geometry import ras_from_lps_points
from MMRegCore.io._points import Landmarks, comments_and_rows, header_value, in_ras, numbers, rows_of


def from_mrk_json(text: str) -> Landmarks:
    try:
        lists = [item for item in json.loads(text)["markups"] if item.get("controlPoints")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("expected Slicer markups (an object with 'markups'); got another JSON or none") from error
    if len(lists) != 1:
        raise InputError(f"expected one list of control points; got {len(lists)}")
    system = str(lists[0].get("coordinateSystem", "LPS"))
    units = lists[0].get("coordinateUnits", "mm")
    if any(unit != "mm" for unit in ([units] if isinstance(units, str) else units)):
        raise InputError(f"expected landmarks in mm; got '{units}'")
    points = [_placed(point) for point in lists[0]["controlPoints"]]
    labels = [str(point.get("label", "")) for point in lists[0]["controlPoints"]]
    return in_ras(points, system, labels)


def _placed(point: dict[str, Any]) -> list[float]:
    """Leaving out a point that is not placed would pair the others with the wrong partners."""
    position = point.get("position")
    numbers = isinstance(position, list) and len(position) == 3 and all(isinstance(v, int | float) for v in position)
    if point.get("positionStatus", "defined") != "defined" or not numbers:
        raise InputError(f"expected every landmark to be placed; got '{point.get('label', '')}' without a position")
    return cast("list[float]", position)


def from_fcsv(text: str) -> Landmarks:
    comments, rows = comments_and_rows(text)
    # Slicer 3 wrote label,x,y,z,sel,vis; since 4.0 the first column is an identifier.
    columns = [c.strip() for c in header_value(comments, "columns", "label,x,y,z,sel,vis").split(",")]
    system = header_value(comments, "CoordinateSystem", "RAS")
    points, labels = [], []
    for row in csv.reader(rows):
        values = dict(zip(columns, row, strict=False))
        if not {"x", "y", "z"} <= values.keys():
            raise InputError(f"expected columns x, y and z; got '{','.join(row)}'")
        points.append(numbers([values["x"], values["y"], values["z"]]))
        labels.append(values.get("label", ""))
    return in_ras(points, system, labels)


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
