"""The maps of an assessment as files, for the eye: on the fixed grid, told where there is evidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from MMRegCore.io import write_volume
from MMRegCore.qa.metrics import Assessment

# Map → what its file is called before '.nii.gz', in the order of a reader's interest.
MAP_FILES: Mapping[str, str] = MappingProxyType(
    {
        "expected_error_mm": "expected_error",
        "displacement_mm": "displacement",
        "jacobian_determinant": "jacobian_determinant",
        "inverse_consistency_error_mm": "inverse_consistency_error",
    }
)
# What stands where nothing was measured: no change of volume; every other map is a length.
_NEUTRAL = {"jacobian_determinant": 1.0}


def write_maps(assessment: Assessment, folder: Path) -> None:
    """Write every map that the assessment has and `MAP_FILES` names.

    Outside the mask of the assessment the files hold the value that means nothing: 0 mm, or a determinant of 1.

    Parameters
    ----------
    assessment : Assessment
        Its maps are (1, D, H, W) on the fixed grid: lengths in mm, the Jacobian determinant without a unit.
    folder : Path
        Must exist.

    Raises
    ------
    InputError
        When a file cannot be written.
    """
    for name, stem in MAP_FILES.items():
        if name in assessment.maps:
            volume = assessment.maps[name]
            nothing = torch.tensor(_NEUTRAL.get(name, 0.0))
            shown = torch.where(assessment.mask.cpu(), volume.data, nothing)
            write_volume(volume.with_data(shown), folder / f"{stem}.nii.gz")
