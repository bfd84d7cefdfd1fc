"""Headers of MetaImages (.mha, .mhd): what ITK passes over in them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array
from MMRegCore.io._header import Header, check_data_file, mm_per, tracked_frames

_LONGEST_HEADER = 1 << 22
_LONGEST_VALUE = 1000
_END = re.compile(rb"(?:^|\n)ElementDataFile[ \t]*=[ \t]*([^\r\n]*)\r?\n?")
_SAME = {
    "origin": ("Offset", "Position", "Origin"),
    "matrix": ("TransformMatrix", "Orientation", "Rotation"),
}
_BYTES = {
    "CHAR": 1,
    "UCHAR": 1,
    "SHORT": 2,
    "USHORT": 2,
    "INT": 4,
    "UINT": 4,
    "LONG": 4,
    "ULONG": 4,
    "LONG_LONG": 8,
    "ULONG_LONG": 8,
    "FLOAT": 4,
    "DOUBLE": 8,
}
# MetaIO's letters name where an axis comes from: identity in LPS is RAI.
_LETTERS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "I": (2, 1), "S": (2, -1)}


def looks_like_meta(start: bytes) -> bool:
    """Whether a file begins as a MetaImage."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def read_header(path: Path) -> Header:
    """Check the header of a MetaImage.

    Raises
    ------
    InputError
        For tracked frames, voxels that lie elsewhere or are cut off.
    GeometryError
        For something that is said twice and differently, or a unit that is not known.
    """
    fields, end = _fields(path)
    if any(name.startswith("Seq_Frame") for name in fields):
        raise tracked_frames(path)
    kinds = fields.get("Kinds", "").split()
    if len(kinds) == 3 and {"list", "time"} & set(kinds):
        raise tracked_frames(path)
    _check_counts(fields, path)
    _check_voxels(fields, end, path)
    origin, matrix = (_once(fields, names, path) for names in _SAME.values())
    factor = mm_per([fields.get("DistanceUnits", "").replace("?", "")], path)
    spacing = "ElementSpacing" in fields or "ElementSize" in fields
    return Header(
        "MetaImage",
        "LPS" if matrix else "LPS, its axes assumed",
        "stated" if spacing else "assumed",
        "stated" if origin else "assumed",
        factor,
        tuple(_doubts(fields, matrix)),
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of the header, and where it ends."""
    with path.open("rb") as file:
        raw = file.read(_LONGEST_HEADER)
    last = _END.search(raw)
    end = last.end() if last else len(raw)
    fields: dict[str, str] = {}
    for line in raw[:end].decode("utf-8", errors="replace").splitlines():
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals:
            continue
        if fields.get(name, value) != value:
            raise GeometryError(f"expected {name} once; got '{fields[name]}' and '{value}' in {path}")
        fields[name] = value
    return fields, end


def _once(fields: dict[str, str], names: tuple[str, ...], path: Path) -> str:
    """The one value of fields that mean the same."""
    given = {" ".join(fields[name].split()) for name in names if name in fields}
    if len(given) > 1:
        raise GeometryError(f"expected one of {', '.join(names)}; got {' and '.join(sorted(given))} in {path}")
    return given.pop() if given else ""


def _doubts(fields: dict[str, str], matrix: str) -> list[str]:
    notes = []
    letters = fields.get("AnatomicalOrientation", "").upper()
    stated = _matrix(matrix)
    if stated is not None and len(letters) == 3 and set(letters) <= set(_LETTERS):
        expected = np.zeros((3, 3))
        for axis, letter in enumerate(letters):
            place, sign = _LETTERS[letter]
            expected[axis, place] = sign
        if not all(expected[axis] @ stated[axis] > 0 for axis in range(3)):
            notes.append(f"its AnatomicalOrientation {letters} contradicts its matrix, which was taken")
    if stated is not None and not np.allclose(stated, np.eye(3)) and _nonzero(fields.get("CenterOfRotation", "")):
        notes.append("it has a CenterOfRotation, which was left out")
    return notes


def _matrix(text: str) -> Array | None:
    """(3, 3), one axis a row; the identity where nothing is given; None for another number of values."""
    values = _numbers(text or "1 0 0 0 1 0 0 0 1")
    return np.reshape(values, (3, 3)) if len(values) == 9 else None


def _nonzero(text: str) -> bool:
    return any(value != 0 for value in _numbers(text))


def _numbers(text: str) -> list[float]:
    try:
        return [float(value) for value in text.split()]
    except ValueError:
        return []


def _check_counts(fields: dict[str, str], path: Path) -> None:
    """ITK's reader crashes on numbers of dimensions and channels out of all proportion, and on long values."""
    dimensions = fields.get("NDims", "")
    if dimensions not in ("2", "3", "4"):
        raise InputError(f"expected a MetaImage of 2 to 4 dimensions; got '{dimensions[:20]}' in {path}")
    sizes, channels = fields.get("DimSize", "").split(), fields.get("ElementNumberOfChannels", "1").split()
    if len(sizes) != int(dimensions) or not all(word.isdecimal() and len(word) < 8 for word in (*sizes, *channels)):
        raise InputError(f"expected a size for each of {dimensions} dimensions; got others in {path}")
    if max(map(len, fields.values())) > _LONGEST_VALUE:
        raise InputError(f"expected a MetaImage header; got a value of more than {_LONGEST_VALUE} characters in {path}")


def _check_voxels(fields: dict[str, str], end: int, path: Path) -> None:
    """ITK returns what there is where uncompressed voxels are cut off behind a HeaderSize."""
    name = fields.get("ElementDataFile", "")
    if not name:
        raise InputError(f"expected a MetaImage that says where its voxels are; got {path} without ElementDataFile")
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(f"expected the voxels of {path} in one file; got a list of files: save it as one .mha")
    local = name.upper() == "LOCAL"
    file = path if local else check_data_file(name, path)
    if not file.is_file():
        raise InputError(f"expected the voxels of {path}; got {name}, which does not exist")
    if fields.get("CompressedData", "False").lower() == "true":
        return
    sizes = _numbers(fields.get("DimSize", ""))
    width = _BYTES.get(fields.get("ElementType", "").replace("MET_", "").replace("_ARRAY", ""), 0)
    channels = max(1.0, (_numbers(fields.get("ElementNumberOfChannels", "")) or [1.0])[0])
    skipped = max(0.0, (_numbers(fields.get("HeaderSize", "")) or [0.0])[0])
    needed = float(np.prod(sizes)) * width * channels + skipped
    if fields.get("BinaryData", "True").lower() == "true" and file.stat().st_size - (end if local else 0) < needed:
        raise InputError(f"expected a complete image; got {path}, which is cut off before its last voxel")
