"""Files of the Learn2Reg challenge: displacement fields in voxels, landmarks in voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.io._itk import ITK_ERRORS, quiet_itk, write_failure
from MMRegCore.io.files import PathLike, atomic_path, check_readable, itk_name
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.transform import SpatialTransform


def write_displacement(transform: SpatialTransform, path: PathLike, *, fixed: Grid, moving: Grid) -> None:
    """Write ``disp_*.nii.gz`` as the challenge takes it: (W, H, D, 3), components (i, j, k), in voxels, float32.

    At the voxel (i, j, k) of ``fixed`` it holds the index in ``moving`` of what lies there, less (i, j, k).

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    mm = transform.displacement_field(fixed).displacement_mm.double().numpy()
    values = np.empty((3, *fixed.shape), dtype=np.float32)
    for d, part in enumerate(fixed.slices()):
        points = part.points_ras()[0]
        moved = transform_points(moving.ijk_from_ras, points + mm[d])
        values[:, d] = np.moveaxis(moved - transform_points(fixed.ijk_from_ras, points), -1, 0)
    with atomic_path(path) as temporary:
        try:
            with quiet_itk():
                sitk.WriteImage(sitk.GetImageFromArray(values, isVector=False), itk_name(temporary))
        except ITK_ERRORS as error:
            raise write_failure(temporary, values.nbytes) from error


def read_displacement(path: PathLike, *, fixed: Grid, moving: Grid) -> DisplacementField:
    """Read what `write_displacement` writes, as a field on ``fixed``; what the file says of its space is not used.

    Raises
    ------
    InputError
        When the file cannot be read or is not of four dimensions.
    GeometryError
        When it is of another size than ``fixed``.
    """
    path = Path(path)
    check_readable(path, "a displacement field of Learn2Reg")
    try:
        with quiet_itk():
            values = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(path), sitk.sitkFloat64))
    except ITK_ERRORS as error:
        raise InputError(f"expected a displacement field of Learn2Reg (W, H, D, 3); {path} cannot be read") from error
    if values.shape != (3, *fixed.shape):
        raise GeometryError(
            f"expected {path} to have the size {(*fixed.itk_size, 3)} of the fixed image; got {values.shape[::-1]}"
        )
    points = fixed.points_ras()
    ijk = transform_points(fixed.ijk_from_ras, points) + np.moveaxis(values, 0, -1)
    return DisplacementField(torch.from_numpy(transform_points(moving.ras_from_ijk, ijk) - points), fixed)


def read_voxel_landmarks(path: PathLike, grid: Grid) -> Landmarks:
    """Read a table of voxel indices i, j, k without names, as RAS points; `InputError` when it is none."""
    path = Path(path)
    check_readable(path, "a table of landmarks of Learn2Reg")
    try:
        ijk: Array = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(f"expected landmarks as i,j,k in voxels in {path}; got {error}") from error
    if ijk.shape[1] != 3 or not np.isfinite(ijk).all():
        raise InputError(f"expected three finite numbers in every row of {path}; got {ijk.shape[1]} columns")
    return Landmarks(transform_points(grid.ras_from_ijk, ijk), ("",) * len(ijk))
