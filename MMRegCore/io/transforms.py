"""Transforms: ITK's transform files, and displacement fields as images; both hold LPS mm, fixed to moving."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io._itk import quiet_itk, write_failure
from MMRegCore.io.files import PathLike, atomic_path, check_readable, suffix_of
from MMRegCore.io.volumes import WRITABLE_SUFFIXES, read_itk_image, write_itk_image
from MMRegCore.transform import SpatialTransform, check_invertible

logger = logging.getLogger(__name__)

TRANSFORM_SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")
_WRITABLE_TRANSFORMS = (".h5", ".hdf5", ".tfm", ".txt")
_TEXT_SUFFIXES = (".tfm", ".txt")
_IMAGE_SUFFIXES = (*WRITABLE_SUFFIXES, ".nhdr", ".mhd")


def read_transform(path: PathLike) -> SpatialTransform:
    """Read a transform, ITK's convention: it takes fixed points to moving points.

    Parameters
    ----------
    path : path
        An ITK transform file (``.h5``, ``.tfm``, ``.txt``, ``.mat``, ``.xfm``: linear, displacement grid, B-spline or a
        composite of them, as SimpleITK, ANTs and Slicer write them), or a displacement field image with three
        components per voxel, LPS mm (``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``).

    Raises
    ------
    InputError
        When the file is missing, unreadable, not 3-D, or holds values that are not finite.
    GeometryError
        When its linear part cannot be inverted.
    """
    path = Path(path)
    suffix = suffix_of(path)
    check_readable(path, "a transform file")
    if suffix in _IMAGE_SUFFIXES:
        itk: sitk.Transform = _read_field(path)
    elif suffix in TRANSFORM_SUFFIXES:
        itk = _read_itk_transform(path)
    else:
        known = ", ".join((*TRANSFORM_SUFFIXES, *_IMAGE_SUFFIXES))
        raise InputError(f"expected a transform file that ends in one of {known}; got {path}")
    _check_finite(itk, path)
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


def _read_itk_transform(path: Path) -> sitk.Transform:
    with quiet_itk():
        try:
            itk: sitk.Transform = sitk.ReadTransform(str(path))
        except RuntimeError as error:
            raise _unreadable(path, error) from error
    if itk.GetDimension() != 3:
        raise InputError(f"expected a 3-D transform; got a {itk.GetDimension()}-D one in {path}")
    if suffix_of(path) in _TEXT_SUFFIXES:
        text = path.read_text(encoding="utf-8", errors="replace")
        if not _text_is_complete(text, list(_parts(itk))):
            raise InputError(f"expected a complete transform; got {path}, which is cut off or lacks parameters")
    return itk


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    unknown = re.search(r'instance of "?(\w+?)(_(double|float)\w*)?"?[\s.]', str(error) + " ")
    if unknown is None:
        return InputError(f"expected an ITK transform file that can be read; got {path}, which is none or is damaged")
    hint = ""
    if "Inverse" in unknown[1] or "ThinPlate" in unknown[1]:
        hint = "; in Slicer's module Transforms, convert it to a displacement grid and save that"
    return InputError(f"expected a transform of a type that ITK knows; got {unknown[1]} in {path}{hint}")


def _read_field(path: Path) -> sitk.DisplacementFieldTransform:
    image = read_itk_image(path, components=3)
    return sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))


def _check_finite(itk: sitk.Transform, path: Path) -> None:
    for part in _parts(itk):
        # Copies: a view would outlive the image that it looks into.
        if isinstance(part, sitk.DisplacementFieldTransform):
            arrays = [sitk.GetArrayFromImage(part.GetDisplacementField())]
        elif isinstance(part, sitk.BSplineTransform):
            arrays = [sitk.GetArrayFromImage(image) for image in part.GetCoefficientImages()]
        else:
            arrays = [np.asarray(part.GetParameters() + part.GetFixedParameters())]
        if not all(np.isfinite(array).all() for array in arrays):
            raise GeometryError(f"expected finite values in the transform; got NaN or infinity in {path}")


def _parts(itk: sitk.Transform) -> Iterator[sitk.Transform]:
    part = itk.Downcast()
    if isinstance(part, sitk.CompositeTransform):
        for index in range(part.GetNumberOfTransforms()):
            yield from _parts(part.GetNthTransform(index))
    else:
        yield part


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
    parts = list(_parts(itk))
    numbers = sum(part.GetNumberOfParameters() for part in parts)
    with atomic_path(path) as temporary:
        try:
            with quiet_itk():
                sitk.WriteTransform(itk, str(temporary))
        except RuntimeError as error:
            raise write_failure(temporary, 8 * numbers) from error
        if suffix_of(path) in _TEXT_SUFFIXES:
            text = temporary.read_text(encoding="utf-8")
            if not (text.endswith("\n") and _text_is_complete(text, parts)):
                raise write_failure(temporary, 8 * numbers)


def _text_is_complete(text: str, parts: list[sitk.Transform]) -> bool:
    """Whether an ITK text file holds all numbers of its transforms.

    ITK writes and reads cut-off files without a word, and makes the identity of parameters without fixed parameters.
    """
    found: list[dict[str, int]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip()
        if key == "Transform" and "CompositeTransform" not in value:
            found.append({})
        elif key in ("Parameters", "FixedParameters") and found:
            found[-1][key] = len(value.split())
    return len(found) == len(parts) and all(
        numbers == {"Parameters": part.GetNumberOfParameters(), "FixedParameters": len(part.GetFixedParameters())}
        for numbers, part in zip(found, parts, strict=True)
    )
