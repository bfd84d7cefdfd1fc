"""The result of a registration, and the folder that it is saved to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from MMRegCore.assessment.assess import Assessment, QualityMap
from MMRegCore.assessment.quality import SCHEMA_VERSION
from MMRegCore.io.files import staged_folder
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.provenance import Provenance
from MMRegCore.records import to_json
from MMRegCore.report.report import write_report
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume


@dataclass(frozen=True, eq=False)
class RegistrationResult:
    """What a registration gives.

    Attributes
    ----------
    transform : SpatialTransform
        Fixed to moving, the initial transform included: a linear part that holds everywhere, after a residual that
        fades to zero around the fixed image.
    warped : tuple of Volume
        Each moving image on the fixed grid.
    assessment : Assessment
        Numbers and maps that tell how far to believe the result.
    provenance : Provenance
        Inputs, settings, versions, device, timings.
    """

    transform: SpatialTransform
    warped: tuple[Volume, ...]
    assessment: Assessment
    provenance: Provenance

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "provenance": to_json(self.provenance),
            "quality": to_json(self.assessment.quality),
        }

    def save(self, folder: Path, *, fixed: Volume, transform_only: bool = False) -> None:
        """Write ``transform.h5`` and ``result.json``, and unless ``transform_only`` the warped images, maps and report.

        All files appear together or, when one cannot be written (`InputError`), none does.
        """
        with staged_folder(Path(folder)) as staging:
            write_transform(self.transform, staging / "transform.h5")
            text = json.dumps(self.to_json(), indent=2, allow_nan=False)
            (staging / "result.json").write_text(text, encoding="utf-8")
            if transform_only:
                return
            for volume in self.warped:
                write_volume(volume, staging / f"warped_{volume.name}.nii.gz")
            for found in self.assessment.maps:
                write_map(found, self.assessment.mask, staging)
            title = f"{', '.join(volume.name for volume in self.warped)} to {fixed.name}"
            write_report(staging / "report.html", fixed, self.assessment, to_json(self.provenance), title=title)


def write_map(found: QualityMap, mask: torch.Tensor, folder: Path) -> None:
    """Write a quality map under the name in its summary; outside the mask (D, H, W) with its background value."""
    shown = torch.where(mask.cpu(), found.volume.data, torch.tensor(found.spec.background))
    write_volume(found.volume.with_data(shown), folder / found.summary.file)
