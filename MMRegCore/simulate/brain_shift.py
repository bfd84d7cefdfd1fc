"""Smooth known displacements: brain shift under a craniotomy, and plain random fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid
from MMRegCore.simulate.craniotomy import Probe
from MMRegCore.simulate.noise import random_stream

# Below this a field is so close to folding that no real tissue would follow it.
SMALLEST_JACOBIAN = 0.2
_WAVES = 24


@dataclass(frozen=True)
class BrainShiftSettings:
    """Size and shape of a simulated brain shift.

    Attributes
    ----------
    peak_mm : float
        Largest displacement inside the field of view.
    width_mm, depth_mm : float
        Distance from the craniotomy, beside and below it, at which the sinking has fallen to 61 %.
    gravity_ras : tuple of float, optional
        Direction in which the brain sinks, RAS; between the beam and posterior (a patient on the back) if None.
    random_share : float
        Size of the random part, relative to the peak.
    random_wavelength_mm : float
        Of the random part.
    """

    peak_mm: float = 6.0
    width_mm: float = 35.0
    depth_mm: float = 30.0
    gravity_ras: tuple[float, float, float] | None = None
    random_share: float = 0.25
    random_wavelength_mm: float = 60.0

    def __post_init__(self) -> None:
        lengths = (self.width_mm, self.depth_mm, self.random_wavelength_mm)
        if not all(math.isfinite(v) and v > 0 for v in lengths):
            raise InputError(f"expected positive lengths in mm; got {self}")
        if not (math.isfinite(self.peak_mm) and self.peak_mm >= 0 and 0 <= self.random_share <= 1):
            raise InputError(f"expected a peak of at least 0 mm and a random share between 0 and 1; got {self}")


def brain_shift(
    grid: Grid, mask: torch.Tensor, probe: Probe, settings: BrainShiftSettings, *, seed: int = 0
) -> DisplacementField:
    """Brain shift as a pull field: where each ultrasound point was when the MR was taken.

    Tissue sinks with gravity, most under the craniotomy and less beside and below it, so that
    ``u(x) = -sinking(x)`` plus a small smooth random part.

    Parameters
    ----------
    grid : Grid
        Of the ultrasound (fixed).
    mask : Tensor, (D, H, W), bool
        Field of view, in which the largest displacement is ``settings.peak_mm``.
    probe : Probe
        Its origin is the middle of the craniotomy.
    settings : BrainShiftSettings
    seed : int

    Raises
    ------
    InputError
        When the field would fold or nearly fold.
    """
    from_probe = grid.points_ras() - probe.origin_ras
    below_mm = np.maximum(from_probe @ probe.beam_ras, 0)
    beside_mm = np.linalg.norm(from_probe - (from_probe @ probe.beam_ras)[..., None] * probe.beam_ras, axis=-1)
    fade = np.exp(-0.5 * (beside_mm / settings.width_mm) ** 2 - 0.5 * (below_mm / settings.depth_mm) ** 2)
    sinking = torch.from_numpy(fade[..., None] * gravity_direction(probe, settings)).float()
    random = smooth_random_field(grid, 1.0, settings.random_wavelength_mm, seed).displacement_mm
    displacement = settings.random_share * random - sinking
    largest = float((displacement.norm(dim=-1) * mask).max())
    if largest == 0:
        raise GeometryError("expected a field of view that is not empty; got no voxel inside")
    return _without_folds(DisplacementField(displacement * (settings.peak_mm / largest), grid))


def gravity_direction(probe: Probe, settings: BrainShiftSettings) -> Array:
    """(3,), unit vector, RAS: the way in which the brain sinks."""
    given = settings.gravity_ras
    direction = probe.beam_ras + np.array([0.0, -1.0, 0.0]) if given is None else np.asarray(given, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if not math.isfinite(length) or length < 1e-6:
        raise GeometryError(f"expected a direction of gravity that is not zero; got {direction.tolist()} (RAS)")
    return np.asarray(direction / length)


def smooth_random_field(grid: Grid, amplitude_mm: float, wavelength_mm: float, seed: int = 0) -> DisplacementField:
    """A random smooth field without folds: a sum of plane waves.

    Parameters
    ----------
    grid : Grid
    amplitude_mm : float
        Largest displacement on the grid.
    wavelength_mm : float
        Shortest wave; waves up to twice as long take part.
    seed : int
        The same seed gives the same waves, fixed in space (RAS), on any grid.

    Raises
    ------
    InputError
        When amplitude or wavelength is not usable or the field would fold or nearly fold.
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
    return _without_folds(DisplacementField(field * (amplitude_mm / max(largest, 1e-12)), grid))


def _plane_wave(grid: Grid, wave_vector: Array, phase: float) -> Array:
    """(D, H, W): cos(k·x + phase), built axis by axis: the exponential of a sum is a product."""
    per_voxel = wave_vector @ grid.ras_from_ijk[:3, :3]
    start = float(wave_vector @ grid.ras_from_ijk[:3, 3]) + phase
    w, h, d = (np.exp(1j * k * np.arange(n)) for k, n in zip(per_voxel, grid.itk_size, strict=True))
    plane = d[:, None] * h[None, :] * np.exp(1j * start)
    return np.asarray(plane.real[..., None] * w.real - plane.imag[..., None] * w.imag)


def _without_folds(field: DisplacementField) -> DisplacementField:
    smallest = float(field.jacobian_determinant().min())
    if smallest <= SMALLEST_JACOBIAN:
        raise InputError(
            f"expected a displacement whose Jacobian determinant stays above {SMALLEST_JACOBIAN}; got {smallest:.2f}; "
            "ask for a smaller displacement or a smoother one"
        )
    return field
