"""Slicer's segmentations (.seg.nrrd): a label map, or several in one file, with names, colours and ids of segments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk

from MMRegCore.io import _nrrd
from MMRegCore.io._itk import ITK_ERRORS, quiet_itk
from MMRegCore.io.files import PathLike, itk_name
from MMRegCore.io.volumes import write_itk_image

_PREFIX = "Segment"
# Of the old grid: Slicer finds its own.
_STALE = "Segmentation_ConversionParameters"
_OFFSET = "Segmentation_ReferenceImageExtentOffset"


def read_segment_fields(path: PathLike) -> dict[str, str]:
    """What an NRRD file says of its segments; nothing for another file.  Raises as `read_volume` does."""
    path = Path(path)
    if not path.is_file() or path.suffix.lower() not in (".nrrd", ".nhdr"):
        return {}
    with path.open("rb") as file:
        if file.read(len(_nrrd.MAGIC)) != _nrrd.MAGIC:
            return {}
    _nrrd.read_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_name(path))
    with quiet_itk():
        try:
            reader.ReadImageInformation()
        except ITK_ERRORS:
            return {}  # the reader of images says why
        keys = [key for key in reader.GetMetaDataKeys() if isinstance(key, str) and key.startswith(_PREFIX)]
        fields = {key: reader.GetMetaData(key) for key in keys if key.isascii()}
    texts = {key: value for key, value in fields.items() if _is_text(value)}
    return texts if f"{_PREFIX}0_ID" in texts else {}


def _is_text(value: object) -> bool:
    """Whether a value is UTF-8, as ITK takes it back."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def write_segmentation(image: sitk.Image, fields: Mapping[str, str], path: PathLike) -> None:
    """Write a label map as Slicer's segmentation, with the fields that `read_segment_fields` found.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    whole = " ".join(f"0 {size - 1}" for size in image.GetSize())
    for key, value in fields.items():
        if key != _STALE:
            image.SetMetaData(key, whole if key.endswith("_Extent") else "0 0 0" if key == _OFFSET else value)
    write_itk_image(image, path)
