"""How a result came about; ``result.json`` holds it under ``provenance``."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

import numpy as np
import torch

from MMRegCore.geometry import Array, Grid
from MMRegCore.runtime import package_version
from MMRegCore.transform import SpatialTransform, simple_parts
from MMRegCore.version import __version__
from MMRegCore.volume import Reading, Volume

SecondSearch = Literal["used", "in doubt"]


@dataclass(frozen=True)
class ImageRecord:
    """An input image: enough to find it again, nothing of the patient but what its file is called.

    ``reading`` tells what was taken from its file; None for an image that was made.
    """

    name: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    ras_from_ijk: tuple[tuple[float, ...], ...]
    mask_voxels: int | None
    sha256_of_voxels: str
    reading: Reading | None
    sha256_of_mask: str | None = None


@dataclass(frozen=True)
class InitialTransformRecord:
    """The initial transform: its linear part (RAS mm), whether that is all of it, and what to know it again by."""

    linear_ras: tuple[tuple[float, ...], ...]
    is_linear: bool
    sha256_of_parameters: str | None = None

    @classmethod
    def of(cls, transform: SpatialTransform) -> InitialTransformRecord:
        """Of a transform."""
        return cls(_rows(transform.linear_ras.tolist()), transform.is_linear, sha256_of_parameters(transform))


@dataclass(frozen=True)
class LandmarkRecord:
    """Landmark pairs that guided the registration: points in RAS mm, their standard deviation along each axis.

    ``start_ras`` (RAS mm) is what was fitted to them; it follows the initial transform.
    """

    fixed_ras: tuple[tuple[float, ...], ...]
    moving_ras: tuple[tuple[float, ...], ...]
    error_mm: float
    start_ras: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, fixed_ras: Array, moving_ras: Array, error_mm: float, start_ras: Array) -> LandmarkRecord:
        """Of points (N, 3) each, and a matrix (4, 4)."""
        return cls(_rows(fixed_ras.tolist()), _rows(moving_ras.tolist()), error_mm, _rows(start_ras.tolist()))


@dataclass(frozen=True)
class WorkingGrid:
    """The grid that the work happened on."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(cls, grid: Grid) -> WorkingGrid:
        """Of a grid."""
        return cls(grid.shape, tuple(round(float(v), 4) for v in grid.spacing_mm))


@dataclass(frozen=True)
class Versions:
    """Of MMReg and what it runs on; None where a package does not tell."""

    mmreg: str
    torch: str | None
    simpleitk: str | None
    numpy: str | None
    python: str
    platform: str


@dataclass(frozen=True)
class Provenance:
    """Inputs, settings, versions, device and timings of one registration."""

    versions: Versions
    fixed: ImageRecord
    moving: tuple[ImageRecord, ...]
    initial_transform: InitialTransformRecord | None
    preset: str | None
    settings: dict[str, Any]
    second_search: SecondSearch | None
    seed: int
    device: str
    threads: int
    memory_budget_bytes: int
    peak_memory_bytes: int | None
    working_grid: WorkingGrid
    timings_s: dict[str, float]
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    landmarks: LandmarkRecord | None = None


def image_record(volume: Volume) -> ImageRecord:
    """The record of an input image."""
    return ImageRecord(
        volume.name,
        volume.grid.shape,
        tuple(round(float(v), 6) for v in volume.grid.spacing_mm),
        _rows(volume.grid.ras_from_ijk.tolist()),
        None if volume.mask is None else int(volume.mask.sum()),
        sha256_of(volume.data),
        volume.reading,
        None if volume.mask is None else sha256_of(volume.mask),
    )


def sha256_of(values: torch.Tensor) -> str:
    """SHA-256 of the bytes of a tensor, last axis fastest."""
    return hashlib.sha256(values.contiguous().cpu().numpy().tobytes()).hexdigest()


def sha256_of_parameters(transform: SpatialTransform) -> str:
    """SHA-256 of the kinds and all parameters of a transform, in ITK's order, as 64-bit floats."""
    digest = hashlib.sha256()
    for part in simple_parts(transform.itk):
        digest.update(f"{part.GetName()};".encode())
        for numbers in (part.GetFixedParameters(), part.GetParameters()):
            digest.update(np.asarray(numbers, dtype=np.float64).tobytes())
    return digest.hexdigest()


def versions() -> Versions:
    """Of this installation."""
    return Versions(
        __version__,
        torch.__version__,
        package_version("SimpleITK"),
        package_version("numpy"),
        platform.python_version(),
        platform.platform(),
    )


def _rows(matrix: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix)
