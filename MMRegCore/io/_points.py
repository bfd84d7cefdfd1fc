"""Landmarks, and what the readers and writers of their formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, ras_from_lps_points

# Older .fcsv files number their coordinate systems.
_SYSTEMS = {"0": "RAS", "1": "LPS", "2": "IJK"}


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points with labels.

    Attributes
    ----------
    points_ras : ndarray, (N, 3), float64
        RAS mm.
    labels : tuple of str
        N labels; may be empty strings.

    Raises
    ------
    InputError
        When a coordinate is not finite or the numbers of points and labels differ.
    """

    points_ras: Array
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        points = np.array(self.points_ras, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(points).all():
            raise InputError(f"expected finite coordinates of landmarks; got {points.tolist()}")
        if len(points) != len(self.labels):
            raise InputError(f"expected one label per landmark; got {len(self.labels)} for {len(points)}")
        points.setflags(write=False)
        object.__setattr__(self, "points_ras", points)
        object.__setattr__(self, "labels", tuple(self.labels))

    def __len__(self) -> int:
        return len(self.labels)


def in_ras(points: list[list[float]], system: str, labels: Sequence[str]) -> Landmarks:
    array = np.array(points, dtype=np.float64).reshape(-1, 3)
    system = _SYSTEMS.get(system, system.upper())
    if system == "LPS":
        array = ras_from_lps_points(array)
    elif system != "RAS":
        raise InputError(f"expected landmarks in RAS or LPS; got '{system}'")
    return Landmarks(array, tuple(labels))


def numbers(texts: Sequence[str]) -> list[float]:
    if not all(map(is_number, texts)):
        raise InputError(f"expected numbers; got '{','.join(texts)}'")
    return [float(text) for text in texts]


def is_number(text: str) -> bool:
    """Whether a text is a number as files hold it; Python itself reads 1_000 too."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def comments_and_rows(text: str) -> tuple[list[str], list[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line[1:].strip() for line in lines if line[0] == "#"], [line for line in lines if line[0] != "#"]


def header_value(comments: Sequence[str], key: str, default: str) -> str:
    """What a comment ``key = value`` says; raises `InputError` where two of them differ."""
    pairs = (comment.partition("=") for comment in comments)
    said = {value.strip() for name, _, value in pairs if name.strip().lower() == key.lower() and value.strip()}
    if len(said) > 1:
        raise InputError(f"expected one {key}; got {' and '.join(sorted(said))}")
    return said.pop() if said else default


def rows_of(landmarks: Landmarks, points: Array) -> list[tuple[str, str, str, str]]:
    """x, y, z as text that reads back to the same number, and the label on one line."""
    return [
        (repr(x), repr(y), repr(z), " ".join(label.split()))
        for (x, y, z), label in zip(points.tolist(), landmarks.labels, strict=True)
    ]
