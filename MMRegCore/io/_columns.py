"""What the columns of a table of landmarks hold, told by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from MMRegCore.errors import InputError

# Which image a column belongs to.  'source' and 'target' are left out: tools disagree about which is which.
_SIDES = {
    **dict.fromkeys(("mr", "mri", "moving", "t1", "t1c", "t2", "flair", "preop", "preoperative"), "moving"),
    **dict.fromkeys(("us", "ius", "ultrasound", "fixed", "intraop", "intraoperative"), "fixed"),
}
# The third axis is the same in both systems.
_AXES = {**dict.fromkeys("xyzs", ""), **dict.fromkeys("ra", "RAS"), **dict.fromkeys("lp", "LPS")}
_ORDER = {"x": 0, "y": 1, "z": 2, "r": 0, "l": 0, "a": 1, "p": 1, "s": 2}
_SPACES = {"ras": "RAS", "lps": "LPS"}
_LABELS = ("label", "name", "id", "landmark", "point", "index", "")
_NO_MM = ("cm", "m", "um", "voxel", "voxels", "vox", "px", "pixel", "pixels", "ijk", "ratio", "percent")


@dataclass(frozen=True)
class Columns:
    """Where the numbers of one landmark stand.

    Attributes
    ----------
    sides : dict
        'moving', 'fixed' or '' (a list of one image) to the columns of its three coordinates.
    system : str
        'RAS', 'LPS', or empty where the names do not say it.
    label, defined : int or None
        The columns of the label, and of whether the landmark is placed.
    """

    sides: dict[str, list[int]]
    system: str
    label: int | None
    defined: int | None


def columns_by_name(names: Sequence[str]) -> Columns:
    """Read the names of all columns.

    Raises
    ------
    InputError
        When a coordinate is missing or there twice, or is not in mm.
    """
    found: dict[str, dict[int, int]] = {}
    systems: set[str] = set()
    for place, name in enumerate(names):
        side, axis, system = _meaning(name)
        if not axis:
            continue
        if _ORDER[axis] in found.setdefault(side, {}):
            raise InputError(f"expected every coordinate once; got '{','.join(names)}'")
        found[side][_ORDER[axis]] = place
        systems.add(system)
    sides = {side: [places[axis] for axis in range(3)] for side, places in found.items() if len(places) == 3}
    if not sides or len(sides) < len(found):
        raise InputError(f"expected columns x, y and z, or mr_x, …, us_z; got '{','.join(names)}'")
    if len(systems - {""}) > 1:
        raise InputError(f"expected all columns in RAS or all in LPS; got '{','.join(names)}'")
    return Columns(sides, "".join(systems), _first(names, _LABELS), _first(names, ("defined",)))


def are_names(cells: Sequence[str]) -> bool:
    """Whether cells look like the names of three coordinates at least."""
    return sum(any(word in _ORDER for word in _words(cell)) for cell in cells) >= 3


def _first(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    lower = [name.lower() for name in names]
    return next((lower.index(name) for name in wanted if name in lower), None)


def _meaning(name: str) -> tuple[str, str, str]:
    """The image, the axis and the coordinate system that a name tells; an empty axis for another column."""
    words = _words(name)
    axes = [word for word in words if word in _ORDER]
    if len(axes) != 1:
        return "", "", ""
    if any(word in _NO_MM for word in words):
        raise InputError(f"expected landmarks in mm; got the column '{name}'")
    rest = [word for word in words if word not in _ORDER and word not in _SPACES and word != "mm"]
    sides = {_SIDES.get(word, "?") for word in rest if word not in ("coordinate", "coord", "pos", "position", "point")}
    if len(sides) > 1 or "?" in sides:
        raise InputError(f"expected the image of a column as mr or us (moving or fixed); got '{name}'")
    system = next((_SPACES[word] for word in words if word in _SPACES), _AXES[axes[0]])
    return next(iter(sides), ""), axes[0], system


def _words(name: str) -> list[str]:
    """The words of a name in lower case: ``mr_x``, ``X (MR)``, ``movingX`` and ``usx`` alike."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*[a-z]?|[A-Z]+\d*|\d+", name)]
    split = []
    for word in words:
        stem = word[:-1]
        split += [stem, word[-1]] if stem in _SIDES and word[-1] in _ORDER and word not in _SIDES else [word]
    return split
