"""Plain tables (.csv) and MNI tag point files (.tag)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MMRegCore.errors import InputError
from MMRegCore.io._columns import Columns, are_names, columns_by_name
from MMRegCore.io._points import Landmarks, in_ras, is_number, numbers, rows_of

_DELIMITERS = (";", "\t", ",")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_NO = ("0", "false", "no")


@dataclass(frozen=True)
class _Table:
    """The cells of at least one row, decimal points in its numbers; ``names`` are empty without a header."""

    comments: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def from_csv(text: str) -> Landmarks:
    table = _table(text)
    columns = _columns(table)
    if "" not in columns.sides:
        raise InputError("expected three columns x, y, z; got pairs of landmarks: give them as pairs")
    return _side(table, columns, "")


def pairs_from_csv(text: str) -> tuple[Landmarks, Landmarks]:
    """Moving, fixed."""
    table = _table(text)
    columns = _columns(table)
    if set(columns.sides) != {"moving", "fixed"}:
        raise InputError(
            f"expected six columns mr_x, mr_y, mr_z, us_x, us_y, us_z; got '{','.join(table.names or table.rows[0])}'"
        )
    moving, fixed = (_side(table, columns, side, number=True) for side in ("moving", "fixed"))
    return moving, fixed


def _table(text: str) -> _Table:
    lines = [line.strip("\r\n ") for line in text.splitlines() if line.strip()]
    comments = tuple(line.lstrip("# \t").strip() for line in lines if line[0] == "#")
    rows = _cells([line for line in lines if line[0] != "#"])
    names: tuple[str, ...] = ()
    if rows and not any(map(is_number, rows[0])):
        names, rows = tuple(rows[0]), rows[1:]
    elif rows:
        names = _names_in(comments, len(rows[0]))
    if not rows:
        raise InputError("expected at least one landmark; got none")
    width = len(names or rows[0])
    for row in rows:
        if len(row) != width:
            raise InputError(f"expected {width} cells in every row; got {len(row)}: '{','.join(row)}'")
    return _Table(comments, names, tuple(rows))


def _names_in(comments: Sequence[str], width: int) -> tuple[str, ...]:
    """A header that stands in a comment; empty where there is none."""
    for comment in comments:
        for delimiter in _DELIMITERS:
            names = tuple(cell.strip() for cell in comment.split(delimiter))
            if len(names) == width and are_names(names):
                return names
    return ()


def _cells(lines: Sequence[str]) -> list[tuple[str, ...]]:
    """Split lines at the delimiter that all of them have; numbers with a decimal comma get a point.

    Raises
    ------
    InputError
        When the decimal sign is not the same everywhere.
    """
    delimiter = next((each for each in _DELIMITERS if lines and all(each in line for line in lines)), ",")
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(f"expected a table; got one that cannot be split: {error}") from error
    cells = [tuple(cell.strip() for cell in row) for row in rows]
    if any(_DECIMAL_COMMA.fullmatch(cell) for row in cells for cell in row):
        if any("." in cell and is_number(cell) for row in cells for cell in row):
            raise InputError("expected one decimal sign; got numbers with a point and numbers with a comma")
        cells = [tuple(c.replace(",", ".") if _DECIMAL_COMMA.fullmatch(c) else c for c in row) for row in cells]
    while cells and all(len(row) > 1 and not row[-1] for row in cells):  # a delimiter too many
        cells = [row[:-1] for row in cells]
    return cells


def _columns(table: _Table) -> Columns:
    """By name; without names three or six numbers, and a label before or behind them."""
    if table.names:
        return columns_by_name(table.names)
    row = table.rows[0]
    places = [place for place, cell in enumerate(row) if is_number(cell)]
    others = [place for place in range(len(row)) if place not in places]
    if len(places) not in (3, 6) or len(others) > 1 or (others and others[0] not in (0, len(row) - 1)):
        raise InputError(
            f"expected three or six numbers and perhaps a label, or a header that names the columns; got "
            f"'{','.join(row)}'"
        )
    sides = {"": places} if len(places) == 3 else {"moving": places[:3], "fixed": places[3:]}
    return Columns(sides, "", others[0] if others else None, None)


def _side(table: _Table, columns: Columns, side: str, *, number: bool = False) -> Landmarks:
    """The landmarks of one image; numbered where they have no label and ``number`` is set."""
    points, labels = [], []
    for index, row in enumerate(table.rows, start=1):
        label = str(index) if columns.label is None and number else ""
        label = label if columns.label is None else row[columns.label]
        if columns.defined is not None and row[columns.defined].lower() in _NO:
            raise InputError(f"expected every landmark to be placed; got '{label}' without a position")
        points.append(numbers([row[place] for place in columns.sides[side]]))
        labels.append(label)
    return in_ras(points, _system(table.comments, columns.system), labels)


def _system(comments: Sequence[str], by_names: str) -> str:
    """RAS or LPS, as comments and names of columns say; RAS where they do not."""
    said = {word for comment in comments for word in re.findall(r"\b(RAS|LPS|IJK)\b", comment.upper())}
    said |= {value for comment in comments for value in re.findall(r"(?i)^coordinate ?system\s*[=:]\s*(\w+)", comment)}
    said = {{"0": "RAS", "1": "LPS", "2": "IJK"}.get(word, word.upper()) for word in said} | ({by_names} - {""})
    units = {unit for comment in comments for unit in re.findall(r"(?i)^units?\s*[=:]\s*(\w+)", comment)}
    if any(unit.lower() not in ("mm", "millimetre", "millimetres", "millimeter", "millimeters") for unit in units):
        raise InputError(f"expected landmarks in mm; got {', '.join(sorted(units))}")
    if len(said) > 1:
        raise InputError(
            f"expected one coordinate system; got {' and '.join(sorted(said))}: say it once, '# CoordinateSystem = RAS'"
        )
    return said.pop() if said else "RAS"


def from_tag(text: str, *, volumes: int) -> list[Landmarks]:
    """One set per volume of an MNI tag point file."""
    lines = [line.strip() for line in text.splitlines()]
    body = "\n".join(line for line in lines if line and line[0] not in "%#")
    head = re.match(r"MNI Tag Point File\s+Volumes\s*=\s*(\d)\s*;\s*Points\s*=(.*)", body, re.DOTALL | re.IGNORECASE)
    if head is None:
        raise InputError("expected an MNI tag point file; got something else")
    if int(head[1]) != volumes:
        raise InputError(f"expected tags of {volumes} volume(s); got {head[1]}")
    if not head[2].strip().endswith(";"):
        raise InputError("expected a complete tag point file; got one that does not end with ';'")
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
