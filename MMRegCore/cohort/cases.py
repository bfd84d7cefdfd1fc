"""The cases of a cohort: from a table, or from the ``dataset.json`` of Learn2Reg."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MMRegCore.errors import InputError
from MMRegCore.io.files import check_readable, stem_of
from MMRegCore.records import read_json

_log = logging.getLogger(__name__)

NO_MASK = "none"
_SINGLE = (
    "fixed_mask",
    "landmarks",
    "fixed_landmarks",
    "moving_landmarks",
    "fixed_labels",
    "moving_labels",
    "initial_transform",
)
_SEVERAL = ("moving", "moving_mask")
_COLUMNS = ("case", "fixed", *_SEVERAL, *_SINGLE)
_LEARN2REG_LANDMARKS = ("landmarks", "keypoints")


@dataclass(frozen=True)
class Case:
    """One registration of a cohort, and what it is scored with.

    Attributes
    ----------
    name : str
        Of its folder.
    fixed : str
        Image file or DICOM folder, as all others are; absolute.
    moving, moving_mask : tuple of str
        The images of one patient space, and their masks in that order, 'none' for one without.
    landmarks : str
        Pairs in one file; or ``fixed_landmarks`` and ``moving_landmarks``.
    landmarks_in_voxels : bool
        Whether the landmarks are indices i, j, k, as Learn2Reg has them.
    displacement : str
        Name of the file that Learn2Reg takes.
    """

    name: str
    fixed: str
    moving: tuple[str, ...]
    moving_mask: tuple[str, ...] = ()
    fixed_mask: str | None = None
    landmarks: str | None = None
    fixed_landmarks: str | None = None
    moving_landmarks: str | None = None
    fixed_labels: str | None = None
    moving_labels: str | None = None
    initial_transform: str | None = None
    landmarks_in_voxels: bool = False
    displacement: str = ""


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read a ``.csv`` with columns by name, or a ``dataset.json`` of Learn2Reg; paths are relative to the file.

    Raises
    ------
    InputError
        When it cannot be read, holds no case, lacks a column, or names a case twice.  Whether images are there is found
        when their case is run: one that is missing does not stop the rest.
    """
    cases = _from_dataset(path) if path.suffix.lower() == ".json" else _from_csv(path)
    if not cases:
        raise InputError(f"expected at least one case; got none in {path}")
    taken = Counter(case.name.lower() for case in cases)
    if twice := sorted(name for name, count in taken.items() if count > 1):
        raise InputError(f"expected every case once; got {', '.join(twice)} several times in {path}")
    return cases


def _from_csv(path: Path) -> tuple[Case, ...]:
    check_readable(path, "a table of cases")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected a table of cases in UTF-8; got {path}, which is not text") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    # A semicolon separates images within a cell, and columns only where no comma does.
    delimiter = next((each for each in ("\t", ",") if lines and each in lines[0]), ";")
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True))
    names = [_column(name) for name in rows[0]] if rows else []
    _check_columns(names, path)
    cases = []
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(names):
            raise InputError(f"expected {len(names)} cells in every row of {path}; got {len(row)} in row {number}")
        cells = {name: cell.strip() for name, cell in zip(names, row, strict=True)}
        cases.append(_case(cells, f"case_{number:03d}", path))
    return tuple(cases)


def _column(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _check_columns(names: list[str], path: Path) -> None:
    known = [name for name in names if re.sub(r"_\d+$", "", name) in _COLUMNS]
    if "fixed" not in known or not any(re.fullmatch(r"moving(_\d+)?", name) for name in known):
        raise InputError(f"expected the columns fixed and moving in {path}; got {', '.join(names) or 'none'}")
    if len(set(names)) < len(names):
        raise InputError(f"expected every column of {path} once; got {', '.join(names)}")
    if others := [name for name in names if name not in known]:
        _log.warning("columns of %s that mean nothing here: %s", path, ", ".join(others))


def _case(cells: Mapping[str, str], default_name: str, path: Path) -> Case:
    def absolute(cell: str) -> str:
        return cell if cell == NO_MASK else str(path.absolute().parent / cell)

    def several(name: str) -> tuple[str, ...]:
        numbered = sorted((n for n in cells if re.fullmatch(rf"{name}_\d+", n)), key=lambda n: int(n.rsplit("_", 1)[1]))
        texts = [part.strip() for n in (name, *numbered) for part in cells.get(n, "").split(";")]
        return tuple(absolute(text) for text in texts if text)

    name = cells.get("case") or default_name
    moving = several("moving")
    if not cells["fixed"] or not moving:
        raise InputError(f"expected a fixed and a moving image for '{name}' in {path}; got an empty cell")
    single: dict[str, Any] = {key: absolute(cells[key]) for key in _SINGLE if cells.get(key)}
    return Case(
        _folder_name(name),
        absolute(cells["fixed"]),
        moving,
        several("moving_mask"),
        **single,
        displacement=f"disp_{name}.nii.gz",
    )


def _folder_name(name: str) -> str:
    if re.search(r'[\x00-\x1f/\\:*?"<>|]', name) or name.startswith("."):
        raise InputError(f"expected the name of a case to be one for a folder; got '{name}'")
    return name


def _from_dataset(path: Path) -> tuple[Case, ...]:
    content = read_json(path, "a dataset.json of Learn2Reg")
    entries = [entry for key in ("registration_val", "registration_test") for entry in content.get(key) or ()]
    pairs = [(_relative(entry, "fixed", path), _relative(entry, "moving", path)) for entry in entries]
    codes = _codes(pairs)
    cases = []
    for (fixed, moving), code in zip(pairs, codes, strict=True):
        near: dict[str, Any] = {
            f"{side}_{kind}": _beside(path, file, [kind])
            for side, file in (("fixed", fixed), ("moving", moving))
            for kind in ("labels",)
        }
        points = [_beside(path, file, _LEARN2REG_LANDMARKS, ".csv") for file in (fixed, moving)]
        if None in points:
            points = [None, None]
        cases.append(
            Case(
                code,
                str(path.absolute().parent / fixed),
                (str(path.absolute().parent / moving),),
                **near,
                fixed_landmarks=points[0],
                moving_landmarks=points[1],
                landmarks_in_voxels=True,
                displacement=f"disp_{code}.nii.gz",
            )
        )
    return tuple(cases)


def _relative(entry: Any, side: str, path: Path) -> str:  # noqa: ANN401 - of a file that anybody wrote
    if not isinstance(entry, dict) or not isinstance(entry.get(side), str):
        raise InputError(f"expected pairs with 'fixed' and 'moving' in {path}; got {entry!r:.60}")
    return str(entry[side])


def _codes(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """FIXED_MOVING by the numbers of the subjects; with those of the contrasts where that is not enough."""
    parts = [
        [re.findall(r"\d+", stem_of(file).replace("Reg", ""))[-2:] or [stem_of(file)] for file in pair]
        for pair in pairs
    ]
    short = ["_".join(side[0] for side in sides) for sides in parts]
    return short if len(set(short)) == len(short) else ["_".join("_".join(side) for side in sides) for sides in parts]


def _beside(path: Path, image: str, folders: Iterable[str], suffix: str | None = None) -> str | None:
    """A file of the same name in a folder such as ``labelsTr``; None where there is none."""
    for folder in folders:
        name = image.replace("images", folder)
        name = name if suffix is None else name.removesuffix(".nii.gz") + suffix
        if name != image and (path.parent / name).is_file():
            return str(path.absolute().parent / name)
    return None
