"""Images: NIfTI, NRRD, MHA and what else ITK reads; one DICOM series in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io import _nifti
from MMRegCore.io._dicom import series_files
from MMRegCore.io._itk import last_line, quiet_itk, write_failure
from MMRegCore.io.files import PathLike, atomic_path, check_readable, stem_of, suffix_of
from MMRegCore.ops import inside, positions_between, sample
from MMRegCore.volume import Volume

WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
# Cosines are stored with few digits in some formats; a shear that matters is larger.
_RIGHT_ANGLE_TOLERANCE = 1e-3


def read_volume(path: PathLike, *, mask_path: PathLike | None = None, name: str | None = None) -> Volume:
    """Read a 3-D image of one value per voxel.

    Parameters
    ----------
    path : path
        An image file, or a folder that holds one DICOM series.
    mask_path : path, optional
        Nonzero is inside; see :func:`read_mask`.
    name : str, optional
        Defaults to the file name without its suffix.

    Returns
    -------
    Volume
        ``data`` (1, D, H, W).  Values that are not finite are kept, but in NIfTI files ITK reads them as 0.

    Raises
    ------
    InputError
        When the file is missing, unreadable or cut off, or is not a 3-D scalar image.
    GeometryError
        When spacing or axes do not describe a usable space, or the mask lies elsewhere.
    """
    image = read_itk_image(path)
    volume = volume_from_itk(image, name if name is not None else stem_of(path))
    return volume if mask_path is None else volume.with_mask(read_mask(mask_path, volume.grid))


def read_mask(path: PathLike, grid: Grid) -> torch.Tensor:
    """Read a mask and bring it onto ``grid`` by nearest neighbour where it lies on another.

    Returns
    -------
    Tensor, (D, H, W), bool
        True where the mask is neither zero nor NaN; False outside the mask's own grid.

    Raises
    ------
    InputError
        As :func:`read_volume`; also when no voxel of ``grid`` is inside the mask.
    GeometryError
        When the mask's grid and ``grid`` do not overlap.
    """
    volume = read_volume(path)
    values = torch.nan_to_num(volume.data, nan=0.0, posinf=1.0, neginf=1.0) != 0
    if not values.any():
        raise InputError(f"expected a mask with voxels other than zero; got {path}, which is empty")
    if grid.matches(volume.grid):
        return values[0]
    positions = positions_between(volume.grid, grid)
    if not inside(positions, volume.grid.shape).any():
        distance = float(np.linalg.norm(grid.centre_ras - volume.grid.centre_ras))
        raise GeometryError(
            f"expected the mask {path} to overlap its image; got grids that do not, "
            f"their centres {distance:.1f} mm apart"
        )
    mask = sample(values.float()[None], positions, mode="nearest", padding_mode="zeros")[0, 0] > 0.5
    if not mask.any():
        raise InputError(f"expected the mask {path} to mark voxels of its image; got none inside it")
    return mask


def write_volume(volume: Volume, path: PathLike, *, dtype: str | None = None, compress: bool = True) -> None:
    """Write an image; the file appears complete or not at all.

    Parameters
    ----------
    volume : Volume
    path : path
        ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``.
    dtype : str, optional
        NumPy name of the type on disk, float32 when None.  Integers are rounded and clipped to the type's range.
    compress : bool
        Smaller files, slower writing; ``.nii.gz`` is always compressed and ``.nii`` never.

    Raises
    ------
    InputError
        When the format or the type is not known, or the file cannot be written.
    """
    image = itk_image(volume)
    if dtype is not None:
        image = _with_type(image, dtype)
    write_itk_image(image, path, compress=compress)


def itk_image(volume: Volume) -> sitk.Image:
    """The image for SimpleITK, float32; several channels become a vector image."""
    data = volume.data.detach().cpu().numpy()
    return volume.grid.to_itk(data[0] if data.shape[0] == 1 else np.moveaxis(data, 0, -1))


def volume_from_itk(image: sitk.Image, name: str = "image") -> Volume:
    """A 3-D scalar SimpleITK image as a `Volume`; raises as :func:`read_volume`."""
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"expected '{name}' to be a 3-D image of one value per voxel; got {image.GetDimension()}-D "
            f"of {image.GetNumberOfComponentsPerPixel()}"
        )
    array = sitk.GetArrayFromImage(image).astype(np.float32, copy=False)
    return Volume(torch.from_numpy(array)[None], Grid.from_itk(image), name=name)


def read_itk_image(path: PathLike, *, components: int = 1) -> sitk.Image:
    """Read a 3-D image with so many components per voxel, checked as :func:`read_volume` says."""
    path = Path(path)
    if path.is_dir():
        files = series_files(path)
        if len(files) > 1:
            return _read_series(path, files, components)
        path = Path(files[0])
    check_readable(path, "an image file or a folder with a DICOM series")
    _nifti.check_geometry(path)
    if not _nifti.is_complete(path):
        raise InputError(f"expected a complete image; got {path}, which is cut off before its last voxel")
    with quiet_itk():
        return _read_file(path, components)


def _read_file(path: Path, components: int) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_information(reader, path, components)
        size = reader.GetSize()
        if len(size) > 3:
            reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
        image: sitk.Image = reader.Execute()
        return image
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _read_series(folder: Path, files: Sequence[str], components: int) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(list(files))
    with quiet_itk():
        try:
            image: sitk.Image = reader.Execute()
        except RuntimeError as error:
            raise _unreadable(folder, error) from error
    _check_pixels(image.GetPixelID(), image.GetNumberOfComponentsPerPixel(), folder, components)
    return image


def _check_information(reader: sitk.ImageFileReader, path: Path, components: int) -> None:
    size = reader.GetSize()
    if len(size) < 3 or any(n != 1 for n in size[3:]):
        raise InputError(f"expected a 3-D image; got {path} with {len(size)} dimensions, sizes {tuple(size)}")
    _check_pixels(reader.GetPixelID(), reader.GetNumberOfComponents(), path, components)
    spacing = reader.GetSpacing()[:3]
    if not np.all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise GeometryError(f"expected three positive spacings in mm; got {spacing} in {path}")
    cosines = np.reshape(reader.GetDirection(), (len(size), len(size)))[:3, :3]
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=_RIGHT_ANGLE_TOLERANCE):
        raise _sheared(path)


def _check_pixels(pixel: int, got: int, path: Path, components: int) -> None:
    is_complex = pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
    if got != components or is_complex:
        kind = "complex numbers" if is_complex else f"{got}"
        wanted = "one value" if components == 1 else f"{components} values"
        raise InputError(f"expected an image with {wanted} per voxel; got {kind} in {path}")


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    if "orthonormal" in str(error):
        return _sheared(path)
    if "determine ImageIO" in str(error):
        return InputError(f"expected an image that can be read (NIfTI, NRRD, MHA, DICOM); got {path}, which is none")
    return InputError(f"expected a complete image; got {path}, which is damaged or cut off ({last_line(error)})")


def _sheared(path: Path) -> GeometryError:
    return GeometryError(
        f"expected the axes of the image to stand at right angles; got {path}, whose header is sheared or singular: "
        "resample it first"
    )


def _with_type(image: sitk.Image, dtype: str) -> sitk.Image:
    try:
        wanted = np.dtype(dtype)
        if wanted.kind not in "iuf":
            raise TypeError(f"{wanted} is not a type of voxels")
        array = sitk.GetArrayFromImage(image)
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            array = np.clip(np.rint(np.nan_to_num(array.astype(np.float64))), limits.min, limits.max)
        typed = sitk.GetImageFromArray(array.astype(wanted), isVector=image.GetNumberOfComponentsPerPixel() > 1)
    except (TypeError, KeyError) as error:
        raise InputError(f"expected a type such as float32, int16 or uint8; got '{dtype}'") from error
    typed.CopyInformation(image)
    return typed


def write_itk_image(image: sitk.Image, path: PathLike, *, compress: bool = True) -> None:
    """Write a SimpleITK image as :func:`write_volume` does."""
    suffix = suffix_of(path)
    if suffix not in WRITABLE_SUFFIXES:
        raise InputError(f"expected an image file name that ends in one of {', '.join(WRITABLE_SUFFIXES)}; got {path}")
    size_bytes = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    with atomic_path(path) as temporary:
        try:
            with quiet_itk():
                sitk.WriteImage(image, str(temporary), compress and suffix != ".nii")
        except RuntimeError as error:
            raise write_failure(temporary, size_bytes) from error
        # ITK does not notice when a NIfTI file is cut off by a full disk.
        if suffix.startswith(".nii") and not _nifti.is_complete(temporary):
            raise write_failure(temporary, size_bytes)
