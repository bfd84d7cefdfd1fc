"""How good one transform or displacement field of a case is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MMRegCore.cohort.cases import Case
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.evaluate.landmarks import paired_points
from MMRegCore.evaluate.learn2reg import Labels, Overlap, jacobian, moved_points, overlap, warped_labels
from MMRegCore.geometry import Array, Grid
from MMRegCore.io.landmarks import read_landmark_pairs, read_landmarks
from MMRegCore.io.learn2reg import read_displacement, read_voxel_landmarks
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import read_itk_image, read_volume
from MMRegCore.transform import SpatialTransform


@dataclass(frozen=True)
class Scores:
    """By Learn2Reg's definitions; None where there is nothing to measure with.

    Lengths of the target registration error are mm; ``tre_30_mm`` is its 30 % quantile; ``hd95_voxel`` is infinite
    where a label was moved out of the image.
    """

    landmarks: int
    tre_before_mm: float | None
    tre_mean_mm: float | None
    tre_sd_mm: float | None
    tre_30_mm: float | None
    dice: float | None
    hd95_voxel: float | None
    sd_log_j: float
    folding_share: float


def find_result(folder: Path, case: Case) -> Path | None:
    """The transform or field of a case in a folder: ``CASE/transform.h5``, the name of Learn2Reg, or ``CASE.*``."""
    names = [f"{case.name}/transform.h5", case.displacement, f"disp_{case.name}.nii.gz"]
    names += [
        f"{case.name}{suffix}"
        for suffix in (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm", ".nii.gz", ".nrrd", ".mha")
    ]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def score(case: Case, path: Path) -> Scores:
    """Score a transform (fixed to moving), a displacement field image (LPS mm), or Learn2Reg's ``disp_*.nii.gz``.

    Raises
    ------
    InputError, GeometryError
        When one of the files cannot be used.
    """
    fixed, moving = grid_of(case.fixed), grid_of(case.moving[0])
    if path.name.startswith("disp_"):
        field, transform = read_displacement(path, fixed=fixed, moving=moving), None
    else:
        transform = read_transform(path)
        field = transform.displacement_field(fixed)
    before, after = _tre(case, field, transform, fixed, moving)
    found = _overlap(case, field)
    volume = jacobian(field)
    return Scores(
        0 if after is None else len(after),
        None if before is None else float(before.mean()),
        None if after is None else float(after.mean()),
        None if after is None or len(after) < 2 else float(after.std(ddof=1)),
        None if after is None else float(np.quantile(after, 0.3)),
        None if found is None else found.dice,
        None if found is None else found.hd95_voxel,
        volume.sd_log_j,
        volume.folding_share,
    )


def grid_of(path: str) -> Grid:
    """Where the voxels of an image file or DICOM folder lie; raises as `read_volume`."""
    return read_volume(path).grid if Path(path).is_dir() else Grid.from_itk(read_itk_image(path))


def _tre(
    case: Case, field: DisplacementField, transform: SpatialTransform | None, fixed: Grid, moving: Grid
) -> tuple[Array | None, Array | None]:
    """Before and after, (N,) each, mm."""
    points = _landmarks(case, fixed, moving)
    if points is None:
        return None, None
    fixed_ras, moving_ras = points
    initial = read_transform(case.initial_transform) if case.initial_transform else SpatialTransform.identity()
    moved = moved_points(field, fixed_ras) if transform is None else transform.apply(fixed_ras)
    before, after = (np.linalg.norm(each - moving_ras, axis=1) for each in (initial.apply(fixed_ras), moved))
    return before, after


def _landmarks(case: Case, fixed: Grid, moving: Grid) -> tuple[Array, Array] | None:
    if case.landmarks:
        return paired_points(*read_landmark_pairs(case.landmarks))
    if (case.fixed_landmarks is None) != (case.moving_landmarks is None):
        raise InputError(f"expected landmarks of both images of '{case.name}'; got those of one")
    if case.fixed_landmarks is None or case.moving_landmarks is None:
        return None
    if case.landmarks_in_voxels:
        sides = (case.fixed_landmarks, fixed), (case.moving_landmarks, moving)
        return paired_points(*(read_voxel_landmarks(path, grid) for path, grid in sides))
    return paired_points(read_landmarks(case.fixed_landmarks), read_landmarks(case.moving_landmarks))


def _overlap(case: Case, field: DisplacementField) -> Overlap | None:
    if case.fixed_labels is None or case.moving_labels is None:
        return None
    (fixed, grid), (moving, moving_grid) = _labels(case.fixed_labels), _labels(case.moving_labels)
    seen = field if grid.matches(field.grid) else field.on_grid(grid)
    return overlap(fixed, moving, warped_labels(moving, moving_grid, seen))


def _labels(path: str) -> tuple[Labels, Grid]:
    volume = read_volume(path)
    return volume.data[0].nan_to_num().round().long().numpy(), volume.grid
