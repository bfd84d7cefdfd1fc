"""Landmarks that guide a registration, from point lists of the scene to files; needs no Qt."""

from __future__ import annotations

from pathlib import Path

import slicer

from MMRegCore.evaluate.pairing import pair_by_label
from MMRegSlicerLib.landmarks import check_placed, from_world, labels_of, transform_points
from MMRegSlicerLib.request import Node, Request


def write_landmarks(request: Request, folder: Path) -> list[str]:
    """Write the guiding landmarks of a request, as they lie in the scene now, in the own spaces of the images.

    Parameters
    ----------
    request : Request
        Must be valid.
    folder : Path

    Returns
    -------
    list of str
        The options of ``mmreg register``; none without landmarks.

    Raises
    ------
    InputError
        When a list has no points, one is not placed, the numbers differ, or the labels agree only in part.
    """
    lists = (request.fixed_landmarks, request.moving_landmarks)
    if None in lists:
        return []
    for node in lists:
        check_placed(node)
    fixed, moving = lists
    order = list(pair_by_label(labels_of(fixed), labels_of(moving)).order)
    in_fixed = _in_space_of(request.fixed, fixed)
    in_moving = _in_space_of(request.moving_nodes[0], moving)
    rows = [[*in_moving[partner], *point] for point, partner in zip(in_fixed, order, strict=True)]
    path = folder / "landmarks.csv"
    lines = ["mr_x,mr_y,mr_z,us_x,us_y,us_z", *(",".join(map(repr, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["--landmarks", str(path), "--landmark-error-mm", request.landmark_error_mm]


def _in_space_of(image: Node, points: Node) -> list[list[float]]:
    """Points (N, 3), RAS mm, in the space of an image without its parent transforms."""
    in_world = slicer.util.arrayFromMarkupsControlPoints(points, world=True)
    there: list[list[float]] = transform_points(from_world(image.GetParentTransformNode()), in_world).tolist()
    return there
