"""The numbers of an assessment; ``result.json`` holds them under ``quality`` (docs/result.schema.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from MMRegCore.errors import InputError
from MMRegCore.records import from_json
from MMRegCore.search.selection import LandmarkMotion, LandmarkUse, ModelSelection

Level = Literal["accept", "review", "reject"]
# Of result.json; raised when a key is renamed or goes.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Distribution:
    """Values inside the ultrasound's field of view; None where there is no finite one."""

    mean: float | None
    p95: float | None
    max: float | None


@dataclass(frozen=True)
class Region:
    """Where everything was measured: the foreground of the fixed image."""

    voxels: int
    share_of_grid: float
    volume_ml: float
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class RigidPart:
    """The rigid transform nearest to the displacement: shift of the region's centroid (RAS) and angle."""

    translation_mm: float
    translation_ras_mm: tuple[float, ...]
    rotation_deg: float


@dataclass(frozen=True)
class JacobianSummary:
    """Local volume change, from fixed to moving: 1 keeps the volume, 0 or less folds."""

    min: float | None
    p01: float | None
    p99: float | None
    max: float | None
    log_standard_deviation: float | None
    folding_voxels: int
    folding_share: float


@dataclass(frozen=True)
class ImageComparison:
    """A moving image against the fixed one, where it covers it under both the initial and the final transform."""

    name: str
    coverage_before: float
    coverage_after: float
    compared_share: float
    nmi_before: float | None
    nmi_after: float | None
    mind_distance_before: float | None
    mind_distance_after: float | None


@dataclass(frozen=True)
class MapSummary:
    """A quality map, and how it is shown."""

    name: str
    file: str  # in the folder of ``result.json``
    title: str
    unit: str
    sentence: str
    colours: tuple[str, ...]  # '#rrggbb' at even steps from the lower to the upper limit
    limits: tuple[float, float]  # of the colour scale
    background: float  # what the file holds where nothing was measured
    inside: Distribution


@dataclass(frozen=True)
class LandmarkDistances:
    """Distances of moving landmarks from where a transform takes their fixed partners, mm."""

    mean: float
    max: float


@dataclass(frozen=True)
class GivenLandmarks:
    """Landmark pairs that guided the registration: what is left of their distances does not judge the result.

    Attributes
    ----------
    count : int
    error_mm : float
        Standard deviation along each axis that they were given with.
    motion : {'rigid', 'translation'}
        What was fitted to them for the start.
    use : {'start', 'rigid search', 'search'}
        Whether they gave the start only, or stayed as evidence in the rigid search, or in all of it.
    given, start, after : LandmarkDistances
        Under the initial transform that was given, under the start, after the registration.
    farthest : str
        Label of the landmark with the largest distance after the registration.
    """

    count: int
    error_mm: float
    motion: LandmarkMotion
    use: LandmarkUse
    given: LandmarkDistances
    start: LandmarkDistances
    after: LandmarkDistances
    farthest: str


@dataclass(frozen=True)
class Verdict:
    """Whether to believe it, with reasons, the gravest first."""

    level: Level
    reasons: tuple[str, ...]
    expected_error_mm: float | None


@dataclass(frozen=True)
class Quality:
    """All numbers of an assessment.

    Displacements are measured beyond the linear part of the initial transform.
    """

    region: Region
    displacement_mm: Distribution
    rigid: RigidPart
    deformation_mm: Distribution
    jacobian_determinant: JacobianSummary
    moving: tuple[ImageComparison, ...]
    maps: tuple[MapSummary, ...]
    model_selection: ModelSelection | None
    verdict: Verdict
    notes: tuple[str, ...]
    landmarks: GivenLandmarks | None = None  # those that guided the registration


def read_quality(text: str) -> Quality:
    """The quality in the text of a ``result.json``; `InputError` when it is none, of another version, or incomplete."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    version = content.get("schema_version", "none") if isinstance(content, dict) else "no JSON object"
    if version != SCHEMA_VERSION:
        raise InputError(f"expected a result.json of schema version {SCHEMA_VERSION}; got {version}")
    return from_json(Quality, content.get("quality"))
