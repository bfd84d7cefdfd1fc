"""Part ``contrasts`` of `benchmarks.dns`: T1 and T2 of real patients, a known deformation between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import record
from benchmarks.accuracy import read_rows, write_rows
from benchmarks.dns_descriptors import Descriptors, error_row, error_table, foreground_around, methods, version_of
from MMRegCore import DisplacementField, Volume, read_volume
from MMRegCore.ops import warp
from MMRegCore.prepare import Prepared
from MMRegCore.resampling import resample_smoothed
from MMRegCore.simulate import smooth_random_field
from MMRegCore.volume import Channel

_PATIENTS = {
    "open_ms 07": ("open_ms", "patient07_T1.nii.gz", "patient07_T2.nii.gz"),
    "open_ms 19": ("open_ms", "patient19_T1.nii.gz", "patient19_T2.nii.gz"),
    "tcga fg6692": ("tcga_fg6692", "t1.nii.gz", "t2.nii.gz"),
}
_SMOOTHER = "MIND, twice the regularisation"
_SPACING_MM, _AMPLITUDE_MM, _WAVELENGTH_MM = 1.5, 8.0, 60.0


def between_contrasts() -> None:
    """Register the T2 of each patient to the deformed T1 by every kind of descriptor: ``results/dns-contrasts``."""
    path = record.RESULTS / "dns" / "contrasts.jsonl"
    rows = read_rows(path)
    for name, prepared, truth in _cases():
        brain = prepared.fixed.image[0, 0] > 1e-3
        for how, kind in {"start": None, **_methods()}.items():
            key, version = f"{name}, {how}", _SMOOTHER if how == _SMOOTHER else version_of(how)
            if rows.get(key, {}).get("version") == version:
                continue
            displacement = torch.zeros(1, 3, *prepared.grid.shape) if kind is None else kind.displacement(prepared)
            found = DisplacementField.from_voxel(displacement, prepared.grid)
            error = (found.displacement_mm - truth.displacement_mm).norm(dim=-1)[brain]
            folds = (found.jacobian_determinant()[brain] <= 0).float().mean()
            rows[key] = {"case": key, "method": how, "version": version} | error_row(error, folds)
            write_rows(path, rows)
            print(rows[key], flush=True)
    record.write(
        "dns-contrasts",
        error_table(rows.values(), ["start", *_methods()], "patient"),
        f"T2 to T1 of real patients ({', '.join(_PATIENTS)}), the T1 deformed by a known smooth field (up to "
        f"{_AMPLITUDE_MM:g} mm, waves from {_WAVELENGTH_MM:g} mm) at {_SPACING_MM} mm: instance optimisation on "
        "different descriptors, as they were set between label maps. Error: distance from the known displacement over "
        "the brain. MASR-Net saw no image of a patient.",
        "dns contrasts",
    )


def _methods() -> dict[str, Descriptors]:
    """MIND twice: between people, where it was set, it wants less regularisation than a smooth field does."""
    found = methods()
    settings = found["MIND"].settings
    smoother = replace(settings, regularisation=tuple(2 * weight for weight in settings.regularisation))
    return {**found, _SMOOTHER: replace(found["MIND"], settings=smoother)}


def _cases() -> Iterator[tuple[str, Prepared, DisplacementField]]:
    for seed, (name, (folder, *files)) in enumerate(_PATIENTS.items()):
        t1, t2 = (_coarse(record.data_folder(folder) / file) for file in files)
        truth = smooth_random_field(t1.grid, _AMPLITUDE_MM, _WAVELENGTH_MM, seed=seed)
        deformed = warp(t1.data[None], truth.to_voxel(), padding_mode="zeros")
        weight = foreground_around(deformed > 1e-3)
        moving = Channel(t2.data[None], torch.ones_like(weight))
        yield name, Prepared(t1.grid, Channel(deformed, weight), (moving,)), truth


def _coarse(path: Path) -> Volume:
    volume = read_volume(path)
    grid = volume.grid.axis_aligned(_SPACING_MM)
    return Volume(resample_smoothed(volume, grid), grid)
