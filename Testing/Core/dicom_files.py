"""DICOM files for tests, made with pydicom: slices, frames, ultrasound; the patient is in all of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

PATIENT = {"PatientName": "Doe^Jane", "PatientID": "MRN4711", "PatientBirthDate": "19700101"}
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
SECONDARY_CAPTURE, ULTRASOUND_CINE = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.3.1"
ULTRASOUND_VOLUME, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.6.2", "1.2.840.10008.5.1.4.1.1.66.4"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_ROOT = "1.2.826.0.1.3680043.2.1125"


def data_set(array: np.ndarray, sop_class: str = MR, series: int = 1, number: int = 1) -> FileDataset:
    """Voxels (H, W) or (frames, H, W), int16, and nothing that says where they lie."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, f"{_ROOT}.{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for key, value in PATIENT.items():
        setattr(made, key, value)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{_ROOT}.9", f"{_ROOT}.{series}"
    made.Modality, made.InstanceNumber = "MR", number
    made.Rows, made.Columns = array.shape[-2:]
    if array.ndim == 3:
        made.NumberOfFrames = array.shape[0]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    made.PixelData = array.astype("<i2").tobytes()
    return made


def save(made: FileDataset, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    if pydicom.__version__.startswith("2"):
        made.is_little_endian, made.is_implicit_VR = True, False
        made.save_as(path, write_like_original=False)
    else:
        made.save_as(path, enforce_file_format=True)
    return path


def save_bare(path: Path) -> None:
    """Write a file anew as archives before DICOM part 10 did: without its mark and its meta information."""
    bare = pydicom.Dataset({element.tag: element for element in pydicom.dcmread(path)})
    if pydicom.__version__.startswith("2"):
        bare.is_little_endian = bare.is_implicit_VR = True
        bare.save_as(path)
    else:
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)


def write_series(
    folder: Path,
    array: np.ndarray,
    positions: Sequence[Sequence[float]],
    *,
    orientation: Sequence[float] = AXIAL,
    sop_class: str = MR,
    series: int = 1,
    **more: object,
) -> Path:
    """One file for each slice of (D, H, W), with 2 mm between rows and 1 mm between columns."""
    for k, position in enumerate(positions):
        made = data_set(array[k], sop_class, series, k + 1)
        made.ImagePositionPatient, made.ImageOrientationPatient = list(position), list(orientation)
        made.PixelSpacing = [2, 1]
        for key, value in more.items():
            setattr(made, key, value)
        save(made, folder / f"s{series}_{(k * 7) % 97:02d}.dcm")
    return folder


def write_frames(
    path: Path,
    array: np.ndarray,
    positions: Sequence[Sequence[float]],
    *,
    orientations: Sequence[Sequence[float]] | None = None,
    sop_class: str = ENHANCED_MR,
    kind: str = "Patient",
    slopes: Sequence[float] | None = None,
    **more: object,
) -> Path:
    """One enhanced file of several frames; ``kind`` is 'Patient' or, for a volume of ultrasound, 'Volume'."""
    made = data_set(array, sop_class)
    shared, group = pydicom.Dataset(), "" if kind == "Patient" else "Volume"
    measures = pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = [2, 1], 3
    measures.SpacingBetweenSlices = 2.5
    shared.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k, position in enumerate(positions):
        frame, place, axes = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        setattr(place, f"ImagePosition{kind}", list(position))
        setattr(axes, f"ImageOrientation{kind}", list(orientations[k] if orientations else AXIAL))
        setattr(frame, f"PlanePosition{group}Sequence", [place])
        setattr(frame, f"PlaneOrientation{group}Sequence", [axes])
        if slopes is not None:
            scale = pydicom.Dataset()
            scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slopes[k], 0, "US"
            frame.PixelValueTransformationSequence = [scale]
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = frames
    for key, value in more.items():
        setattr(made, key, value)
    return save(made, path)
