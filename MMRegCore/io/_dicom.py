"""Which files of a folder make the DICOM series, and whether its slices form a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io._itk import quiet_itk

_POSITION = "0020|0032"
_ORIENTATION = "0020|0037"
_PIXEL_DATA, _SEQUENCE_END, _UNDEFINED_LENGTH = b"\xe0\x7f\x10\x00", b"\xfe\xff\xdd\xe0", 0xFFFFFFFF
# Share of the slice distance by which distances may differ.
_DISTANCE_TOLERANCE = 0.02
# Slices may stray this far from the line along their normal.
_TILT_TOLERANCE_MM = 0.1


def series_files(folder: Path) -> tuple[str, ...]:
    """The files of the one series in ``folder``, in the order of their position.

    Raises
    ------
    InputError
        When the folder holds no series, or several of which not exactly one has more than one slice.
    GeometryError
        When the slices do not lie on a regular grid.
    """
    with quiet_itk():
        ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        series = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in ids}
        if not series:
            raise InputError(f"expected a folder with a DICOM series; got {folder}, which holds none")
        stacks = [files for files in series.values() if len(files) > 1]
        if len(series) > 1 and len(stacks) != 1:
            names = ", ".join(f"{uid} ({len(files)} files)" for uid, files in series.items())
            raise InputError(f"expected one DICOM series in {folder}; got {len(series)}: {names}")
        files = stacks[0] if stacks else next(iter(series.values()))
        if len(files) > 1:
            _check_slices(folder, files)
        for file in files:
            if not _is_complete(Path(file).read_bytes()):
                raise InputError(f"expected complete files in {folder}; got {Path(file).name}, which is cut off")
    return tuple(files)


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


def _check_slices(folder: Path, files: Sequence[str]) -> None:
    """ITK only warns, and then stacks unevenly spaced or tilted slices as if they were regular."""
    geometry = [_slice_geometry(folder, file) for file in files]
    positions = np.array([position for position, _ in geometry])
    normal = np.cross(geometry[0][1][:3], geometry[0][1][3:])
    along = (positions - positions[0]) @ normal
    steps = np.diff(along)
    middle = float(np.median(np.abs(steps)))
    if middle <= 0 or np.abs(np.abs(steps) - middle).max() > _DISTANCE_TOLERANCE * middle:
        raise GeometryError(
            f"expected evenly spaced slices in {folder}; got distances from {np.abs(steps).min():.3f} to "
            f"{np.abs(steps).max():.3f} mm: a slice is missing, doubled, or of another acquisition"
        )
    stray = float(np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1).max())
    if stray > _TILT_TOLERANCE_MM:
        raise GeometryError(
            f"expected the slices in {folder} to be stacked along their normal; got a shift of {stray:.2f} mm "
            "(a tilted gantry): resample them first"
        )


def _slice_geometry(folder: Path, file: str) -> tuple[list[float], list[float]]:
    """Position (3,) and row and column direction (6,) of a slice, LPS mm."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
        position, orientation = (
            [float(v) for v in reader.GetMetaData(tag).split("\\")] for tag in (_POSITION, _ORIENTATION)
        )
    except (RuntimeError, ValueError) as error:
        raise GeometryError(
            f"expected every slice in {folder} to state its position; got none in {Path(file).name}"
        ) from error
    return position, orientation
