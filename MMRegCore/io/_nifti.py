"""Checks of NIfTI-1 and Analyze files that ITK does not make.

ITK reads a file that is cut off as if it were whole, takes 1 mm where a spacing is zero or not a number, takes one of
two matrices that contradict each other, and reads what is not finite as 0.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import SimpleITK as sitk

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.io._header import Header

_HEADER_BYTES = 348
_HEADER_2_BYTES = 540
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_CODES = {0: "unknown", 1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 1e-3}
_FLOATS = {16: "f4", 64: "f8"}
# Fields of these tools hold where a point goes, not how far.
_POSITIONS = ("mapping", "nreg_trans", "nreg_def", "deformation")
# Matrices may differ by so much of a voxel: they are stored with different precision.
_ROUNDING_VOXEL = 0.05


class _Raw(NamedTuple):
    order: str
    magic: bytes
    dim: tuple[int, ...]
    datatype: int
    bits: int
    pixdim: tuple[float, ...]
    offset: float
    units: int
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    sform: tuple[float, ...]
    intent_name: str

    @property
    def voxels(self) -> int:
        return math.prod(max(n, 1) for n in self.dim[1 : 1 + min(max(self.dim[0], 0), 7)])

    @property
    def size_bytes(self) -> int:
        """Of a file that holds header and voxels, unpacked."""
        offset = self.offset if math.isfinite(self.offset) and 0 <= self.offset < 2**40 else 0
        return int(offset) + self.voxels * max(self.bits, 0) // 8

    @property
    def is_pair(self) -> bool:
        """Whether the voxels are in another file (.hdr and .img)."""
        return self.magic != b"n+1"


def read_header(path: Path, *, is_field: bool = False) -> Header | None:
    """Check the header of a NIfTI-1 or Analyze file; None for another file.

    Raises
    ------
    InputError
        For NIfTI-2, and for a field that holds positions instead of displacements.
    GeometryError
        Where the spacing is not positive, or contradicts the only matrix.
    """
    if _is_nifti_2(path):
        raise InputError(
            f"expected NIfTI-1; got {path}, which is NIfTI-2: convert it, for instance with "
            "nibabel: Nifti1Image.from_image(nibabel.load(FILE)).to_filename(…)"
        )
    raw = _read_raw(path)
    if raw is None:
        return None
    _check_spacing(raw, path)
    if is_field and raw.intent_name.lower().startswith(_POSITIONS):
        raise InputError(
            f"expected displacements; got {path}, a field of positions ({raw.intent_name}, of NiftyReg or SPM): "
            "convert it to displacements in LPS first"
        )
    if is_field and raw.units and _MM_PER_UNIT.get(raw.units & 7, 1.0) != 1:
        raise GeometryError(f"expected a displacement field in mm; got another unit in {path}")
    if raw.magic not in (b"n+1", b"ni1"):
        note = "an Analyze file does not say how its axes lie in the patient: they were taken as ITK takes them"
        return Header("Analyze", "assumed", "stated", "assumed", warnings=(note,))
    places = [name for name, code in (("sform", raw.sform_code), ("qform", raw.qform_code)) if code > 0]
    space = ", ".join(f"{name} ({_code(raw, name)})" for name in places) or "none"
    if raw.units & 7 not in _MM_PER_UNIT:
        space += ", mm assumed"
    return Header("NIfTI-1", space, "stated", "stated" if places else "assumed")


def disagreement(path: Path, image: sitk.Image) -> list[str]:
    """A word about qform and sform where they contradict each other, with the one that ``image`` was read by."""
    raw = _read_raw(path)
    if raw is None or raw.qform_code <= 0 or raw.sform_code <= 0 or raw.magic not in (b"n+1", b"ni1"):
        return []
    if not np.isfinite([*raw.sform, *raw.quaternion]).all():
        raise GeometryError(f"expected finite matrices; got NaN or infinity in {path}")
    grid = Grid.from_itk(image)
    last = np.array(grid.itk_size, dtype=np.float64) - 1
    corners = last * np.array([[(n >> axis) & 1 for axis in range(3)] for n in range(8)])
    by_sform, by_qform = (transform_points(matrix, corners) for matrix in (_sform(raw), _qform(raw)))
    apart = float(np.linalg.norm(by_sform - by_qform, axis=1).max())
    if apart <= _ROUNDING_VOXEL * float(grid.spacing_mm.min()):
        return []
    taken = transform_points(grid.ras_from_ijk, corners)
    name = "sform" if np.abs(taken - by_sform).max() <= np.abs(taken - by_qform).max() else "qform"
    words = [f"qform ({_code(raw, 'qform')})", f"sform ({_code(raw, 'sform')})"]
    return [f"{words[0]} and {words[1]} place its voxels up to {apart:.3g} mm apart; the {name} was taken"]


def is_complete(path: Path) -> bool:
    """Whether the file holds all the voxels that its header promises; True for what is not NIfTI-1."""
    raw = _read_raw(path)
    if raw is None:
        return True
    size = raw.size_bytes
    if raw.is_pair:
        path = _voxel_file(path)
    if not path.is_file():
        return False
    if not _is_gzip(path):
        return path.stat().st_size >= size
    with path.open("rb") as file:
        file.seek(-4, 2)
        (last_member_bytes,) = struct.unpack("<I", file.read(4))
    # Files of several gzip members, or with more behind the voxels, can be told only by reading them.
    return bool(last_member_bytes == size % 2**32 and size < 2**32) or _holds(path, size)


def with_not_finite(path: Path, image: sitk.Image) -> sitk.Image:
    """The image with NaN where the file holds NaN or infinity, which ITK reads as 0."""
    raw = _read_raw(path)
    if raw is None or raw.datatype not in _FLOATS:
        return image
    places = np.concatenate([np.empty(0, dtype=np.int64), *_not_finite(path, raw)])
    array = sitk.GetArrayFromImage(image)
    if len(places) == 0 or array.size != raw.voxels or image.GetNumberOfComponentsPerPixel() != 1:
        return image
    array.reshape(-1)[places] = np.nan
    marked = sitk.GetImageFromArray(array)
    marked.CopyInformation(image)
    return marked


def _check_spacing(raw: _Raw, path: Path) -> None:
    spacing = raw.pixdim[1:4]
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        raise GeometryError(f"expected three positive spacings in mm; got {spacing} in {path}")
    if raw.sform_code > 0 and raw.qform_code <= 0 and raw.magic in (b"n+1", b"ni1"):
        lengths = np.linalg.norm(np.reshape(raw.sform, (3, 4))[:, :3], axis=0)
        if not np.allclose(lengths, spacing, rtol=1e-2):
            raise GeometryError(
                f"expected the spacing {_rounded(spacing)} in {path} to agree with its matrix (sform); "
                f"got {_rounded(lengths)} there"
            )


def _code(raw: _Raw, name: str) -> str:
    return _CODES.get(raw.sform_code if name == "sform" else raw.qform_code, "other")


def _sform(raw: _Raw) -> Array:
    return _affine(np.reshape(raw.sform, (3, 4)).astype(np.float64), raw)


def _qform(raw: _Raw) -> Array:
    b, c, d, *place = raw.quaternion
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    side = -1.0 if raw.pixdim[0] < 0 else 1.0
    matrix = np.column_stack([rotation * [raw.pixdim[1], raw.pixdim[2], side * raw.pixdim[3]], place])
    return _affine(matrix, raw)


def _affine(rows: Array, raw: _Raw) -> Array:
    """(4, 4), RAS mm, of three rows in the file's unit."""
    return cast(Array, np.vstack([rows * _MM_PER_UNIT.get(raw.units & 7, 1.0), [0, 0, 0, 1]]))


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if _is_gzip(path) else path.open("rb")


def _start(path: Path, count: int) -> bytes:
    try:
        with _opened(path) as file:
            return file.read(count)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti_2(path: Path) -> bool:
    start = _start(path, 8)
    sizes = {struct.unpack_from(f"{order}i", start, 0)[0] for order in "<>"} if len(start) == 8 else set()
    return _HEADER_2_BYTES in sizes and start[4:7] in (b"n+2", b"ni2")


def _read_raw(path: Path) -> _Raw | None:
    raw = _start(path, _HEADER_BYTES)
    if len(raw) < _HEADER_BYTES:
        return None
    little = struct.unpack_from("<i", raw, 0)[0] == _HEADER_BYTES
    magic = raw[344:347]
    if magic not in (b"n+1", b"ni1") and not (_is_analyze(raw) and path.suffix.lower() in (".hdr", ".img")):
        return None
    order = "<" if little else ">"
    return _Raw(
        order,
        magic,
        struct.unpack_from(f"{order}8h", raw, 40),
        *_two(order, raw, 70),
        struct.unpack_from(f"{order}8f", raw, 76),
        float(struct.unpack_from(f"{order}f", raw, 108)[0]),
        raw[123],
        *_two(order, raw, 252),
        struct.unpack_from(f"{order}6f", raw, 256),
        struct.unpack_from(f"{order}12f", raw, 280),
        raw[328:344].split(b"\0")[0].decode("latin-1"),
    )


def _two(order: str, raw: bytes, place: int) -> tuple[int, int]:
    first, second = struct.unpack_from(f"{order}2h", raw, place)
    return int(first), int(second)


def _is_analyze(raw: bytes) -> bool:
    return any(struct.unpack_from(f"{order}i", raw, 0)[0] == _HEADER_BYTES for order in "<>")


def _voxel_file(path: Path) -> Path:
    """The file of a pair that holds the voxels."""
    whole = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    stem = path.with_name(whole).with_suffix("")
    names = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".img", ".img.gz", ".IMG")]
    return next((name for name in names if name.is_file()), names[0])


def _holds(path: Path, count: int) -> bool:
    """Whether a packed file holds so many bytes; what comes after them is not unpacked."""
    found = 0
    try:
        with gzip.open(path, "rb") as file:
            while found < count and (chunk := file.read(_CHUNK_BYTES)):
                found += len(chunk)
    except (OSError, EOFError, zlib.error):
        return False
    return found >= count


def _not_finite(path: Path, raw: _Raw) -> Iterator[np.ndarray[Any, Any]]:
    """The places of voxels that are NaN or infinite, chunk by chunk."""
    kind = np.dtype(raw.order + _FLOATS[raw.datatype])
    left, first = raw.voxels * kind.itemsize, 0
    with _opened(_voxel_file(path) if raw.is_pair else path) as file:
        file.seek(raw.size_bytes - left)
        while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
            values = np.frombuffer(chunk[: len(chunk) // kind.itemsize * kind.itemsize], dtype=kind)
            yield np.flatnonzero(~np.isfinite(values)) + first
            left, first = left - len(chunk), first + len(values)


def _rounded(values: object) -> list[float]:
    return [round(float(value), 4) for value in np.asarray(values)]
