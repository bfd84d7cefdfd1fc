"""Transforms: ITK's transform files, and displacement fields as images; both hold LPS mm, fixed to moving."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io._foreign import advice_by_content, advice_by_suffix
from MMRegCore.io._itk import ITK_ERRORS, quiet_itk, write_failure
from MMRegCore.io._itk_transforms import TEXT_SUFFIXES, check_finite, read_itk_transform, text_is_whole
from MMRegCore.io._xfm import MAGIC as MINC_MAGIC
from MMRegCore.io._xfm import matrix_from_xfm
from MMRegCore.io.files import PathLike, atomic_path, check_readable, itk_name, suffix_of
from MMRegCore.io.volumes import WRITABLE_SUFFIXES, read_itk_image, write_itk_image
from MMRegCore.transform import SpatialTransform, check_invertible, simple_parts

logger = logging.getLogger(__name__)

TRANSFORM_SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")
_WRITABLE_TRANSFORMS = (".h5", ".hdf5", ".tfm", ".txt")
_IMAGE_SUFFIXES = (*WRITABLE_SUFFIXES, ".nhdr", ".mhd")


def read_transform(path: PathLike) -> SpatialTransform:
    """Read a transform, ITK's convention: it takes fixed points to moving points.

    Parameters
    ----------
    path : path
        An ITK transform file (``.h5``, ``.tfm``, ``.txt``, ``.mat``: any linear transform, displacement grid, B-spline
        or a composite of them, as SimpleITK, ANTs, ITK-SNAP and Slicer write them); a linear MINC transform (``.xfm``,
        RAS mm), taken as it stands from fixed to moving points; or a displacement field image with three components
        per voxel, LPS mm (``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``).

    Raises
    ------
    InputError
        When the file is missing, unreadable, cut off, not 3-D, or of another kind or tool, which is named.
    GeometryError
        When it holds values that are not finite, or its linear part cannot be inverted.
    """
    path = Path(path)
    suffix = suffix_of(path)
    check_readable(path, "a transform file")
    if suffix in _IMAGE_SUFFIXES:
        itk: sitk.Transform = _read_field(path)
    elif suffix in TRANSFORM_SUFFIXES:
        itk = _read_file(path, suffix)
    else:
        raise _unknown_suffix(path, suffix)
    transform = SpatialTransform(itk)
    check_invertible(transform, f"the linear part of {path}")
    return transform


def write_transform(transform: SpatialTransform, path: PathLike, *, grid: Grid | None = None) -> None:
    """Write a transform; the file appears complete or not at all.

    Parameters
    ----------
    transform : SpatialTransform
    path : path
        ``.h5`` (small, exact, the one to keep), ``.tfm`` or ``.txt`` hold the transform itself.  ``.nii.gz``,
        ``.nii``, ``.nrrd`` and ``.mha`` hold one displacement field, which moves nothing outside its grid.
    grid : Grid, optional
        Where to sample the displacement field; needed for the image formats, unused otherwise.

    Raises
    ------
    InputError
        When the format is not known, ``grid`` is missing, or the file cannot be written.
    """
    suffix = suffix_of(path)
    if suffix in WRITABLE_SUFFIXES:
        _write_field(transform, path, grid)
    elif suffix in _WRITABLE_TRANSFORMS:
        _write_itk_transform(transform, path)
    else:
        known = ", ".join((*_WRITABLE_TRANSFORMS, *WRITABLE_SUFFIXES))
        raise InputError(f"expected a transform file name that ends in one of {known}; got {path}")


def _unknown_suffix(path: Path, suffix: str) -> InputError:
    if advice := advice_by_suffix(suffix):
        return InputError(f"expected a transform file of ITK; got {path}, {advice}")
    known = ", ".join((*TRANSFORM_SUFFIXES, *_IMAGE_SUFFIXES))
    return InputError(f"expected a transform file that ends in one of {known}; got {path}")


def _read_file(path: Path, suffix: str) -> sitk.Transform:
    with path.open("rb") as file:
        start = file.read(20_000)
    if start.startswith(MINC_MAGIC.encode()):
        return _read_minc(path)
    if advice := advice_by_content(start):
        raise InputError(f"expected a transform file of ITK; got {path}, {advice}")
    if suffix == ".xfm":
        raise InputError(f"expected a MINC transform that begins with '{MINC_MAGIC}'; got {path}, which is none")
    return read_itk_transform(path)


def _read_minc(path: Path) -> sitk.Transform:
    try:
        matrix = matrix_from_xfm(path.read_text(encoding="utf-8", errors="replace"))
    except InputError as error:
        raise type(error)(f"{error} in {path}") from error
    logger.warning("%s is taken as it stands: from points of the ultrasound to points of the MR, RAS mm", path)
    return SpatialTransform.from_matrix(matrix).itk


def _read_field(path: Path) -> sitk.DisplacementFieldTransform:
    field = sitk.DisplacementFieldTransform(sitk.Cast(read_itk_image(path, components=3), sitk.sitkVectorFloat64))
    check_finite(field, path)
    return field


def _write_field(transform: SpatialTransform, path: PathLike, grid: Grid | None) -> None:
    if grid is None:
        raise InputError(f"expected a grid on which to sample the displacement field for {path}; got none")
    logger.warning(
        "%s holds one displacement field: outside its grid it moves nothing, while the transform itself does. "
        "Keep the .h5 form for points and images that reach beyond the fixed image.",
        path,
    )
    field = transform.displacement_field(grid)
    lps = field.displacement_mm.cpu().numpy() * np.array([-1, -1, 1], dtype=np.float32)
    write_itk_image(grid.to_itk(lps), path)


def _write_itk_transform(transform: SpatialTransform, path: PathLike) -> None:
    # One matrix rather than a list of them, so that Slicer makes a linear transform node of it.
    itk = SpatialTransform.from_matrix(transform.linear_ras).itk if transform.is_linear else transform.itk
    parts = list(simple_parts(itk))
    if len(parts) > 1:  # HDF5 holds no composite within another
        itk = sitk.CompositeTransform(parts)
    numbers = sum(part.GetNumberOfParameters() for part in parts)
    with atomic_path(path) as temporary:
        try:
            with quiet_itk():
                sitk.WriteTransform(itk, itk_name(temporary))
        except ITK_ERRORS as error:
            raise write_failure(temporary, 8 * numbers) from error
        if suffix_of(path) in TEXT_SUFFIXES:
            text = temporary.read_text(encoding="utf-8")
            if not (text.endswith("\n") and text_is_whole(text, parts)):
                raise write_failure(temporary, 8 * numbers)
