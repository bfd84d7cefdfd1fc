"""Images: NIfTI, NRRD, MHA and what else ITK reads; one DICOM series in a folder."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io import _meta, _nifti, _nrrd
from MMRegCore.io._dicom import is_dicom, read_dicom
from MMRegCore.io._header import Header
from MMRegCore.io._itk import ITK_ERRORS, last_line, quiet_itk, write_failure
from MMRegCore.io.files import PathLike, atomic_path, check_readable, itk_name, stem_of, suffix_of
from MMRegCore.ops import inside, positions_between, sample
from MMRegCore.runtime import available_memory_bytes
from MMRegCore.volume import Reading, Volume

_log = logging.getLogger(__name__)

WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
# Cosines are stored with few digits in some formats; a shear that matters is larger.
_RIGHT_ANGLE_TOLERANCE = 1e-3
_START_BYTES = 200
_STATES_ALL = ("MINC", "HDF5")
_STATES_NO_AXES = ("VTK", "MRC", "Gipl")
# An image is held as it comes, as 32-bit floats, and once more on its way.
_BYTES_PER_VOXEL = 16
# Deflate packs no more than so many bytes into one.
_SELF_CONTAINED, _HIGHEST_RATIO = (".nrrd", ".mha"), 1100


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
        ``data`` (1, D, H, W).  Values that are not finite are kept, and count as outside.

    Raises
    ------
    InputError
        When the file is missing, unreadable or cut off, or is not a 3-D scalar image.
    GeometryError
        When spacing or axes do not describe a usable space, or the mask lies elsewhere.
    """
    image, reading = read_image(path)
    volume = replace(volume_from_itk(image, name if name is not None else stem_of(path)), reading=reading)
    return volume if mask_path is None else volume.with_mask(read_mask(mask_path, volume.grid))


def read_mask(path: PathLike, grid: Grid) -> torch.Tensor:
    """Read a mask and bring it onto ``grid`` by nearest neighbour where it lies on another.

    Returns
    -------
    Tensor, (D, H, W), bool
        True where the mask is neither zero nor NaN, in any layer of a segmentation; False outside its own grid.

    Raises
    ------
    InputError
        As :func:`read_volume`; also when no voxel of ``grid`` is inside the mask.
    GeometryError
        When the mask's grid and ``grid`` do not overlap.
    """
    image, _ = read_image(path, components=None)
    volume = volume_from_itk(_any_of_components(image), stem_of(path))
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


def _any_of_components(image: sitk.Image) -> sitk.Image:
    """One value per voxel: for a segmentation of several layers, where any of them is not 0."""
    if image.GetNumberOfComponentsPerPixel() == 1:
        return image
    merged = sitk.GetImageFromArray((sitk.GetArrayFromImage(image) != 0).any(axis=-1).astype(np.uint8))
    merged.CopyInformation(image)
    return merged


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
    with np.errstate(over="ignore"):  # beyond 32 bits is not finite
        array = sitk.GetArrayFromImage(image).astype(np.float32, copy=False)
    return Volume(torch.from_numpy(array)[None], Grid.from_itk(image), name=name)


def read_itk_image(path: PathLike, *, components: int | None = 1) -> sitk.Image:
    """Read a 3-D image with so many components per voxel (None: any number), checked as :func:`read_volume` says."""
    return read_image(path, components=components)[0]


def read_image(path: PathLike, *, components: int | None = 1) -> tuple[sitk.Image, Reading]:
    """Read a 3-D image with so many components per voxel, and what was taken from the file; raises as `read_volume`."""
    path = Path(path)
    itk_name(path)
    if path.is_dir() or is_dicom(path):
        image, reading = read_dicom(path)
        _check_pixels(image.GetPixelID(), 1, path, components)
    else:
        image, reading = _read_one(path, components)
    count = _count_not_finite(image)
    if 0 < count < image.GetNumberOfPixels():
        note = f"{count} voxels are not finite (NaN or infinite): they were taken as outside"
        reading = replace(reading, voxels_not_finite=count, warnings=(*reading.warnings, note))
    for warning in reading.warnings:
        _log.warning("%s: %s", path.name, warning)
    return image, reading


def _read_one(path: Path, components: int | None) -> tuple[sitk.Image, Reading]:
    """An image in a file of its own, or a header beside its voxels."""
    check_readable(path, "an image file or a folder with a DICOM series")
    header = _header(path, components)
    if not _nifti.is_complete(path):
        raise InputError(f"expected a complete image; got {path}, which is cut off before its last voxel")
    with quiet_itk():
        image = _read_file(path, components)
    if header.mm_per_unit != 1:
        image.SetSpacing([value * header.mm_per_unit for value in image.GetSpacing()])
        image.SetOrigin([value * header.mm_per_unit for value in image.GetOrigin()])
    if header.format == "NIfTI-1":
        return _nifti.with_not_finite(path, image), header.reading(*_nifti.disagreement(path, image))
    return image, header.reading()


def _header(path: Path, components: int | None) -> Header:
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(_nrrd.MAGIC):
        return _nrrd.read_header(path)
    if _meta.looks_like_meta(start):
        return _meta.read_header(path)
    header = _nifti.read_header(path, is_field=components == 3)
    return header or _header_of_others(path)


def _header_of_others(path: Path) -> Header:
    """Of formats that ITK reads and nothing is known of but how much they say."""
    name = sitk.ImageFileReader.GetImageIOFromFileName(itk_name(path)).removesuffix("ImageIO")
    if name in _STATES_ALL:
        return Header(name, "LPS")
    if name in _STATES_NO_AXES:
        note = "the file does not say how its axes lie in the patient: they were taken along LPS"
        return Header(name, "LPS, assumed", warnings=(note,))
    return Header(name, "assumed", "assumed", "assumed")


def _count_not_finite(image: sitk.Image) -> int:
    if image.GetPixelID() not in (sitk.sitkFloat32, sitk.sitkFloat64):
        return 0
    limit = np.finfo(np.float32).max
    return int(np.count_nonzero(~(np.abs(sitk.GetArrayViewFromImage(image)) <= limit)))


def _read_file(path: Path, components: int | None) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_name(path))
    try:
        reader.ReadImageInformation()
        _check_information(reader, path, components)
        size = reader.GetSize()
        if len(size) > 3:
            reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
        image: sitk.Image = reader.Execute()
    except ITK_ERRORS as error:
        raise _unreadable(path, error) from error
    return _geometry_and_voxels(image)


def _geometry_and_voxels(image: sitk.Image) -> sitk.Image:
    """The image without what else its header said, which goes no further."""
    try:
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
    except TypeError:  # a key that is no text
        bare = sitk.GetImageFromArray(sitk.GetArrayFromImage(image), isVector=image.GetNumberOfComponentsPerPixel() > 1)
        bare.CopyInformation(image)
        return bare
    return image


def _check_information(reader: sitk.ImageFileReader, path: Path, components: int | None) -> None:
    size = reader.GetSize()
    if len(size) < 3 or any(n != 1 for n in size[3:]):
        raise InputError(f"expected a 3-D image; got {path} with {len(size)} dimensions, sizes {tuple(size)}")
    _check_pixels(reader.GetPixelID(), reader.GetNumberOfComponents(), path, components)
    if math.prod(size) * reader.GetNumberOfComponents() * _BYTES_PER_VOXEL > available_memory_bytes():
        raise InputError(f"expected an image that fits the memory; got {path} with {' × '.join(map(str, size))} voxels")
    if path.suffix.lower() in _SELF_CONTAINED and math.prod(size) > _HIGHEST_RATIO * path.stat().st_size + _START_BYTES:
        raise InputError(f"expected a complete image; got {path}, which is too small for {math.prod(size)} voxels")
    spacing = reader.GetSpacing()[:3]
    if not np.all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise GeometryError(f"expected three positive spacings in mm; got {spacing} in {path}")
    cosines = np.reshape(reader.GetDirection(), (len(size), len(size)))[:3, :3]
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=_RIGHT_ANGLE_TOLERANCE):
        raise _sheared(path)


def _check_pixels(pixel: int, got: int, path: Path, components: int | None) -> None:
    is_complex = pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
    if (components is not None and got != components) or is_complex:
        kind = "complex numbers" if is_complex else f"{got}"
        wanted = "one value" if components == 1 else f"{components} values"
        raise InputError(f"expected an image with {wanted} per voxel; got {kind} in {path}")


def _unreadable(path: Path, error: Exception) -> InputError:
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
                sitk.WriteImage(image, itk_name(temporary), compress and suffix != ".nii")
        except ITK_ERRORS as error:
            raise write_failure(temporary, size_bytes) from error
        # ITK does not notice when a NIfTI file is cut off by a full disk.
        if suffix.startswith(".nii") and not _nifti.is_complete(temporary):
            raise write_failure(temporary, size_bytes)
