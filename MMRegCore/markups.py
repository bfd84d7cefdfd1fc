"""Slicer's markups of every type (points, lines, angles, curves, planes, boxes) taken along by a transform."""

from __future__ import annotations

import copy
import logging
from typing import Any, cast

import numpy as np

from MMRegCore.geometry import Array, lps_from_ras_points, ras_from_lps_points
from MMRegCore.io.landmarks import is_placed, is_vector, system_of
from MMRegCore.transform import SpatialTransform

_log = logging.getLogger(__name__)

# Half the distance over which a rotation is measured, mm.
_REACH_MM = 0.5


def push_markups(content: dict[str, Any], transform: SpatialTransform) -> dict[str, Any]:
    """Take markups from moving to fixed space, as `push_landmarks` takes points.

    Parameters
    ----------
    content : dict
        Of a ``.mrk.json`` file, as `read_markups` gives it; not altered.
    transform : SpatialTransform
        Fixed to moving.

    Returns
    -------
    dict
        The same types, labels and properties, in the same coordinate system.  What has an orientation is turned by the
        rotation nearest to the transform where it lies; points that are not placed stay as they are.

    Raises
    ------
    InputError
        When a coordinate system is neither LPS nor RAS.
    GeometryError
        When the transform cannot be inverted at a point.
    """
    moved = copy.deepcopy(content)
    for item in moved["markups"]:
        _push(item, _Mover(transform, system_of(item)))
    return moved


def _push(item: dict[str, Any], mover: _Mover) -> None:
    placed = [point for point in item["controlPoints"] if is_placed(point)]
    if len(placed) < len(item["controlPoints"]):
        _log.warning("%d control points that are not placed were left so", len(item["controlPoints"]) - len(placed))
    for point in placed:
        _turn(point, "orientation", mover, point["position"])
        point["position"] = mover.points([point["position"]])[0]
    if is_vector(item.get("center")):
        for key in ("orientation", "normal"):
            _turn(item, key, mover, item["center"])
        item["center"] = mover.points([item["center"]])[0]
    if is_vector(item.get("baseToNode"), 16):
        item["baseToNode"] = mover.pose(item["baseToNode"])
    item.pop("measurements", None)  # Slicer measures anew


def _turn(holder: dict[str, Any], key: str, mover: _Mover, at: list[float]) -> None:
    """Turn a direction (3) or a matrix of axes (9), if it is there."""
    value = holder.get(key)
    if is_vector(value, 3) or is_vector(value, 9):
        matrix = np.reshape(cast("list[float]", value), (3, -1))
        holder[key] = (mover.rotation(at) @ matrix).ravel().tolist()


class _Mover:
    """Takes points and axes in the space of a file from moving to fixed."""

    def __init__(self, transform: SpatialTransform, system: str) -> None:
        self._transform = transform
        self._is_lps = system == "LPS"

    def points(self, points: list[list[float]] | Array) -> list[list[float]]:
        """The new places of points (N, 3)."""
        array = np.asarray(points, dtype=np.float64)
        if not self._is_lps:
            return cast("list[list[float]]", self._transform.apply_inverse(array).tolist())
        moved = self._transform.apply_inverse(ras_from_lps_points(array))
        return cast("list[list[float]]", lps_from_ras_points(moved).tolist())

    def rotation(self, at: list[float]) -> Array:
        """(3, 3): the rotation nearest to the map around a point."""
        ends = np.concatenate([np.asarray(at) + _REACH_MM * np.eye(3), np.asarray(at) - _REACH_MM * np.eye(3)])
        moved = np.array(self.points(ends))
        left, _, right = np.linalg.svd((moved[:3] - moved[3:]).T)
        return cast(Array, left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right)

    def pose(self, values: list[float]) -> list[float]:
        """The new pose (16) of an object: a matrix of its axes and its place."""
        pose = np.reshape(values, (4, 4)).astype(np.float64)
        place = pose[:3, 3].tolist()
        pose[:3, :3] = self.rotation(place) @ pose[:3, :3]
        pose[:3, 3] = self.points([place])[0]
        return cast("list[float]", pose.ravel().tolist())
