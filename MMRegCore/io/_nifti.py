"""Checks of NIfTI-1 files that ITK does not make.

ITK reads a file that is cut off as if it were whole, and takes 1 mm where a spacing is zero or not a number.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from MMRegCore.errors import GeometryError

_HEADER_BYTES = 348
_GZIP_MAGIC = b"\x1f\x8b"


class _Header(NamedTuple):
    spacing: tuple[float, ...]
    size_bytes: int
    qform_code: int
    sform_code: int
    sform: tuple[float, ...]


def check_geometry(path: Path) -> None:
    """Raise `GeometryError` where the header's spacing is not positive or contradicts its only matrix."""
    header = _read_header(path)
    if header is None:
        return
    if not all(math.isfinite(value) and value > 0 for value in header.spacing):
        raise GeometryError(f"expected three positive spacings in mm; got {header.spacing} in {path}")
    if header.sform_code > 0 and header.qform_code <= 0:
        lengths = np.linalg.norm(np.reshape(header.sform, (3, 4))[:, :3], axis=0)
        if not np.allclose(lengths, header.spacing, rtol=1e-2):
            raise GeometryError(
                f"expected the spacing {_rounded(header.spacing)} in {path} to agree with its matrix (sform); "
                f"got {_rounded(lengths)} there"
            )


def is_complete(path: Path) -> bool:
    """Whether the file holds all the voxels that its header promises; True for what is not NIfTI-1."""
    header = _read_header(path)
    if header is None:
        return True
    if not _is_gzip(path):
        return path.stat().st_size >= header.size_bytes
    with path.open("rb") as file:
        file.seek(-4, 2)
        (last_member_bytes,) = struct.unpack("<I", file.read(4))
    # Files of several gzip members, or with more behind the voxels, can be told only by reading all of them.
    return bool(last_member_bytes == header.size_bytes % 2**32) or _unpacked_bytes(path) >= header.size_bytes


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _read_header(path: Path) -> _Header | None:
    try:
        with gzip.open(path, "rb") if _is_gzip(path) else path.open("rb") as file:
            raw = file.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return None
    if len(raw) < _HEADER_BYTES or raw[344:347] not in (b"n+1", b"ni1"):
        return None
    order = "<" if struct.unpack_from("<i", raw, 0)[0] == _HEADER_BYTES else ">"
    dim = struct.unpack_from(f"{order}8h", raw, 40)
    (bits,) = struct.unpack_from(f"{order}h", raw, 72)
    pixdim = struct.unpack_from(f"{order}8f", raw, 76)
    (offset,) = struct.unpack_from(f"{order}f", raw, 108)
    qform_code, sform_code = struct.unpack_from(f"{order}2h", raw, 252)
    voxels = math.prod(max(n, 1) for n in dim[1 : 1 + max(dim[0], 0)])
    # In a pair (.hdr, .img) the voxels are not in this file.
    size_bytes = int(offset) + voxels * bits // 8 if raw[344:347] == b"n+1" else 0
    sform = struct.unpack_from(f"{order}12f", raw, 280)
    return _Header(pixdim[1:4], size_bytes, qform_code, sform_code, sform)


def _unpacked_bytes(path: Path) -> int:
    count = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                count += len(chunk)
    except (OSError, EOFError, zlib.error):
        return 0
    return count


def _rounded(values: object) -> list[float]:
    return [round(float(value), 4) for value in np.asarray(values)]
