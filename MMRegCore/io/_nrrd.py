"""Headers of NRRD files (.nrrd, .nhdr): what ITK passes over in them."""

from __future__ import annotations

import re
from pathlib import Path

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io._header import Header, check_data_file, mm_per, tracked_frames

MAGIC = b"NRRD00"
_LONGEST_HEADER = 1 << 22
_LONGEST_FIELD = 1000
_SPACES = {
    "rightanteriorsuperior": "RAS",
    "ras": "RAS",
    "leftanteriorsuperior": "LAS",
    "las": "LAS",
    "leftposteriorsuperior": "LPS",
    "lps": "LPS",
}
_ENCODINGS = {"raw", "txt", "text", "ascii", "hex", "gz", "gzip"}
_SPATIAL_KINDS = {"domain", "space", "none", "???", ""}


def read_header(path: Path) -> Header:
    """Check an NRRD header.

    Raises
    ------
    InputError
        For tracked frames, an axis of time, an encoding that is not read, or voxels that lie elsewhere.
    GeometryError
        For units or a space that are not known.
    """
    fields, keys = _fields(path)
    if any(key.startswith("Seq_Frame") for key in keys):
        raise tracked_frames(path)
    _check_kinds(fields, path)
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in _ENCODINGS:
        raise InputError(
            f"expected an NRRD that is raw or gzip; got {path}, whose encoding is {encoding}: save it anew"
        )
    _check_files(fields, path)
    units = re.findall(r'"([^"]*)"', fields.get("space units", "") + fields.get("units", ""))
    factor = mm_per(units, path)
    if factor != 1 and "vector" in fields.get("kinds", ""):
        raise GeometryError(f"expected a displacement field in mm; got {', '.join(sorted(set(units)))} in {path}")
    return _space(fields, factor, path)


def _fields(path: Path) -> tuple[dict[str, str], list[str]]:
    """The fields of the header in lower case, and the names of its key/value pairs."""
    with path.open("rb") as file:
        raw = file.read(_LONGEST_HEADER)
    head = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)[0].decode("utf-8", errors="replace")
    fields: dict[str, str] = {}
    keys: list[str] = []
    for line in head.splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line:
            keys.append(line.partition(":=")[0])
            continue
        name, _, value = line.partition(":")
        if len(line) > _LONGEST_FIELD:  # ITK's reader crashes on long words
            raise InputError(
                f"expected an NRRD header; got {path}, whose field '{name[:40]}' is {len(line)} characters long"
            )
        fields[name.strip().lower()] = value.strip()
    return fields, keys


def _check_kinds(fields: dict[str, str], path: Path) -> None:
    kinds = [kind.strip('"').lower() for kind in fields.get("kinds", "").split()]
    sizes = fields.get("sizes", "").split()
    other = [kind for kind, size in zip(kinds, sizes, strict=False) if kind not in _SPATIAL_KINDS and size != "1"]
    if len(kinds) == 3 and (set(other) & {"list", "time"}):
        raise tracked_frames(path)
    if "time" in other:
        raise InputError(f"expected a 3-D image; got {path} with an axis of time: give one time point")


def _check_files(fields: dict[str, str], path: Path) -> None:
    name = fields.get("data file", fields.get("datafile", ""))
    if name.upper().startswith("LIST"):
        raise InputError(f"expected the voxels of {path} in one file; got a list of files: save it as one .nrrd")
    if name:
        check_data_file(name.split()[0] if "%" in name else name, path)


def _space(fields: dict[str, str], factor: float, path: Path) -> Header:
    name = fields.get("space", "")
    space = _SPACES.get(re.sub(r"[^a-z]", "", name.lower()), "")
    if name and not space:
        raise GeometryError(f"expected an NRRD in RAS, LAS or LPS; got the space '{name}' in {path}")
    if space != "LPS" and space and "vector" in fields.get("kinds", ""):
        raise GeometryError(f"expected a displacement field in LPS; got {space} in {path}: save it in LPS")
    has_directions, has_origin = "space directions" in fields, "space origin" in fields
    notes = () if space else ("the file does not name its space: it was taken as LPS",)
    if "axis mins" in fields and not has_directions:
        notes = (
            *notes,
            "its place is given by axis mins, which do not say which point of a voxel they mean",
        )
    known = has_origin or ("axis mins" in fields and not has_directions)
    return Header(
        "NRRD",
        space or "LPS, assumed",
        "stated" if has_directions or "spacings" in fields else "assumed",
        "stated" if known else "assumed",
        factor,
        notes if known else (),
    )
