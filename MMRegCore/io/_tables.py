"""Plain tables (.csv) and MNI tag point files (.tag)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from MMRegCore.errors import InputError
from MMRegCore.io._points import Landmarks, comments_and_rows, header_value, in_ras, is_number, numbers, rows_of

_SEPARATORS = re.compile(r"[,;\t]")
_MOVING_NAMES = ("mr", "moving")
_FIXED_NAMES = ("us", "fixed")


def from_csv(text: str) -> Landmarks:
    comments, names, rows = _table(text)
    if len(rows[0]) >= 6 and all(is_number(cell) for cell in rows[0][:6]):
        raise InputError("expected three columns x, y, z; got pairs of landmarks (six columns): give them as pairs")
    columns = _columns(names, rows[0])
    points = [numbers([_cell(row, column) for column in columns]) for row in rows]
    labels = [_label(row, names, columns) for row in rows]
    system = header_value(comments, "CoordinateSystem", "RAS")
    return in_ras(points, system, labels)


def pairs_from_csv(text: str) -> tuple[Landmarks, Landmarks]:
    """Moving, fixed."""
    comments, names, rows = _table(text)
    points = []
    for row in rows:
        if len(row) < 6:
            raise InputError(f"expected six columns mr_x, mr_y, mr_z, us_x, us_y, us_z; got '{','.join(row)}'")
        points.append(numbers(row[:6]))
    table = np.array(points)
    labels = tuple(row[6] if len(row) > 6 else str(index + 1) for index, row in enumerate(rows))
    first, second = Landmarks(table[:, :3], labels), Landmarks(table[:, 3:], labels)
    headers = [names, *([cell.strip().lower() for cell in _SEPARATORS.split(comment)] for comment in comments)]
    reverse = any(
        len(header) >= 6 and header[0].startswith(_FIXED_NAMES) and header[3].startswith(_MOVING_NAMES)
        for header in headers
    )
    return (second, first) if reverse else (first, second)


def _table(text: str) -> tuple[list[str], list[str], list[list[str]]]:
    """Comments, column names in lower case (empty when there is no header), and the cells of at least one row."""
    comments, lines = comments_and_rows(text)
    rows = [[cell.strip().strip('"') for cell in _SEPARATORS.split(line)] for line in lines]
    names: list[str] = []
    if rows and not any(is_number(cell) for cell in rows[0]):
        names = [cell.lower() for cell in rows.pop(0)]
    if not rows:
        raise InputError("expected at least one landmark; got none")
    return comments, names, rows


def _columns(names: Sequence[str], row: Sequence[str]) -> list[int]:
    """Where x, y and z are: by name, else the first three columns, or the next where a label comes first."""
    for wanted in (("x", "y", "z"), ("r", "a", "s")):
        if set(wanted) <= set(names):
            return [list(names).index(name) for name in wanted]
    if names:
        raise InputError(f"expected columns x, y and z; got '{','.join(names)}'")
    if len(row) > 3 and all(is_number(cell) for cell in row[:4]):
        raise InputError(f"expected a header that says which numbers are x, y and z; got '{','.join(row)}'")
    start = 0 if is_number(row[0]) else 1
    return [start, start + 1, start + 2]


def _cell(row: Sequence[str], column: int) -> str:
    if column >= len(row):
        raise InputError(f"expected columns x, y and z; got '{','.join(row)}'")
    return row[column]


def _label(row: Sequence[str], names: Sequence[str], columns: Sequence[int]) -> str:
    for name in ("label", "name", "id"):
        if name in names and list(names).index(name) < len(row):
            return row[list(names).index(name)]
    rest = [cell for index, cell in enumerate(row) if index not in columns]
    return rest[0] if rest and not names else ""


def from_tag(text: str, *, volumes: int) -> list[Landmarks]:
    """One set per volume of an MNI tag point file."""
    lines = [line.strip() for line in text.splitlines()]
    body = "\n".join(line for line in lines if line and line[0] not in "%#")
    head = re.match(r"MNI Tag Point File\s+Volumes\s*=\s*(\d)\s*;\s*Points\s*=(.*)", body, re.DOTALL | re.IGNORECASE)
    if head is None:
        raise InputError("expected an MNI tag point file; got something else")
    if int(head[1]) != volumes:
        raise InputError(f"expected tags of {volumes} volume(s); got {head[1]}")
    points, labels = [], []
    for line in head[2].strip().removesuffix(";").strip().splitlines():
        bare, _, label = line.partition('"')
        values = numbers(bare.split())
        if len(values) < 3 * volumes:
            raise InputError(f"expected {3 * volumes} coordinates per line; got '{line}'")
        points.append(values[: 3 * volumes])
        labels.append(label.rstrip().removesuffix('"'))
    table = np.array(points, dtype=np.float64).reshape(-1, volumes, 3)
    return [Landmarks(table[:, volume], tuple(labels)) for volume in range(volumes)]


def to_csv(landmarks: Landmarks) -> str:
    lines = ["# RAS mm", "x,y,z,label"]
    for x, y, z, label in rows_of(landmarks, landmarks.points_ras):
        plain_label = re.sub(r'[,;\t"]', " ", label)
        lines.append(f"{x},{y},{z},{plain_label}")
    return "\n".join(lines) + "\n"


def to_tag(landmarks: Landmarks) -> str:
    rows = rows_of(landmarks, landmarks.points_ras)
    points = [f' {x} {y} {z} "{label.replace(chr(34), chr(39))}"' for x, y, z, label in rows]
    return "MNI Tag Point File\nVolumes = 1;\n\nPoints =\n" + "\n".join(points) + ";\n"
