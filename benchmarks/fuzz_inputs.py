"""Sound files of every format that MMReg reads, and what may become of them: the inputs of ``benchmarks.fuzz``."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from MMRegCore.io.landmarks import Landmarks, read_landmark_pairs, read_landmarks, read_markups, write_landmarks
from MMRegCore.io.segmentations import read_segment_fields
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import read_volume
from MMRegCore.markups import push_markups
from MMRegCore.transform import SpatialTransform

TRUNCATIONS = 50
_NASTY_TEXTS = (
    b"", b"0", b"-1", b"1", b"nan", b"inf", b"1e999", b"-1e30", b"2147483648", b"99999999999999999999", b"1,5", b"x",
    b"none", b"\xff\xfe", b"\0", b"%s%n", b"../../etc/hostname", b"/etc/hostname", b"LIST", b"LOCAL", b'"', b"(", b"{}",
    b"1 2 3 4 5 6 7 8 9", "ß".encode(), b"a" * 5000,
)  # fmt: skip
_NASTY_NUMBERS = tuple(
    struct.pack(code, value)
    for code, value in (
        ("<h", -1), ("<h", 0), ("<h", 32767), ("<h", 7), ("<i", -1), ("<i", 2**31 - 1), ("<i", 348), ("<i", 540),
        ("<f", float("nan")), ("<f", float("inf")), ("<f", -1e30), ("<f", 0.0), ("<d", float("nan")), ("<d", 1e300),
        ("<I", 0xFFFFFFFF), ("<Q", 2**63), ("<B", 0xFF), ("<B", 0),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader, and sound files for it: name of the file to its content."""

    read: Callable[[Path], object]
    samples: dict[str, bytes]
    is_text: bool = False
    header_bytes: int = 2000


def readers(folder: Path) -> dict[str, Reader]:
    """All readers; ``folder`` is for making the samples."""
    images = _images(folder)
    by_suffix = {
        name: Reader(
            read_volume, {file: raw for file, raw in images.items() if file.endswith(suffixes)}, header_bytes=n
        )
        for name, suffixes, n in (
            ("nifti", (".nii", ".nii.gz"), 352),
            ("nrrd", (".nrrd",), 400),
            ("metaimage", (".mha",), 400),
            ("other images", (".vtk", ".tif", ".gipl", ".mrc", ".png"), 300),
        )
    }
    return {
        **by_suffix,
        "dicom": Reader(read_volume, _dicom(folder), header_bytes=3000),
        "hdf5 transforms": Reader(read_transform, _transforms(folder, "a.h5"), header_bytes=12_000),
        "matlab transforms": Reader(read_transform, _transforms(folder, "a.mat"), header_bytes=1000),
        "text transforms": Reader(read_transform, _text_transforms(folder), is_text=True),
        "displacement fields": Reader(read_transform, _fields(folder), header_bytes=400),
        "landmarks": Reader(read_landmarks, _landmarks(folder), is_text=True),
        "landmark pairs": Reader(read_landmark_pairs, _pairs(), is_text=True),
        "markups": Reader(_push, _markups(), is_text=True),
        "segmentations": Reader(_segmentation, _segmentations(folder), header_bytes=800),
    }


def damaged(reader: Reader) -> st.SearchStrategy[tuple[str, bytes]]:
    """Name and content of a file that was sound: a field changed, cut off, of the wrong type, bytes replaced."""
    names = sorted(reader.samples)
    changed = st.one_of([_changed(each, reader) for each in sorted(reader.samples.items())])
    wrong = st.tuples(st.sampled_from(names), st.sampled_from(sorted(reader.samples.values())))
    return st.one_of(changed, changed, changed, wrong, st.tuples(st.sampled_from(names), st.binary(max_size=400)))


def _changed(sample: tuple[str, bytes], reader: Reader) -> st.SearchStrategy[tuple[str, bytes]]:
    name, raw = sample
    packed = name.endswith(".gz")
    plain = gzip.decompress(raw) if packed else raw
    kinds = [st.integers(0, TRUNCATIONS).map(lambda n: plain[: len(plain) * n // TRUNCATIONS])]
    kinds.append(st.builds(_line_changed, st.just(plain), st.integers(0, 60), st.sampled_from(_NASTY_TEXTS)))
    kinds.append(st.builds(_word_changed, st.just(plain), st.integers(0, 200), st.sampled_from(_NASTY_TEXTS)))
    if not reader.is_text:
        place = st.integers(0, min(len(plain), reader.header_bytes))
        numbers = st.lists(st.tuples(place, st.sampled_from(_NASTY_NUMBERS)), min_size=1, max_size=3)
        kinds.append(st.builds(_bytes_changed, st.just(plain), numbers))
    contents = st.one_of(kinds)
    return contents.map(lambda content: (name, gzip.compress(content, 1) if packed else content))


def _line_changed(raw: bytes, number: int, value: bytes) -> bytes:
    lines = raw.split(b"\n")
    number %= len(lines)
    key, sign, _ = re.match(rb"([^:=]*)([:=]?)(.*)", lines[number], re.DOTALL).groups()  # type: ignore[union-attr]
    lines[number] = key + sign + b" " + value if sign else value
    return b"\n".join(lines)


def _word_changed(raw: bytes, number: int, value: bytes) -> bytes:
    places = [found.span() for found in re.finditer(rb"[^\s,;:()\[\]{}\"]+", raw[:4000])]
    if not places:
        return raw
    start, end = places[number % len(places)]
    return raw[:start] + value + raw[end:]


def _bytes_changed(raw: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    made = bytearray(raw)
    for place, value in changes:
        made[place : place + len(value)] = value
    return bytes(made)


def _made(folder: Path, names: list[str], write: Callable[[str], None]) -> dict[str, bytes]:
    found = {}
    for name in names:
        write(str(folder / name))
        found[name] = (folder / name).read_bytes()
    return found


def _voxels() -> sitk.Image:
    image = sitk.GetImageFromArray(np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4))
    image.SetOrigin((10.0, 20.0, 30.0))
    image.SetSpacing((1.0, 2.0, 3.0))
    return image


def _images(folder: Path) -> dict[str, bytes]:
    image = _voxels()
    names = [f"a{suffix}" for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".vtk", ".tif", ".gipl", ".mrc")]
    found = _made(folder, names, lambda path: sitk.WriteImage(image, path, False))
    packed = _made(folder, ["b.nrrd", "b.mha"], lambda path: sitk.WriteImage(image, path, True))
    flat = _made(folder, ["b.png"], lambda path: sitk.WriteImage(sitk.Cast(image, sitk.sitkUInt8)[:, :, 0], path))
    return {**found, **packed, **flat}


def _dicom(folder: Path) -> dict[str, bytes]:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = {}
    for name, count in (("frames.dcm", 3), ("slice.dcm", 1)):
        made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
        made.Rows, made.Columns, made.NumberOfFrames, made.SamplesPerPixel = 3, 4, count, 1
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
        made.PhotometricInterpretation, made.SliceThickness, made.PixelSpacing = "MONOCHROME2", 2, [1, 1]
        made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        if count > 1:
            made.PerFrameFunctionalGroupsSequence = [_frame(k) for k in range(count)]
        made.PixelData = bytes(24 * count)
        made.save_as(folder / name, enforce_file_format=True)
        found[name] = (folder / name).read_bytes()
    return found


def _frame(k: int) -> pydicom.Dataset:
    frame, place, axes, measures = (pydicom.Dataset() for _ in range(4))
    place.ImagePositionPatient, axes.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [1, 1]
    frame.PlanePositionSequence, frame.PlaneOrientationSequence = [place], [axes]
    frame.PixelMeasuresSequence = [measures]
    return frame


def _transforms(folder: Path, name: str) -> dict[str, bytes]:
    spline = sitk.BSplineTransform([sitk.Image(5, 5, 5, sitk.sitkFloat64)] * 3, 3)
    composite = sitk.CompositeTransform([sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3), spline])
    transform = composite if name.endswith(".h5") else sitk.AffineTransform(3)
    return _made(folder, [name], lambda path: sitk.WriteTransform(transform, path))


def _text_transforms(folder: Path) -> dict[str, bytes]:
    pair = sitk.CompositeTransform([sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3), sitk.AffineTransform(3)])
    found = _made(folder, ["a.tfm", "a.txt"], lambda path: sitk.WriteTransform(pair, path))
    minc = b"MNI Transform File\n%x\n\nTransform_Type = Linear;\nLinear_Transform =\n 1 0 0 3\n 0 1 0 -5\n 0 0 1 7;\n"
    return {**found, "a.xfm": minc, "b.mat": b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"}


def _fields(folder: Path) -> dict[str, bytes]:
    vectors = sitk.Compose([_voxels()] * 3)
    return _made(folder, ["f.nii.gz", "f.nrrd", "f.mha"], lambda path: sitk.WriteImage(vectors, path, False))


def _landmarks(folder: Path) -> dict[str, bytes]:
    points = Landmarks(np.arange(9.0).reshape(3, 3), ("a", "b", "c"))
    names = ["a.fcsv", "a.mrk.json", "a.csv", "a.tag"]
    found = _made(folder, names, lambda path: write_landmarks(points, path))
    return {**found, "b.csv": b"label;x;y;z\nF-1;12,5;-3,25;40\n", "c.csv": b"label,r,a,s,defined\nF-1,1,2,3,1\n"}


def _pairs() -> dict[str, bytes]:
    tag = b'MNI Tag Point File\nVolumes = 2;\n\nPoints =\n 1 2 3 4 5 6 "a"\n 7 8 9 10 11 12 "b";\n'
    table = b"# CoordinateSystem = LPS\nlabel,mr_x,mr_y,mr_z,us_x,us_y,us_z\na,1,2,3,4,5,6\nb,7,8,9,10,11,12\n"
    return {"a.csv": table, "b.csv": b"1,2,3,4,5,6\n7,8,9,10,11,12\n", "a.tag": tag}


def _push(path: Path) -> object:
    return push_markups(read_markups(path), SpatialTransform.identity())


def _markups() -> dict[str, bytes]:
    point = {"id": "1", "label": "a", "position": [1.0, 2.0, 3.0], "orientation": [1.0, 0, 0, 0, 1, 0, 0, 0, 1]}
    plane = {
        "type": "Plane",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "center": [1.0, 2.0, 3.0],
        "normal": [0.0, 0.0, 1.0],
        "baseToNode": [1.0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1],
        "controlPoints": [{**point, "positionStatus": "defined"}],
        "measurements": [{"name": "area", "value": 3.0}],
    }
    return {"a.mrk.json": json.dumps({"markups": [plane]}, indent=1).encode()}


def _segmentation(path: Path) -> object:
    return read_segment_fields(path), read_volume(path)


def _segmentations(folder: Path) -> dict[str, bytes]:
    image = sitk.Cast(_voxels() > 5, sitk.sitkUInt8)
    for key, value in (("ID", "s1"), ("Name", "tumour"), ("Extent", "0 3 0 2 0 1"), ("Color", "1 0 0")):
        image.SetMetaData(f"Segment0_{key}", value)
    return _made(folder, ["a.seg.nrrd"], lambda path: sitk.WriteImage(image, path, False))
