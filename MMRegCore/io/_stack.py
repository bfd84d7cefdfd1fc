"""Slices in space: whether they make one regular grid, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from MMRegCore.errors import GeometryError
from MMRegCore.geometry import Array

# Slices may stray so far from even spacing, because files hold positions rounded to 0.1 mm: the smaller of a length
# and a share of their distance; but always a small share.
_ROUNDED_MM = 0.06
_ROUNDED_SHARE = 0.15
_EXACT_SHARE = 0.02
# The stack may lean so far off the normal of its slices: a length, and a share of the length of the stack.
_TILT_MM = 0.1
_TILT_SHARE = 1e-3
_SAME_PLACE_SHARE = 0.05
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Slice:
    """One slice.

    Attributes
    ----------
    position : tuple of float
        Centre of its first voxel, LPS mm.
    orientation : tuple of float
        Directions along a row and along a column, LPS.
    spacing : tuple of float
        Distance of its columns and of its rows, mm.
    size : tuple of int
        (columns, rows).
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    size: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stack:
    """A regular grid of slices, as ITK describes it (LPS mm), and the order of the slices along their normal."""

    order: tuple[int, ...]
    origin: Array
    spacing: Array
    direction: Array
    tolerance_mm: float


def stack_of(slices: Sequence[Slice], thickness_mm: float | None, where: str) -> Stack:
    """Sort slices along their normal, and check that they lie on a grid.

    Parameters
    ----------
    slices : sequence of Slice
    thickness_mm : float, optional
        Of a single slice.
    where : str
        For messages.

    Raises
    ------
    GeometryError
        When they differ in size, spacing or orientation, share a place, or are not evenly stacked along their normal.
    """
    _check_alike(slices, where)
    row, column = np.reshape(slices[0].orientation, (2, 3))
    normal = np.cross(row, column)
    positions = np.array([each.position for each in slices], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    origin, step, tolerance = _line(positions[order], normal, thickness_mm, where)
    spacing = np.array([*slices[0].spacing, step])
    return Stack(tuple(order.tolist()), origin, spacing, np.stack([row, column, normal], axis=1), tolerance)


def _check_alike(slices: Sequence[Slice], where: str) -> None:
    numbers = np.array([[*each.position, *each.orientation, *each.spacing] for each in slices], dtype=np.float64)
    if not np.isfinite(numbers).all() or (numbers[:, 9:] <= 0).any():
        raise GeometryError(f"expected finite positions and positive spacings in {where}; got others")
    axes = numbers[:, 3:9].reshape(-1, 2, 3)
    if not np.allclose(axes @ axes.transpose(0, 2, 1), np.eye(2), atol=_SAME_DIRECTION):
        raise GeometryError(f"expected rows and columns at right angles in {where}; got others")
    if np.abs(axes - axes[0]).max() > _SAME_DIRECTION:
        raise GeometryError(f"expected slices of one orientation in {where}; got several, as a localiser has them")
    if len({each.size for each in slices}) > 1 or not np.allclose(numbers[:, 9:], numbers[0, 9:], rtol=1e-4):
        raise GeometryError(f"expected slices of one size and spacing in {where}; got several")


def _line(positions: Array, normal: Array, thickness_mm: float | None, where: str) -> tuple[Array, float, float]:
    """Where sorted slices begin, their distance, and how far they may stray; by a straight line through them."""
    if len(positions) == 1:
        if thickness_mm is None or not 0 < thickness_mm < np.inf:
            raise GeometryError(f"expected the thickness of the only slice in {where}; got none")
        return positions[0], thickness_mm, 0.0
    steps = np.diff(positions @ normal)
    middle = float(np.median(steps))
    if steps.min() <= _SAME_PLACE_SHARE * middle or middle <= 0:
        raise GeometryError(
            f"expected one image at each place in {where}; got several at one (time points, echoes, parts of complex "
            "images, or copies): give one of them"
        )
    ranks = np.arange(len(positions)) - (len(positions) - 1) / 2
    slope = cast(Array, ranks @ positions / (ranks @ ranks))
    fitted = positions.mean(axis=0) + ranks[:, None] * slope
    tolerance = max(_EXACT_SHARE * middle, min(_ROUNDED_MM, _ROUNDED_SHARE * middle))
    if np.linalg.norm(positions - fitted, axis=1).max() > tolerance:
        raise GeometryError(
            f"expected evenly spaced slices in {where}, to {tolerance:.2g} mm; got distances from {steps.min():.3f} to "
            f"{steps.max():.3f} mm: a slice is missing, or of another acquisition"
        )
    step = float(slope @ normal)
    lean = float(np.linalg.norm(slope - step * normal)) * (len(positions) - 1)
    if lean > max(_TILT_MM, _TILT_SHARE * step * len(positions)):
        raise GeometryError(
            f"expected the slices in {where} to be stacked along their normal; got a shift of {lean:.2f} mm "
            "(a tilted gantry): resample them first"
        )
    return fitted[0], step, tolerance
