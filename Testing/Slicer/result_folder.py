"""A result folder as the core writes it, with a verdict and maps of one's choice."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from MMRegCore.assessment.maps import find_map
from MMRegCore.assessment.quality import (
    SCHEMA_VERSION,
    Distribution,
    JacobianSummary,
    MapSummary,
    Quality,
    Region,
    RigidPart,
    Verdict,
)
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.records import to_json
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

REVIEW = Verdict("review", ("The MR covers only 60 % of the ultrasound.", "The expected error is 1.2 mm."), 1.2)
_NOTHING = Distribution(None, None, None)
_QUALITY = Quality(
    Region(1, 1.0, 1.0, (1.0, 1.0, 1.0)),
    _NOTHING,
    RigidPart(0.0, (0.0, 0.0, 0.0), 0.0),
    _NOTHING,
    JacobianSummary(None, None, None, None, None, 0, 0.0),
    (),
    (),
    None,
    REVIEW,
    (),
)
# A map that the module cannot know of, with its background at the upper limit.
LATER = MapSummary(
    "of_a_later_core",
    "of_a_later_core.nii.gz",
    "Of a later core",
    "",
    "",
    ("#0000ff", "#00ff00"),
    (-1.0, 2.0),
    2.0,
    _NOTHING,
)


def summary_of(name: str, volume: Volume) -> MapSummary:
    """How the core describes one of its maps."""
    spec = find_map(name)
    limits = spec.limits_of(volume.data)
    return MapSummary(
        name, f"{name}.nii.gz", spec.title, spec.unit, spec.sentence, spec.colours, limits, spec.background, _NOTHING
    )


def result_json(verdict: Verdict = REVIEW, maps: Sequence[MapSummary] = ()) -> str:
    """The text of ``result.json``."""
    quality = replace(_QUALITY, verdict=verdict, maps=tuple(maps))
    return json.dumps({"schema_version": SCHEMA_VERSION, "provenance": {}, "quality": to_json(quality)})


def write_result(
    folder: Path, transform: SpatialTransform, volume: Volume, maps: Sequence[MapSummary | str] = ("expected_error",)
) -> None:
    """Write the transform, the volume as ``warped_T1`` and as every map, the numbers and a report."""
    summaries = [each if isinstance(each, MapSummary) else summary_of(each, volume) for each in maps]
    write_transform(transform, folder / "transform.h5")
    for file in ("warped_T1.nii.gz", *(each.file for each in summaries)):
        write_volume(volume, folder / file)
    (folder / "result.json").write_text(result_json(maps=summaries), encoding="utf-8")
    (folder / "report.html").write_text("<html>Größe</html>", encoding="utf-8")
