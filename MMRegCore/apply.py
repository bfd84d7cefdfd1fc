"""Apply a transform to what belongs to the moving image: volumes, label maps, landmarks."""

from __future__ import annotations

import SimpleITK as sitk

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.transform import SpatialTransform

_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline}


def resample_image(
    image: sitk.Image, transform: SpatialTransform, *, reference: Grid | None = None, interpolation: str = "linear"
) -> sitk.Image:
    """Put an image that lies in moving space on a grid in fixed space.

    Parameters
    ----------
    image : SimpleITK.Image
        3-D, scalar, of any pixel type, so that label maps keep theirs.
    transform : SpatialTransform
        Fixed to moving.
    reference : Grid, optional
        Grid of the result; the image's own when None.
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
    grid = image if reference is None else reference.to_itk()
    kept = image.GetPixelID() if interpolation == "nearest" else sitk.sitkFloat32
    return sitk.Resample(image, grid, transform.itk, _INTERPOLATORS[interpolation], 0.0, kept)


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
