"""A registration done again from its ``result.json``: whether the transform is the same, and why it may not be."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MMRegCore.assessment.quality import SCHEMA_VERSION
from MMRegCore.config import RegistrationSettings
from MMRegCore.errors import InputError, MMRegError
from MMRegCore.geometry import Grid
from MMRegCore.intensities import without_outliers
from MMRegCore.io.files import stem_of, suffix_of
from MMRegCore.io.transforms import TRANSFORM_SUFFIXES, read_transform, write_transform
from MMRegCore.io.volumes import read_mask, read_volume
from MMRegCore.monitor import Monitor
from MMRegCore.pipeline import register
from MMRegCore.provenance import (
    ImageRecord,
    InitialTransformRecord,
    Provenance,
    image_record,
    sha256_of,
    sha256_of_parameters,
)
from MMRegCore.records import from_json, read_json
from MMRegCore.result import TRANSFORM_FILE, RegistrationResult
from MMRegCore.runtime import GIB
from MMRegCore.segmentation.field_of_view import with_field_of_view
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".hdr", ".img")
# In a folder, a series of slices.
_SLICE_SUFFIXES = (".dcm", ".ima", "")
_MASK_WORDS = ("mask", "label", "seg", "cone")
_VERSIONS = ("mmreg", "torch", "simpleitk", "numpy", "python", "platform")


@dataclass(frozen=True)
class Inputs:
    """What a registration was made of, found again, and where."""

    fixed: Volume
    moving: tuple[Volume, ...]
    initial: SpatialTransform | None
    paths: Mapping[str, str]  # name of each input: its file


@dataclass(frozen=True)
class Replay:
    """What a second run gave.

    Attributes
    ----------
    same : bool
        Whether every parameter of the two transforms has the same bytes.
    largest_difference_mm, mean_difference_mm : float
        Distance between where the two transforms take the voxels in the field of view of the fixed image.
    may_differ_because : tuple of str
        What is not as it was: software, device, threads, …; empty where all is.
    inputs : dict of str to str
        The file that each input was found in.
    """

    same: bool
    largest_difference_mm: float
    mean_difference_mm: float
    may_differ_because: tuple[str, ...]
    inputs: dict[str, str]


def read_provenance(path: Path) -> Provenance:
    """Read how a result came about from its ``result.json``.

    Files of earlier versions of MMReg with this or an earlier schema version are read.  Raises `InputError` when it is
    no such file.
    """
    content = read_json(path, "a result.json of MMReg")
    version = content.get("schema_version", "none")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise InputError(f"expected {path} to have schema version 1 to {SCHEMA_VERSION}; got {version}")
    return from_json(Provenance, content.get("provenance", {}))


def find_inputs(provenance: Provenance, places: Sequence[Path]) -> Inputs:
    """Find the inputs of a registration by their checksums.

    Parameters
    ----------
    provenance : Provenance
    places : sequence of path
        Image and transform files, DICOM folders, and folders that are searched with all that is in them; files that
        are called as the input was are read first.

    Raises
    ------
    InputError
        When an input is in none of them; names all that are missing.
    """
    candidates = list(dict.fromkeys(_candidates(places)))
    paths: dict[str, str] = {}
    missing: list[str] = []
    found: list[Volume] = []
    for record in (provenance.fixed, *provenance.moving):
        volume = _image(record, candidates, paths, missing)
        if volume is not None:
            found.append(replace(volume, name=record.name))
    initial = _initial(provenance.initial_transform, candidates, paths, missing)
    if missing:
        where = ", ".join(map(str, places))
        raise InputError(f"expected the inputs of this result in {where}; got none that is {' or '.join(missing)}")
    return Inputs(found[0], tuple(found[1:]), initial, paths)


def replay(
    path: Path,
    places: Sequence[Path],
    *,
    device: str | None = None,
    monitor: Monitor | None = None,
) -> tuple[Replay, Inputs, RegistrationResult]:
    """Do the registration of a ``result.json`` again and compare with the ``transform.h5`` beside it.

    With the threads that PyTorch has now; ``device`` is that of the record when None.

    Raises
    ------
    InputError, GeometryError, DeviceError, Cancelled
        When the file is no result, an input is not found, or as `register`.
    """
    provenance, monitor = read_provenance(path), monitor or Monitor()
    settings = RegistrationSettings.from_dict(provenance.settings)
    before = read_transform(path.parent / TRANSFORM_FILE)
    monitor.report("finding the inputs", 0.0)
    inputs = find_inputs(provenance, places)
    result = register(
        inputs.fixed,
        inputs.moving,
        settings=settings,
        initial_transform=inputs.initial,
        **_landmarks(provenance),
        device=device or provenance.device,
        memory_gb=max(0.1, provenance.memory_budget_bytes / GIB),
        seed=provenance.seed,
        monitor=monitor.part(0.05, 0.98),
    )
    after = _from_file(result.transform)
    mean, largest = difference_mm(before, after, inputs.fixed)
    reasons = what_changed(provenance, result.provenance)
    same = sha256_of_parameters(before) == sha256_of_parameters(after)
    return Replay(same, largest, mean, reasons, dict(inputs.paths)), inputs, result


def _landmarks(provenance: Provenance) -> dict[str, Any]:
    """What `register` was told of landmarks; the record holds every digit."""
    record = provenance.landmarks
    if record is None:
        return {}
    points = (np.array(record.fixed_ras), np.array(record.moving_ras))
    return {"landmarks": points, "landmark_error_mm": record.error_mm}


def _from_file(transform: SpatialTransform) -> SpatialTransform:
    """A transform as it comes back from a file, which merges its linear parts."""
    with tempfile.TemporaryDirectory() as folder:
        write_transform(transform, Path(folder, TRANSFORM_FILE))
        return read_transform(Path(folder, TRANSFORM_FILE))


def difference_mm(first: SpatialTransform, second: SpatialTransform, fixed: Volume) -> tuple[float, float]:
    """Mean and largest distance, in mm, between what two transforms make of the voxels in the field of view."""
    inside = with_field_of_view(without_outliers(fixed)).foreground
    total, largest, count = 0.0, 0.0, 0
    for mask, grid in zip(inside, fixed.grid.slices(), strict=True):
        if mask.any():
            one, two = (each.displacement_field(grid).displacement_mm[0].double() for each in (first, second))
            distance = torch.linalg.vector_norm(one - two, dim=-1)[mask]
            total, largest = total + float(distance.sum()), max(largest, float(distance.max()))
            count += int(mask.sum())
    return total / max(count, 1), largest


def what_changed(then: Provenance, now: Provenance) -> tuple[str, ...]:
    """What is not as it was, each as 'name: THEN then, NOW now'; the likeliest reason for another result first."""
    pairs: list[tuple[str, Any, Any]] = [
        (name, getattr(then.versions, name), getattr(now.versions, name)) for name in _VERSIONS
    ]
    for name in ("device", "threads", "memory_budget_bytes", "second_search", "working_grid"):
        pairs.append((name, getattr(then, name), getattr(now, name)))
    return tuple(f"{name.replace('_', ' ')}: {a} then, {b} now" for name, a, b in pairs if a != b)


def _candidates(places: Sequence[Path]) -> Iterator[Path]:
    """Files that may be an image or a transform, and folders that may be a series."""
    for place in places:
        if not place.exists():
            raise InputError(f"expected --inputs to be files and folders; got {place}, which does not exist")
        for path in [place] if place.is_file() else [place, *sorted(place.rglob("*"))]:
            if path.is_dir():
                if any(each.is_file() and suffix_of(each) in _SLICE_SUFFIXES for each in path.iterdir()):
                    yield path
            elif suffix_of(path) in (*_IMAGE_SUFFIXES, *TRANSFORM_SUFFIXES):
                yield path


def _image(record: ImageRecord, candidates: Sequence[Path], paths: dict[str, str], missing: list[str]) -> Volume | None:
    # A name that several images had was numbered.
    images = [path for path in candidates if suffix_of(path) not in TRANSFORM_SUFFIXES]
    for path in sorted(images, key=lambda path: not record.name.startswith(stem_of(path)[:100])):
        volume = _read(path)
        if volume is not None and _is_the_one(volume, record):
            paths[record.name] = str(path)
            if record.mask_voxels is None:
                return volume
            mask = _mask(record, volume.grid, images, paths)
            if mask is None:
                missing.append(f"the mask of '{record.name}' ({record.mask_voxels} voxels)")
            return volume.with_mask(mask)
    missing.append(
        f"'{record.name}' ({' × '.join(map(str, record.shape[::-1]))} voxels, {record.sha256_of_voxels[:12]}…)"
    )
    return None


def _read(path: Path) -> Volume | None:
    try:
        return read_volume(path)
    except MMRegError:
        return None


def _is_the_one(volume: Volume, record: ImageRecord) -> bool:
    if volume.grid.shape != record.shape or sha256_of(volume.data) != record.sha256_of_voxels:
        return False
    return image_record(volume).ras_from_ijk == record.ras_from_ijk


def _mask(record: ImageRecord, grid: Grid, images: Sequence[Path], paths: dict[str, str]) -> torch.Tensor | None:
    """(D, H, W) bool; by its checksum, or by its size where the result is of a version that wrote none."""
    for path in sorted(images, key=lambda path: not any(word in path.name.lower() for word in _MASK_WORDS)):
        try:
            mask = read_mask(path, grid)
        except MMRegError:
            continue
        known = sha256_of(mask) == record.sha256_of_mask if record.sha256_of_mask else False
        if known or (record.sha256_of_mask is None and int(mask.sum()) == record.mask_voxels):
            paths[f"{record.name}, mask"] = str(path)
            return mask
    return None


def _initial(
    record: InitialTransformRecord | None, candidates: Sequence[Path], paths: dict[str, str], missing: list[str]
) -> SpatialTransform | None:
    """From its file, which alone has every digit and the part that is not linear; or from the matrix in the record."""
    if record is None:
        return None
    for path in candidates:
        if record.sha256_of_parameters is None or path.is_dir():
            continue
        try:
            transform = read_transform(path)
        except MMRegError:
            continue
        if sha256_of_parameters(transform) == record.sha256_of_parameters:
            paths["initial transform"] = str(path)
            return transform
    if record.is_linear:
        return SpatialTransform.from_matrix(np.array(record.linear_ras))
    missing.append("the initial transform, which is not linear")
    return None
