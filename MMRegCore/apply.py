"""Apply a transform to what belongs to the moving image: volumes, label maps, landmarks."""

from __future__ import annotations

import logging
from typing import cast

import numpy as np
import SimpleITK as sitk

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, Shape, transform_points
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.transform import SpatialTransform

_log = logging.getLogger(__name__)

# Where the content goes is found at so many points along each edge of its box.
_POINTS_PER_EDGE = 7
# A union of the old and the new place with more than so many times the voxels is not worth its memory.
_LARGEST_GROWTH = 4
_ROUNDING = 1e-3
_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline}


def resample_image(
    image: sitk.Image, transform: SpatialTransform, *, reference: Grid | None = None, interpolation: str = "linear"
) -> sitk.Image:
    """Put an image that lies in moving space on a grid in fixed space.

    Parameters
    ----------
    image : SimpleITK.Image
        3-D, of any pixel type, so that label maps keep theirs; of several values per voxel with 'nearest' only.
    transform : SpatialTransform
        Fixed to moving.
    reference : Grid, optional
        Grid of the result.  None takes the image's own, extended by whole voxels where what is not 0 would leave it.
    interpolation : str
        'linear', 'nearest' (for label maps) or 'bspline' (cubic).

    Returns
    -------
    SimpleITK.Image
        Of the same pixel type with 'nearest', float32 otherwise; 0 outside of the image.

    Raises
    ------
    InputError
        When the interpolation is not known.
    """
    if interpolation not in _INTERPOLATORS:
        raise InputError(f"expected the interpolation to be one of {', '.join(_INTERPOLATORS)}; got '{interpolation}'")
    grid = (grid_that_holds(image, transform) if reference is None else reference).to_itk()
    kept = image.GetPixelID() if interpolation == "nearest" else sitk.sitkFloat32
    return sitk.Resample(image, grid, transform.itk, _INTERPOLATORS[interpolation], 0.0, kept)


def grid_that_holds(image: sitk.Image, transform: SpatialTransform) -> Grid:
    """The grid of an image, extended by whole voxels to hold where its content (what is not 0) moves.

    Where the content moves far away, the grid holds only that.  Where the transform cannot be inverted it stays as it
    is, with a warning.
    """
    own = Grid.from_itk(image)
    box = _content_box(image)
    if box is None:
        return own
    try:
        moved = transform.apply_inverse(transform_points(own.ras_from_ijk, _on_faces(*box)))
    except GeometryError as error:
        _log.warning("the grid was not extended to hold what moves beyond it: %s", error)
        return own
    places = transform_points(own.ijk_from_ras, moved)
    low, high = np.floor(places.min(axis=0) + _ROUNDING), np.ceil(places.max(axis=0) - _ROUNDING)
    last = np.array(own.itk_size) - 1
    low_union, high_union = np.minimum(low, 0), np.maximum(high, last)
    if np.array_equal(low_union, np.zeros(3)) and np.array_equal(high_union, last):
        return own
    if np.prod(high_union - low_union + 1) <= _LARGEST_GROWTH * np.prod(last + 1.0):
        low, high = low_union, high_union
    shape = cast(Shape, tuple(int(n) for n in (high - low + 1)[::-1]))
    _log.info("the grid was extended to hold what was moved: %s voxels", " × ".join(map(str, shape[::-1])))
    return own.cropped(low, shape)


def _content_box(image: sitk.Image) -> tuple[Array, Array] | None:
    """First and last voxel (i, j, k) that is not 0; None where all are."""
    filled = np.nan_to_num(sitk.GetArrayFromImage(image)) != 0
    if filled.ndim == 4:
        filled = filled.any(axis=-1)
    ends = []
    for axis in (2, 1, 0):
        places = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
        if len(places) == 0:
            return None
        ends.append((float(places[0]), float(places[-1])))
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def _on_faces(low: Array, high: Array) -> Array:
    """(N, 3): points on the faces of a box."""
    steps = np.linspace(0, 1, _POINTS_PER_EDGE)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    on_face = grid[((grid == 0) | (grid == 1)).any(axis=1)]
    return cast(Array, low + on_face * (high - low))


def push_landmarks(landmarks: Landmarks, transform: SpatialTransform) -> Landmarks:
    """Take landmarks from moving to fixed space, where the transform's inverse takes them.

    The transform itself leads from fixed to moving (it pulls voxels); points go the other way, as Slicer moves a
    markup under the transform.

    Raises
    ------
    GeometryError
        When the transform cannot be inverted at a landmark.
    """
    return Landmarks(transform.apply_inverse(landmarks.points_ras), landmarks.labels)
