"""What landmarks that guided a registration did to it, and what is left of their distances."""

from __future__ import annotations

from MMRegCore.assessment.quality import GivenLandmarks, LandmarkDistances
from MMRegCore.search.landmarks import LandmarkPairs, LandmarkStart
from MMRegCore.search.selection import LandmarkUse
from MMRegCore.transform import SpatialTransform


def given_landmarks(start: LandmarkStart, use: LandmarkUse, transform: SpatialTransform) -> GivenLandmarks:
    """Measure the distances of the pairs before, under the start that they gave, and after the registration."""
    pairs = start.pairs
    return GivenLandmarks(
        count=len(pairs),
        error_mm=pairs.error_mm,
        motion=start.motion,
        use=use,
        given=_distances(pairs, start.initial),
        start=_distances(pairs, start.transform),
        after=_distances(pairs, transform),
        farthest=pairs.labels[int(pairs.residuals_mm(transform).argmax())],
    )


def _distances(pairs: LandmarkPairs, transform: SpatialTransform) -> LandmarkDistances:
    residuals_mm = pairs.residuals_mm(transform)
    return LandmarkDistances(float(residuals_mm.mean()), float(residuals_mm.max()))
