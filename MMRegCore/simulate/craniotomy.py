"""Placement of the probe, its field of view, and the oblique grid of the reconstructed volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from MMRegCore.errors import GeometryError
from MMRegCore.geometry import Array, Grid, Shape, transform_points
from MMRegCore.ops import rotation_matrix
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.anatomy import Anatomy, Mask, depth_below_surface_mm
from MMRegCore.simulate.noise import random_stream
from MMRegCore.volume import Volume

# Axes of the tracking system in those of the probe: rotations about lateral, elevation and beam.
_PROBE_FROM_TRACKER = (
    rotation_matrix([math.radians(24), 0, 0])
    @ rotation_matrix([0, math.radians(17), 0])
    @ rotation_matrix([0, 0, math.radians(31)])
)


@dataclass(frozen=True)
class ConeSettings(Settings):
    """Shape of the swept field of view."""

    depth_mm: float = setting(40.0, "Imaging depth below the probe's face.", minimum=1)
    half_angle_deg: float = setting(18.0, "Half angle of the fan of one frame.", minimum=1, maximum=60)
    apex_mm: float = setting(60.0, "Distance from the virtual apex of the beams to the probe's face.", minimum=1)
    sweep_mm: float = setting(36.0, "Length of the sweep across the image plane, at the probe's face.", minimum=1)
    pivot_mm: float = setting(
        150.0, "Height above the face of the axis about which the sweep widens with depth.", minimum=1
    )
    jitter_mm: float = setting(
        0.7, "Standard deviation of the hand's drift during the sweep (ragged sides).", minimum=0
    )


@dataclass(frozen=True, eq=False)
class Probe:
    """Position and orientation of the probe in the middle of its sweep."""

    origin_ras: Array  # (3,): centre of the probe's face, RAS mm
    # (3, 3): columns: lateral (within the image), elevation (along the sweep), beam (into the head); orthonormal.
    axes_ras: Array

    @property
    def beam_ras(self) -> Array:
        """(3,), unit vector into the head."""
        return self.axes_ras[:, 2]

    def advanced(self, distance_mm: float) -> Probe:
        """The probe translated along the beam."""
        return Probe(self.origin_ras + distance_mm * self.beam_ras, self.axes_ras)


def place_probe(anatomy: Anatomy, entry_direction_ras: Sequence[float], roll_deg: float = 20.0) -> Probe:
    """Place the probe on the brain's surface, aimed at the tumour, or without one at the nearest ventricle.

    ``entry_direction_ras`` (3,) leads from the centre of the brain to the craniotomy, RAS, any length; ``roll_deg``
    rotates the image plane about the beam.  Raises `GeometryError` when the direction is zero or no brain lies along
    it.
    """
    direction = np.asarray(entry_direction_ras, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if direction.shape != (3,) or not math.isfinite(length) or length == 0:
        raise GeometryError(f"expected a direction of three numbers that is not zero; got {entry_direction_ras}")
    outward = direction / length
    brain = anatomy.brain.data[0].numpy() > 0.5
    entry = _surface_point(brain, anatomy.tissues.grid, outward)
    target = centre_of_mass(anatomy.tumour) if anatomy.tumour is not None else _ventricle_point(anatomy, entry, brain)
    beam = (target - entry) / np.linalg.norm(target - entry)
    return Probe(entry, _axes_around(beam, math.radians(roll_deg)))


def _surface_point(brain: Mask, grid: Grid, outward: Array) -> Array:
    """The outermost brain voxel near the line from the brain's centre along ``outward``."""
    points = transform_points(grid.ras_from_ijk, np.argwhere(brain)[:, ::-1].astype(np.float64))
    if len(points) == 0:
        raise GeometryError("expected a brain in the tissue maps; got none")
    offsets = points - points.mean(axis=0)
    along = offsets @ outward
    lateral_mm = np.linalg.norm(offsets - along[:, None] * outward, axis=1)
    # A craniotomy is some centimetres wide; its highest point may be a gyrus beside the line.
    near = (lateral_mm < 6) & (along > 0)
    if not near.any():
        raise GeometryError(f"expected the brain along {np.round(outward, 2).tolist()} (RAS); got nothing there")
    highest = int(np.where(near, along, -np.inf).argmax())
    return cast(Array, points.mean(axis=0) + along[highest] * outward)


def centre_of_mass(volume: Volume) -> Array:
    """(3,): centre of mass of a map (1, D, H, W), RAS mm."""
    weight = volume.data[0].double().numpy()[..., None]
    return cast(Array, (volume.grid.points_ras() * weight).sum(axis=(0, 1, 2)) / weight.sum())


def _ventricle_point(anatomy: Anatomy, entry: Array, brain: Mask) -> Array:
    """The ventricle voxel nearest to the entry; the deepest voxel of the brain where there is no ventricle."""
    grid = anatomy.tissues.grid
    found = np.argwhere(anatomy.tissue("ventricles").data[0].numpy() > 0.5)
    if len(found) == 0:
        depth = depth_below_surface_mm(brain, grid)
        found = np.argwhere(depth == depth.max())[:1]
    points = transform_points(grid.ras_from_ijk, found[:, ::-1].astype(np.float64))
    return cast(Array, points[np.linalg.norm(points - entry, axis=1).argmin()])


def _axes_around(beam: Array, roll: float) -> Array:
    # Any vector that is not parallel to the beam will do; the roll decides.
    start = np.eye(3)[int(np.abs(beam).argmin())]
    lateral = np.cross(start, beam)
    lateral /= np.linalg.norm(lateral)
    elevation = np.cross(beam, lateral)
    rolled = math.cos(roll) * lateral + math.sin(roll) * elevation
    return np.stack([rolled, np.cross(beam, rolled), beam], axis=1)


class Cone:
    """The swept field of view: a mapping between RAS mm and beam coordinates.

    Beam coordinates (..., 3) are (sweep mm at the face, angle rad, depth mm below the face).  ``seed`` is that of the
    jitter.
    """

    def __init__(self, probe: Probe, settings: ConeSettings, seed: int = 0) -> None:
        self.probe = probe
        self.settings = settings
        self._frames = np.linspace(-0.5, 0.5, 61) * settings.sweep_mm
        self._drift_mm = _jitter(len(self._frames), settings.jitter_mm, seed)

    @property
    def low(self) -> Array:
        """(3,): smallest beam coordinates inside."""
        return np.array([-self.settings.sweep_mm / 2, -math.radians(self.settings.half_angle_deg), 0.0])

    @property
    def high(self) -> Array:
        """(3,): largest beam coordinates inside."""
        return np.array([*-self.low[:2], self.settings.depth_mm])

    def points_ras(self, beam_coordinates: Array) -> Array:
        """Beam coordinates (..., 3) to RAS mm (..., 3)."""
        sweep, angle, depth = np.moveaxis(beam_coordinates, -1, 0)
        radius = self.settings.apex_mm + depth
        below = radius * np.cos(angle) - self.settings.apex_mm
        lateral = radius * np.sin(angle) + self._drift(sweep, 0)
        elevation = sweep * (1 + below / self.settings.pivot_mm)
        local = np.stack([lateral, elevation, below + self._drift(sweep, 1)], axis=-1)
        return cast(Array, local @ self.probe.axes_ras.T + self.probe.origin_ras)

    def beam_coordinates(self, points_ras: Array) -> Array:
        """RAS mm (..., 3) to beam coordinates (..., 3); exact but for the drift along the beam (under 0.1 mm)."""
        lateral, elevation, below = np.moveaxis((points_ras - self.probe.origin_ras) @ self.probe.axes_ras, -1, 0)
        # Above the pivot the sweep coordinate has no meaning; such points are outside by their depth anyway.
        sweep = elevation / np.maximum(1 + below / self.settings.pivot_mm, 0.1)
        # The drift along the beam changes the sweep coordinate by less than the drift divided by the pivot's distance.
        below = below - self._drift(sweep, 1)
        sweep = elevation / np.maximum(1 + below / self.settings.pivot_mm, 0.1)
        lateral = lateral - self._drift(sweep, 0)
        forward = below + self.settings.apex_mm
        depth = np.hypot(lateral, forward) - self.settings.apex_mm
        return np.stack([sweep, np.arctan2(lateral, forward), depth], axis=-1)

    def contains(self, points_ras: Array) -> Mask:
        """Whether points (..., 3), RAS mm, lie in the field of view."""
        return self.within(self.beam_coordinates(points_ras))

    def within(self, beam_coordinates: Array) -> Mask:
        """Whether beam coordinates (..., 3) lie in the field of view."""
        return cast(Mask, np.all((beam_coordinates >= self.low) & (beam_coordinates <= self.high), axis=-1))

    def sampling_grid(self, counts: Sequence[int]) -> Array:
        """(S, A, R, 3): evenly spaced beam coordinates from `low` to `high`, so many on each axis."""
        axes = [np.linspace(a, b, n) for a, b, n in zip(self.low, self.high, counts, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def grid(self, spacing_mm: float) -> Grid:
        """The smallest isotropic grid that holds the cone, with axes oblique to both the head and the probe.

        Reconstructed volumes have the axes of the tracking system.
        """
        axes = self.probe.axes_ras @ _PROBE_FROM_TRACKER
        local = self.points_ras(self.sampling_grid((len(self._frames), 9, 9)).reshape(-1, 3)) @ axes
        low, high = local.min(axis=0) - spacing_mm, local.max(axis=0) + spacing_mm
        size = np.ceil((high - low) / spacing_mm).astype(int) + 1
        matrix = np.eye(4)
        matrix[:3, :3] = axes * spacing_mm
        matrix[:3, 3] = axes @ low
        return Grid(cast(Shape, tuple(int(n) for n in size[::-1])), matrix)

    def _drift(self, sweep: Array, component: int) -> Array:
        return np.asarray(np.interp(sweep, self._frames, self._drift_mm[component]), dtype=np.float64)


def _jitter(frames: int, jitter_mm: float, seed: int) -> Array:
    """(2, frames): slow drift of the hand, lateral and along the beam (half as much), mm."""
    # The stream's name decides the numbers: another one would change every simulated case.
    random = random_stream(seed, "tremor")
    phase = np.linspace(0, 1, frames)
    drift = np.zeros((2, frames))
    for waves in range(1, 9):
        weight = random.standard_normal(2) / waves**0.5
        drift += weight[:, None] * np.cos(2 * np.pi * (waves * phase + random.uniform(size=(2, 1))))
    return cast(Array, drift / max(float(drift.std()), 1e-12) * jitter_mm * np.array([[1.0], [0.5]]))
