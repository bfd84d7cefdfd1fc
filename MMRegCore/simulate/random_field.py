"""Smooth random displacements: sums of plane waves fixed in space."""

from __future__ import annotations

import math

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, Grid
from MMRegCore.simulate.noise import random_stream

# Below this a field is so close to folding that no real tissue would deform so.
SMALLEST_JACOBIAN = 0.2
_WAVES = 24


def smooth_random_field(grid: Grid, amplitude_mm: float, wavelength_mm: float, seed: int = 0) -> DisplacementField:
    """A random smooth field without folds: a sum of plane waves.

    Its largest displacement on the grid is ``amplitude_mm``; wavelengths are one to two times ``wavelength_mm``.  The
    same seed gives the same waves, fixed in space (RAS), on any grid.  Raises `InputError` when amplitude or wavelength
    is out of range or the field would fold or nearly fold.
    """
    if not (math.isfinite(amplitude_mm) and amplitude_mm >= 0 and math.isfinite(wavelength_mm) and wavelength_mm > 0):
        given = f"{amplitude_mm} and {wavelength_mm} mm"
        raise InputError(f"expected an amplitude of at least 0 mm and a positive wavelength; got {given}")
    random = random_stream(seed, "waves")
    displacement = np.zeros((*grid.shape, 3))
    for _ in range(_WAVES):
        direction = random.standard_normal(3)
        length_mm = wavelength_mm * random.uniform(1, 2)
        wave_vector = 2 * np.pi / length_mm * direction / np.linalg.norm(direction)
        phase, weight = random.uniform(0, 2 * np.pi), random.standard_normal(3)
        displacement += _plane_wave(grid, wave_vector, phase)[..., None] * weight
    field = torch.from_numpy(displacement).float()
    largest = float(field.norm(dim=-1).max())
    return without_folds(DisplacementField(field * (amplitude_mm / max(largest, 1e-12)), grid))


def correlated_field(grid: Grid, correlation_length_mm: float, seed: int) -> Array:
    """(D, H, W, 3): a Gaussian random field of unit variance per component, fixed in space (RAS), on any grid.

    Its correlation at a distance r is ``exp(-r² / (2 correlation_length_mm²))``; random Fourier features (Rahimi &
    Recht 2007).
    """
    random = random_stream(seed, "correlated")
    values = np.zeros((*grid.shape, 3))
    for _ in range(_WAVES):
        wave_vector = random.standard_normal(3) / correlation_length_mm
        wave = _plane_wave(grid, wave_vector, random.uniform(0, 2 * np.pi))
        values += wave[..., None] * random.standard_normal(3)
    return np.asarray(values * (2 / _WAVES) ** 0.5)


def _plane_wave(grid: Grid, wave_vector: Array, phase: float) -> Array:
    """(D, H, W): cos(k·x + phase), as a product of complex exponentials along the axes."""
    per_voxel = wave_vector @ grid.ras_from_ijk[:3, :3]
    start = float(wave_vector @ grid.ras_from_ijk[:3, 3]) + phase
    w, h, d = (np.exp(1j * k * np.arange(n)) for k, n in zip(per_voxel, grid.itk_size, strict=True))
    plane = d[:, None] * h[None, :] * np.exp(1j * start)
    return np.asarray(plane.real[..., None] * w.real - plane.imag[..., None] * w.imag)


def without_folds(field: DisplacementField) -> DisplacementField:
    """Return the field, or raise `InputError` where it folds or nearly folds."""
    smallest = float(field.jacobian_determinant().min())
    if smallest <= SMALLEST_JACOBIAN:
        raise InputError(
            f"expected a displacement whose Jacobian determinant stays above {SMALLEST_JACOBIAN}; got {smallest:.2f}; "
            "ask for a smaller displacement or a smoother one"
        )
    return field
