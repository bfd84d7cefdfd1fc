"""ITK's own transform files: .h5, .tfm, .txt and .mat, read whole or not at all.

ITK reads files that are cut off without a word, takes the first of several transforms, and makes the identity of
parameters without fixed parameters; SimpleITK has no class for many linear transforms.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from SimpleITK import _SimpleITK as unwrapped  # type: ignore[attr-defined]

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array
from MMRegCore.io._itk import ITK_ERRORS, last_line, quiet_itk
from MMRegCore.io.files import itk_name, suffix_of
from MMRegCore.transform import as_affine, simple_parts

_HDF5_SUFFIXES = (".h5", ".hdf5")
_TRIAL = """
import sys
from SimpleITK import _SimpleITK
try:
    _SimpleITK.ReadTransform(sys.argv[1])
except (RuntimeError, UnicodeDecodeError) as error:
    print(error)
    sys.exit(3)
"""
TEXT_SUFFIXES = (".tfm", ".txt")
_COMPOSITE = "CompositeTransform"
_NAME = re.compile(rb"([A-Za-z0-9]+)_(?:double|float)_(\d+_\d+)")
# Rows, columns, imaginary part and length of the name come after the type in a record of a MATLAB 4 file.
_MAT_RECORD = struct.Struct("<5i")
_MAT_TYPES = {0: "<f8", 10: "<f4"}
_PARAMETERS = {
    "AffineTransform": 12,
    "CenteredAffineTransform": 15,
    "CenteredEuler3DTransform": 9,
    "ComposeScaleSkewVersor3DTransform": 12,
    "Euler3DTransform": 6,
    "FixedCenterOfRotationAffineTransform": 12,
    "IdentityTransform": 0,
    "MatrixOffsetTransformBase": 12,
    "QuaternionRigidTransform": 7,
    "Rigid3DTransform": 12,
    "ScalableAffineTransform": 12,
    "ScaleLogarithmicTransform": 3,
    "ScaleSkewVersor3DTransform": 15,
    "ScaleTransform": 3,
    "ScaleVersor3DTransform": 9,
    "Similarity3DTransform": 7,
    "TranslationTransform": 3,
    "VersorRigid3DTransform": 6,
    "VersorTransform": 3,
}
# Types whose fixed parameters begin with the size of a grid of three numbers a point, and how many of them there are.
_GRIDS = {"BSplineTransform": 18, "DisplacementFieldTransform": 18}
_LONGEST_NAME = 200


@dataclass
class _Section:
    """One transform of a file: its type, its numbers."""

    kind: str
    parameters: Array = field(default_factory=lambda: np.empty(0))
    fixed: Array = field(default_factory=lambda: np.empty(0))
    seen: set[str] = field(default_factory=set)

    def take(self, key: str, numbers: Array) -> bool:
        """Keep the numbers of a line; False where it stands twice."""
        if key in self.seen:
            return False
        self.seen.add(key)
        if key == "Parameters":
            self.parameters = numbers
        else:
            self.fixed = numbers
        return True


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
    _check_names(content, path)
    _check_numbers(content, path)
    if suffix_of(path) in _HDF5_SUFFIXES:
        _try_elsewhere(path)
    with quiet_itk():
        try:
            # The public function downcasts, and fails on what SimpleITK has no class for.
            itk: sitk.Transform = unwrapped.ReadTransform(itk_name(path))
        except ITK_ERRORS as error:
            raise _unreadable(path, error) from error
    if itk.GetDimension() != 3:
        raise InputError(f"expected a 3-D transform; got a {itk.GetDimension()}-D one in {path}")
    parts = list(simple_parts(itk))
    if not _is_whole(content, suffix_of(path), parts):
        raise _incomplete(path)
    known = [_known(part, path) for part in parts]
    return known[0] if len(known) == 1 else sitk.CompositeTransform(known)


def text_is_whole(text: str, parts: list[sitk.Transform]) -> bool:
    """Whether an ITK text file holds all numbers of its transforms, and each once."""
    found = _sections(text)
    return (
        found is not None
        and len(found) == len(parts)
        and all(
            (len(section.parameters), len(section.fixed))
            == (part.GetNumberOfParameters(), len(part.GetFixedParameters()))
            for section, part in zip(found, parts, strict=True)
        )
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


def _try_elsewhere(path: Path) -> None:
    """Read the file in another process: ITK aborts on some damaged ones, without a word; raises `InputError` then."""
    if "python" not in Path(sys.executable or "").name.lower():  # within another program there is none to try it
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", _TRIAL, itk_name(path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 3:  # an exception there could be the end here
        raise _unreadable(path, RuntimeError(done.stdout.strip()))
    if done.returncode not in (0, 1):  # 1: it could not even try
        raise InputError(f"expected an ITK transform file that can be read; got {path}, which is damaged")


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
    found = _NAME.findall(content)
    names = [name.decode() for name, _ in found]
    if len({dimensions for _, dimensions in found}) > 1:
        raise InputError(f"expected transforms of one number of dimensions; got several in {path}")
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
        found = _records(content) or []
        wanted = [(part.GetNumberOfParameters(), len(part.GetFixedParameters())) for part in parts]
        return [(len(each.parameters), len(each.fixed)) for each in found] == wanted
    return True  # HDF5 notices by itself


def _check_numbers(content: bytes, path: Path) -> None:
    """Every transform must have as many numbers as its type needs, all finite: ITK's reader crashes on others."""
    suffix = suffix_of(path)
    if suffix not in (*TEXT_SUFFIXES, ".mat"):
        return
    found = _sections(content.decode(errors="replace")) if suffix in TEXT_SUFFIXES else _records(content)
    if found is None or not all(map(_fits, found)):
        raise _incomplete(path)
    if not all(np.isfinite(numbers).all() for section in found for numbers in (section.parameters, section.fixed)):
        raise GeometryError(f"expected finite values in the transform; got NaN or infinity in {path}")


def _fits(section: _Section) -> bool:
    count, fixed = len(section.parameters), section.fixed
    if section.kind in _GRIDS:
        sizes = fixed[:3]
        return len(fixed) == _GRIDS[section.kind] and min(sizes) >= 1 and count == 3 * np.prod(sizes)
    fixed_counts = {"TranslationTransform": (0,), "IdentityTransform": (0,)}.get(section.kind, (3, 4))
    return section.kind not in _PARAMETERS or (count == _PARAMETERS[section.kind] and len(fixed) in fixed_counts)


def _sections(text: str) -> list[_Section] | None:
    """The transforms in an ITK text file, composites left out; None where something else stands in it."""
    found: list[_Section] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip()
        if key == "Transform":
            if _COMPOSITE not in value:
                found.append(_Section(value.strip().partition("_")[0]))
        elif key in ("Parameters", "FixedParameters") and found:
            numbers = _numbers(value)
            if numbers is None or not found[-1].take(key, numbers):
                return None
        elif key and key[0] != "#":
            return None
    return found


def _records(content: bytes) -> list[_Section] | None:
    """The transforms in a MATLAB 4 file, a record of parameters and one of fixed parameters each; None for another."""
    found: list[_Section] = []
    place, is_fixed = 0, False
    while place < len(content):
        if place + _MAT_RECORD.size > len(content):
            return None
        kind, rows, columns, imaginary, length = _MAT_RECORD.unpack_from(content, place)
        if kind not in _MAT_TYPES or imaginary or not 0 < length < _LONGEST_NAME or min(rows, columns) < 0:
            return None
        start = place + _MAT_RECORD.size + length
        place = start + rows * columns * np.dtype(_MAT_TYPES[kind]).itemsize
        if place > len(content):
            return None
        numbers = np.frombuffer(content[start:place], dtype=_MAT_TYPES[kind]).astype(np.float64)
        if not is_fixed:
            found.append(_Section(content[start - length : start].decode("latin-1").partition("_")[0]))
        found[-1].take("FixedParameters" if is_fixed else "Parameters", numbers)
        is_fixed = not is_fixed
    return None if is_fixed else found


def _numbers(text: str) -> Array | None:
    """The numbers of a line; None where something else stands between them."""
    try:
        return np.array(text.split(), dtype=np.float64)
    except ValueError:
        return None


def _incomplete(path: Path) -> InputError:
    return InputError(f"expected a complete transform; got {path}, which is cut off or lacks parameters")


def _unreadable(path: Path, error: Exception) -> InputError:
    unknown = re.search(r'instance of "?(\w+?)(_(double|float)\w*)?"?[\s.]', str(error) + " ")
    if unknown is None:
        reason = "none or is damaged" if "determine" in str(error) else f"none or is damaged ({last_line(error)})"
        return InputError(f"expected an ITK transform file that can be read; got {path}, which is {reason}")
    return InputError(
        f"expected a transform of a type that ITK knows; got {unknown[1]} in {path}; in Slicer's module Transforms, "
        "convert it to a displacement grid and save that"
    )
