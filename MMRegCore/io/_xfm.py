"""MINC's transform files (.xfm): linear ones, in world coordinates, which are RAS mm."""

from __future__ import annotations

import re
from typing import cast

import numpy as np

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, check_affine

MAGIC = "MNI Transform File"
_NUMBERS = 12


def matrix_from_xfm(text: str) -> Array:
    """The map of a MINC transform file, (4, 4), RAS mm; several transforms apply in the order of the file.

    Raises
    ------
    InputError
        When it holds another transform than a linear one, or not all of its numbers.
    """
    if "%ITK-XFM" in text:
        raise InputError(
            "expected a transform written by MINC; got one written by ITK, whose versions disagree about its "
            "space: save it as .h5 or .tfm"
        )
    body = "\n".join(line.partition("%")[0] for line in text.splitlines()[1:])
    matrix = np.eye(4)
    for block in re.split(r"(?=Transform_Type)", body)[1:]:
        matrix = _linear(block) @ matrix
    if "Transform_Type" not in body:
        raise InputError("expected a MINC transform with a Transform_Type; got none")
    return matrix


def _linear(block: str) -> Array:
    fields = dict(re.findall(r"(\w+)\s*=\s*([^=;]*);", block))
    kind = fields.pop("Transform_Type", "").strip()
    if kind != "Linear":
        raise InputError(
            f"expected a MINC transform of the type Linear; got {kind or 'none'}: apply it with MINC's mincresample, "
            "or give its linear part alone"
        )
    inverted = fields.pop("Invert_Flag", "False").strip().lower() == "true"
    numbers = fields.pop("Linear_Transform", "").split()
    if fields or len(numbers) != _NUMBERS:
        raise InputError(
            f"expected a MINC transform of {_NUMBERS} numbers; got {len(numbers)} {' '.join(fields)}".rstrip()
        )
    try:
        values = [float(number) for number in numbers]
    except ValueError as error:
        raise InputError(f"expected numbers in a MINC transform; got '{' '.join(numbers)}'") from error
    matrix = np.eye(4)
    matrix[:3] = np.reshape(values, (3, 4))
    check_affine(matrix, "the linear part of a MINC transform")
    return cast(Array, np.linalg.inv(matrix)) if inverted else matrix
