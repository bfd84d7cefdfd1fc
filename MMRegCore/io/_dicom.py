"""DICOM: series of files and files of several frames, by what each frame says of where it lies.

ITK only warns, and then stacks unevenly spaced, tilted or repeated slices as if they were regular; its releases
disagree about the order and the origin of some.  Only voxels are taken from it.  Nothing but geometry leaves a header.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydicom
import SimpleITK as sitk

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io._itk import ITK_ERRORS, last_line, quiet_itk
from MMRegCore.io._stack import Slice, Stack, stack_of
from MMRegCore.io.files import itk_name
from MMRegCore.volume import Reading

_PREAMBLE = 128
_MAGIC = b"DICM"
_PIXEL_DATA, _SEQUENCE_END, _UNDEFINED_LENGTH = b"\xe0\x7f\x10\x00", b"\xfe\xff\xdd\xe0", 0xFFFFFFFF
# No packing that DICOM knows makes more voxels of a byte.
_HIGHEST_RATIO = 1100
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SUFFIXES_WITHOUT_MAGIC = (".dcm", ".ima", ".img", "")


@dataclass(frozen=True, eq=False)
class _File:
    """A file and its header, without its voxels."""

    path: Path
    header: pydicom.Dataset


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, with its mark or, as older files are, without."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        start = file.read(_PREAMBLE + len(_MAGIC))
        if start[_PREAMBLE:] == _MAGIC:
            return True
        # The first element of a file without a mark belongs to the group 0002 or 0008.
        if start[:2] in (b"\x02\x00", b"\x08\x00") and path.suffix.lower() in _SUFFIXES_WITHOUT_MAGIC:
            with quiet_itk():
                return bool(sitk.ImageFileReader.GetImageIOFromFileName(itk_name(path)) == "GDCMImageIO")
    return False


def read_dicom(path: Path) -> tuple[sitk.Image, Reading]:
    """Read the one series in a folder, or one file.

    Raises
    ------
    InputError
        When there is no series, several stacks, a file that is damaged, or no image of one value per voxel.
    GeometryError
        When the frames do not say where they lie, or do not make a regular grid.
    """
    try:
        with warnings.catch_warnings():
            # pydicom quotes from the header.
            warnings.simplefilter("ignore")
            files, notes = _series(path) if path.is_dir() else ([_File(path, _header(path))], [])
            slices, more = _slices(files, path)
            stack = stack_of(slices, _thickness(files[0].header), str(path))
            _check_values(files, path)
    except InputError:
        raise
    except Exception as error:  # whatever pydicom stumbles over, which unpacks a header only as it is looked at
        raise InputError(f"expected DICOM files that can be read; got {path}, which is damaged") from error
    image = _voxels(files, stack, path)
    image.SetOrigin(stack.origin.tolist())
    image.SetSpacing(stack.spacing.tolist())
    image.SetDirection(stack.direction.ravel().tolist())
    frames = f"{len(slices)} frames" if len(files) == 1 else f"{len(files)} files"
    order = f"by position along the normal, even to {stack.tolerance_mm:.2g} mm"
    return image, Reading(f"DICOM, {frames}", "LPS", "stated", "stated", frame_order=order, warnings=(*notes, *more))


def _series(folder: Path) -> tuple[list[_File], list[str]]:
    """The files of the one series that is a stack, and what was left out."""
    found = [_File(path, _header(path)) for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)]
    series: dict[str, list[_File]] = {}
    for file in found:
        if "Rows" in file.header:
            series.setdefault(str(file.header.get("SeriesInstanceUID", "")), []).append(file)
    if not series:
        raise InputError(f"expected a folder with a DICOM series; got {folder}, which holds none")
    groups = list(series.values())
    stacks = [files for files in groups if len(files) > 1 or _frame_count(files[0].header) > 1]
    if len(groups) > 1 and len(stacks) != 1:
        names = ", ".join(f"{len(files)} files ({files[0].path.name}, …)" for files in groups)
        raise InputError(f"expected one DICOM series in {folder}; got {len(groups)}: {names}")
    files = stacks[0] if stacks else groups[0]
    left = len(found) - len(files)
    if len(files) > 1 and any(_frame_count(file.header) > 1 for file in files):
        raise InputError(
            f"expected one file of several frames in {folder}; got {len(files)} in one series: give one of them"
        )
    return files, [f"{left} files of other series in the folder were left out"] if left else []


def _header(path: Path) -> pydicom.Dataset:
    with path.open("rb") as file:
        marked = file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC
    meta = pydicom.filereader.read_file_meta_info(path) if marked else pydicom.Dataset()
    if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
        raise InputError(f"expected a DICOM file that is not deflated; got {path}: unpack it with dcmconv")
    return pydicom.dcmread(path, stop_before_pixels=True, force=not marked)


def _frame_count(header: pydicom.Dataset) -> int:
    try:
        return max(1, int(header.get("NumberOfFrames", 1) or 1))
    except (TypeError, ValueError):
        return 1


def _thickness(header: pydicom.Dataset) -> float | None:
    """Of a single slice, mm."""
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        with suppress(TypeError, ValueError):
            return abs(float(header.get(name)))
    return None


def _slices(files: Sequence[_File], where: Path) -> tuple[list[Slice], list[str]]:
    """Every frame, in the order in which its voxels come, and what to know of them."""
    if len(files) == 1:
        return _frames(files[0])
    return [_plane(file.header, file.header, file.header, file, _IN_PATIENT) for file in files], []


_IN_PATIENT = ("ImagePositionPatient", "ImageOrientationPatient")
_IN_VOLUME = ("ImagePositionVolume", "ImageOrientationVolume")


def _frames(file: _File) -> tuple[list[Slice], list[str]]:
    header, count = file.header, _frame_count(file.header)
    if "PerFrameFunctionalGroupsSequence" in header:
        return _functional_frames(file)
    if "GridFrameOffsetVector" in header and count > 1:
        return _offset_frames(file, count), []
    if count > 1:
        raise GeometryError(
            f"expected every frame to say where it lies; got {file.path} with {count} frames that do not (a cine "
            "loop, a sweep, or a volume in its maker's own format): reconstruct a volume first, or export it as such"
        )
    return [_plane(header, header, header, file, _IN_PATIENT)], []


def _functional_frames(file: _File) -> tuple[list[Slice], list[str]]:
    """The frames of an enhanced image; those of a volume of ultrasound lie in its own space."""
    header = file.header
    shared = (_items(header, "SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    frames = _items(header, "PerFrameFunctionalGroupsSequence")
    if len(frames) != _frame_count(header):
        raise GeometryError(
            f"expected a place for each of {_frame_count(header)} frames; got {len(frames)} in {file.path}"
        )
    in_patient = bool(_group(frames[0], shared, "PlanePositionSequence"))
    names = _IN_PATIENT if in_patient else _IN_VOLUME
    kind = "" if in_patient else "Volume"
    found = [
        _plane(
            _group(frame, shared, f"PlanePosition{kind}Sequence"),
            _group(frame, shared, f"PlaneOrientation{kind}Sequence"),
            _group(frame, shared, "PixelMeasuresSequence"),
            file,
            names,
        )
        for frame in frames
    ]
    note = "it does not say where it lies in the patient: its position is that of its own space"
    return found, [] if in_patient else [note]


def _offset_frames(file: _File, count: int) -> list[Slice]:
    """The frames of a file that gives one place, and distances along the normal."""
    first = _plane(file.header, file.header, file.header, file, _IN_PATIENT)
    offsets = _numbers(file.header, "GridFrameOffsetVector", count, file)
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    places = np.asarray(first.position) + (np.array(offsets) - offsets[0])[:, None] * normal
    return [Slice(tuple(place), first.orientation, first.spacing, first.size) for place in places.tolist()]


def _plane(
    position: pydicom.Dataset,
    orientation: pydicom.Dataset,
    measures: pydicom.Dataset,
    file: _File,
    names: tuple[str, str],
) -> Slice:
    down, across = _numbers(measures, "PixelSpacing", 2, file)
    place, axes = _numbers(position, names[0], 3, file), _numbers(orientation, names[1], 6, file)
    size = (int(file.header.get("Columns", 0) or 0), int(file.header.get("Rows", 0) or 0))
    return Slice(place, axes, (across, down), size)


def _numbers(dataset: pydicom.Dataset, name: str, count: int, file: _File) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in dataset.get(name))
    except Exception as error:  # absent, empty, or no numbers
        raise GeometryError(
            f"expected every slice in {file.path.parent} to state its position, orientation and spacing; got no "
            f"{name} in {file.path.name}"
        ) from error
    if len(values) != count:
        raise GeometryError(f"expected {count} numbers as {name}; got {len(values)} in {file.path}")
    return values


def _items(dataset: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    value: Any = dataset.get(name)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def _group(frame: pydicom.Dataset, shared: pydicom.Dataset, name: str) -> pydicom.Dataset:
    """What a frame says of itself, or all frames say together; an empty data set where neither does."""
    return next(iter([*_items(frame, name), *_items(shared, name)]), pydicom.Dataset())


def _check_values(files: Sequence[_File], where: Path) -> None:
    """Raise `InputError` where the voxels are no intensities, or not of one scale."""
    header = files[0].header
    kind = header.get("SOPClassUID")
    if kind == _SEGMENTATION:
        raise InputError(
            f"expected an image; got a DICOM segmentation, {where}: save it as .nii.gz or .nrrd, for instance in Slicer"
        )
    frames = _items(header, "PerFrameFunctionalGroupsSequence")
    scales = {_scale(_group(frame, pydicom.Dataset(), "PixelValueTransformationSequence")) for frame in frames}
    if len(scales) > 1:
        raise InputError(f"expected one scale of the values of all frames; got {len(scales)} in {where}")


def _scale(dataset: pydicom.Dataset) -> tuple[str, str]:
    return str(dataset.get("RescaleSlope")), str(dataset.get("RescaleIntercept"))


def _voxels(files: Sequence[_File], stack: Stack, where: Path) -> sitk.Image:
    """The frames in the order of the stack; each file is read by itself, so that each has its own scale of values."""
    for file in files:
        content = file.path.read_bytes()
        count = int(file.header.Rows) * int(file.header.Columns) * _frame_count(file.header)
        if not _is_complete(content) or count > _HIGHEST_RATIO * len(content):
            raise InputError(f"expected complete files in {where}; got {file.path.name}, which is cut off")
    arrays = [_array(file.path) for file in ([files[n] for n in stack.order] if len(files) > 1 else files)]
    try:
        voxels = np.concatenate(arrays)
    except ValueError as error:
        raise InputError(f"expected slices of one size in {where}; got several") from error
    if len(voxels) != len(stack.order):
        raise InputError(f"expected {len(stack.order)} frames; got {len(voxels)} in {where}")
    return sitk.GetImageFromArray(voxels if len(files) > 1 else voxels[list(stack.order)])


def _array(path: Path) -> np.ndarray[Any, Any]:
    """(D, H, W)."""
    with quiet_itk():
        try:
            image = sitk.ReadImage(itk_name(path))
        except ITK_ERRORS as error:
            if "spacing" in str(error).lower():
                raise GeometryError(f"expected positive spacings; got 0 between the slices in {path}") from error
            raise InputError(f"expected a complete image; got {path}, which is damaged ({last_line(error)})") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"expected an image with one value per voxel; got {image.GetNumberOfComponentsPerPixel()} in {path}"
        )
    array = sitk.GetArrayFromImage(image)
    return cast("np.ndarray[Any, Any]", array[None] if array.ndim == 2 else array)


def _is_complete(content: bytes) -> bool:
    """Whether a DICOM file holds the pixels that it promises; older releases of ITK fill up what is missing."""
    place = max(content.rfind(_PIXEL_DATA + kind) for kind in (b"OW\0\0", b"OB\0\0"))
    start = place + 12
    if place < 0:
        place = content.rfind(_PIXEL_DATA)  # implicit VR
        start = place + 8
    if place < 0 or len(content) < start:
        return False
    length = int.from_bytes(content[start - 4 : start], "little")
    if length == _UNDEFINED_LENGTH:
        return _SEQUENCE_END in content[-4096:]
    return start + length <= len(content)
