"""ITK's own transform files: .h5, .tfm, .txt and .mat, read whole or not at all.

ITK reads files that are cut off without a word, takes the first of several transforms, and makes the identity of
parameters without fixed parameters; SimpleITK has no class for many linear transforms.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from SimpleITK import _SimpleITK as unwrapped  # type: ignore[attr-defined]

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io._itk import last_line, quiet_itk
from MMRegCore.io.files import itk_name, suffix_of
from MMRegCore.transform import as_affine, simple_parts

TEXT_SUFFIXES = (".tfm", ".txt")
_COMPOSITE = "CompositeTransform"
_NAME = re.compile(rb"([A-Za-z0-9]+)_(?:double|float)_\d+_\d+")
# Rows, columns, imaginary part and length of the name come after the type in a record of a MATLAB 4 file.
_MAT_RECORD = struct.Struct("<5i")
_MAT_BYTES = {0: 8, 10: 4}
_LONGEST_NAME = 200


def read_itk_transform(path: Path) -> sitk.Transform:
    """Read an ITK transform file: a linear part, a B-spline, a displacement field, or a composite of them.

    Raises
    ------
    InputError
        When it cannot be read, is not 3-D, is cut off, holds several transforms without a composite, or a transform
        of another kind, which is named.
    GeometryError
        When it holds values that are not finite or a linear part that cannot be inverted.
    """
    content = path.read_bytes()
    with quiet_itk():
        try:
            # The public function downcasts, and fails on what SimpleITK has no class for.
            itk: sitk.Transform = unwrapped.ReadTransform(itk_name(path))
        except RuntimeError as error:
            raise _unreadable(path, error) from error
    if itk.GetDimension() != 3:
        raise InputError(f"expected a 3-D transform; got a {itk.GetDimension()}-D one in {path}")
    parts = list(simple_parts(itk))
    _check_names(content, path)
    if not _is_whole(content, suffix_of(path), parts):
        raise InputError(f"expected a complete transform; got {path}, which is cut off or lacks parameters")
    known = [_known(part, path) for part in parts]
    return known[0] if len(known) == 1 else sitk.CompositeTransform(known)


def text_is_whole(text: str, parts: list[sitk.Transform]) -> bool:
    """Whether an ITK text file holds all numbers of its transforms, and each once."""
    found: list[dict[str, int]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip()
        if key == "Transform" and _COMPOSITE not in value:
            found.append({})
        elif key in ("Parameters", "FixedParameters") and found:
            if key in found[-1]:
                return False
            found[-1][key] = _count_of_numbers(value)
        elif key and key != "Transform" and key[0] != "#":
            return False
    return len(found) == len(parts) and all(
        numbers == {"Parameters": part.GetNumberOfParameters(), "FixedParameters": len(part.GetFixedParameters())}
        for numbers, part in zip(found, parts, strict=True)
    )


def check_finite(itk: sitk.Transform, path: Path) -> None:
    """Raise `GeometryError` where a displacement field, a B-spline or a linear transform holds NaN or infinity."""
    # Copies: a view would outlive the image that it looks into.
    if isinstance(itk, sitk.DisplacementFieldTransform):
        arrays = [sitk.GetArrayFromImage(itk.GetDisplacementField())]
    elif isinstance(itk, sitk.BSplineTransform):
        arrays = [sitk.GetArrayFromImage(image) for image in itk.GetCoefficientImages()]
    else:
        arrays = [np.asarray(itk.GetParameters() + itk.GetFixedParameters())]
    if not all(np.isfinite(array).all() for array in arrays):
        raise GeometryError(f"expected finite values in the transform; got NaN or infinity in {path}")


def _known(part: sitk.Transform, path: Path) -> sitk.Transform:
    """A part as one of the kinds that can be checked, composed and written."""
    kinds: dict[int, Callable[[sitk.Transform], sitk.Transform]] = {
        sitk.sitkBSplineTransform: sitk.BSplineTransform,
        sitk.sitkDisplacementField: sitk.DisplacementFieldTransform,
    }
    kind = kinds.get(part.GetTransformEnum())
    if kind is None and not part.IsLinear():
        raise InputError(
            f"expected linear transforms, B-splines and displacement fields; got {_name_of(part)} in {path}: "
            "convert it to a displacement field first"
        )
    known = part if kind is None else kind(part)
    check_finite(known, path)
    if kind is not None:
        return known
    try:
        return as_affine(part)
    except GeometryError as error:
        raise GeometryError(
            f"expected the linear part of {path} to be invertible; got {part.GetParameters()}"
        ) from error


def _name_of(part: sitk.Transform) -> str:
    found = re.findall(r"RTTI typeinfo:\s+itk::(\w+)", str(part))
    return str(found[-1]) if found else "a transform of another kind"


def _check_names(content: bytes, path: Path) -> None:
    """Several transforms in one file have no order unless a composite gives them one."""
    names = [name.decode() for name in _NAME.findall(content)]
    if len(names) > 1 and _COMPOSITE not in names:
        raise InputError(
            f"expected one transform, or one CompositeTransform that says in which order several apply; got "
            f"{len(names)} in {path} ({', '.join(names[:4])}): write them as one composite"
        )
    if names == [_COMPOSITE]:
        raise InputError(f"expected a composite that holds transforms; got an empty one in {path}")


def _is_whole(content: bytes, suffix: str, parts: list[sitk.Transform]) -> bool:
    if suffix in TEXT_SUFFIXES:
        return text_is_whole(content.decode(errors="replace"), parts)
    if suffix == ".mat":
        return _mat_is_whole(content, parts)
    return True  # HDF5 notices by itself


def _mat_is_whole(content: bytes, parts: list[sitk.Transform]) -> bool:
    """Whether a MATLAB 4 file consists of complete records, two for each transform: parameters, fixed parameters."""
    counts, place = [], 0
    while place + _MAT_RECORD.size <= len(content):
        kind, rows, columns, imaginary, length = _MAT_RECORD.unpack_from(content, place)
        if kind not in _MAT_BYTES or imaginary or not 0 < length < _LONGEST_NAME or min(rows, columns) < 0:
            return False
        counts.append(rows * columns)
        place += _MAT_RECORD.size + length + rows * columns * _MAT_BYTES[kind]
    wanted = [n for part in parts for n in (part.GetNumberOfParameters(), len(part.GetFixedParameters()))]
    return place == len(content) and counts == wanted


def _count_of_numbers(text: str) -> int:
    """How many numbers; -1 where something else stands between them."""
    cells = text.split()
    try:
        return len(np.array(cells, dtype=np.float64)) if cells else 0
    except ValueError:
        return -1


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    unknown = re.search(r'instance of "?(\w+?)(_(double|float)\w*)?"?[\s.]', str(error) + " ")
    if unknown is None:
        reason = "none or is damaged" if "determine" in str(error) else f"none or is damaged ({last_line(error)})"
        return InputError(f"expected an ITK transform file that can be read; got {path}, which is {reason}")
    return InputError(
        f"expected a transform of a type that ITK knows; got {unknown[1]} in {path}; in Slicer's module Transforms, "
        "convert it to a displacement grid and save that"
    )
