"""Landmarks: Slicer markups (.fcsv, .mrk.json), MNI tags (.tag) and plain tables (.csv)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from MMRegCore.errors import InputError
from MMRegCore.io._markups import (
    from_fcsv,
    from_mrk_json,
    is_placed,
    is_vector,
    markups_in,
    system_of,
    to_fcsv,
    to_mrk_json,
)
from MMRegCore.io._points import Landmarks
from MMRegCore.io._tables import from_csv, from_tag, pairs_from_csv, to_csv, to_tag
from MMRegCore.io.files import PathLike, atomic_path, check_readable, suffix_of

LANDMARK_SUFFIXES = (".mrk.json", ".fcsv", ".csv", ".tag")

__all__ = [
    "LANDMARK_SUFFIXES",
    "Landmarks",
    "is_placed",
    "is_vector",
    "read_landmark_pairs",
    "read_landmarks",
    "read_markups",
    "system_of",
    "write_landmarks",
    "write_markups",
]


def read_landmarks(path: PathLike) -> Landmarks:
    """Read landmarks.

    Parameters
    ----------
    path : path
        ``.mrk.json`` or ``.fcsv`` (the coordinate system in the file is honoured); ``.csv`` with x, y, z in RAS mm,
        where a header, lines that start with ``#`` and a label column are optional; ``.tag`` of one volume (MNI
        world coordinates, which are RAS mm).

    Raises
    ------
    InputError
        When the file is missing or unreadable, holds no landmark, or one that is not placed.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in LANDMARK_SUFFIXES:
        raise InputError(f"expected a landmark file that ends in one of {', '.join(LANDMARK_SUFFIXES)}; got {path}")
    text = _text(path)
    try:
        if suffix == ".mrk.json":
            found = from_mrk_json(text)
        elif suffix == ".fcsv":
            found = from_fcsv(text)
        elif suffix == ".csv":
            found = from_csv(text)
        else:
            found = from_tag(text, volumes=1)[0]
    except InputError as error:
        raise InputError(f"{error} in {path}") from error
    return _not_empty(found, path)


def read_landmark_pairs(path: PathLike) -> tuple[Landmarks, Landmarks]:
    """Read corresponding landmarks from one file.

    Parameters
    ----------
    path : path
        ``.csv`` with the six columns mr_x, mr_y, mr_z, us_x, us_y, us_z in RAS mm (moving first, fixed last; a
        header that names them may reverse that), or ``.tag`` of two volumes: the first is the moving image (MR),
        the second the fixed one (ultrasound), the order of RESECT's files.

    Returns
    -------
    fixed, moving : Landmarks

    Raises
    ------
    InputError
        When the file is missing or unreadable, or does not hold pairs.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in (".csv", ".tag"):
        raise InputError(f"expected a file of landmark pairs that ends in .csv or .tag; got {path}")
    text = _text(path)
    try:
        moving, fixed = pairs_from_csv(text) if suffix == ".csv" else from_tag(text, volumes=2)
    except InputError as error:
        raise InputError(f"{error} in {path}") from error
    return _not_empty(fixed, path), moving


def write_landmarks(landmarks: Landmarks, path: PathLike) -> None:
    """Write landmarks as ``.mrk.json``, ``.fcsv``, ``.csv`` or ``.tag``; the file appears complete or not at all.

    Raises
    ------
    InputError
        When the format is not known or the file cannot be written.
    """
    makers = {".mrk.json": to_mrk_json, ".fcsv": to_fcsv, ".csv": to_csv, ".tag": to_tag}
    suffix = suffix_of(path)
    if suffix not in makers:
        known = ", ".join(LANDMARK_SUFFIXES)
        raise InputError(f"expected a landmark file name that ends in one of {known}; got {path}")
    text = makers[suffix](landmarks)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_markups(path: PathLike) -> dict[str, Any]:
    """Read the content of a ``.mrk.json`` file of markups of any type, as it stands.

    Raises
    ------
    InputError
        When the file is missing or unreadable, or is not in mm.
    """
    path = Path(path)
    text = _text(path)
    try:
        return markups_in(text)
    except InputError as error:
        raise InputError(f"{error} in {path}") from error


def write_markups(content: dict[str, Any], path: PathLike) -> None:
    """Write what `read_markups` gives; the file appears complete or not at all.

    Raises
    ------
    InputError
        When its name does not end in ``.mrk.json`` or the file cannot be written.
    """
    if suffix_of(path) != ".mrk.json":
        raise InputError(f"expected a file name for markups that ends in .mrk.json; got {path}")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _text(path: Path) -> str:
    check_readable(path, "a landmark file")
    try:
        # Spreadsheets put a byte order mark in front.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected a text file of landmarks; got {path}, which is not text") from error


def _not_empty(landmarks: Landmarks, path: Path) -> Landmarks:
    if len(landmarks) == 0:
        raise InputError(f"expected at least one landmark; got none in {path}")
    return landmarks
