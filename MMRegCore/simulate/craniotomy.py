"""Where the probe stands, what it sees, and the oblique grid that its images are put together on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, Shape, transform_points
from MMRegCore.simulate.anatomy import Anatomy, Mask, depth_below_surface_mm
from MMRegCore.simulate.noise import random_stream
from MMRegCore.volume import Volume


@dataclass(frozen=True)
class ConeSettings:
    """Shape of the swept field of view.

    Attributes
    ----------
    depth_mm : float
        Length of a beam below the probe's face.
    half_angle_deg : float
        Of the fan within one image.
    apex_mm : float
        From the point where the beams would meet to the probe's face.
    sweep_mm : float
        Way of the probe across its image plane, at the face.
    pivot_mm : float
        The sweep widens with depth as if it turned about an axis this far above the face.
    tremor_mm : float
        Standard deviation of the hand's drift during the sweep; makes the sides of the cone ragged.
    """

    depth_mm: float = 40.0
    half_angle_deg: float = 18.0
    apex_mm: float = 60.0
    sweep_mm: float = 36.0
    pivot_mm: float = 150.0
    tremor_mm: float = 0.7

    def __post_init__(self) -> None:
        lengths = (self.depth_mm, self.apex_mm, self.sweep_mm, self.pivot_mm)
        if not all(math.isfinite(v) and v > 0 for v in lengths) or not 0 < self.half_angle_deg < 60:
            raise InputError(f"expected positive lengths and a half angle between 0° and 60°; got {self}")


@dataclass(frozen=True, eq=False)
class Probe:
    """Pose of the probe in the middle of its sweep.

    Attributes
    ----------
    origin_ras : ndarray, (3,)
        Middle of the probe's face, RAS mm.
    axes_ras : ndarray, (3, 3)
        Columns: lateral (within the image), elevation (the way of the sweep), beam (into the head); orthonormal.
    """

    origin_ras: Array
    axes_ras: Array

    @property
    def beam_ras(self) -> Array:
        """(3,), unit vector into the head."""
        return self.axes_ras[:, 2]

    def moved(self, along_beam_mm: float) -> Probe:
        """The probe pushed into the head by ``along_beam_mm``."""
        return Probe(self.origin_ras + along_beam_mm * self.beam_ras, self.axes_ras)


def place_probe(anatomy: Anatomy, entry_direction_ras: Sequence[float], roll_deg: float = 20.0) -> Probe:
    """Stand the probe on the brain's surface, aimed at the tumour, or without one at the nearest lateral ventricle.

    Parameters
    ----------
    anatomy : Anatomy
    entry_direction_ras : sequence of float, (3,)
        From the middle of the brain to the craniotomy, RAS; any length.
    roll_deg : float
        Turns the image plane about the beam.

    Raises
    ------
    GeometryError
        When the direction has no length or the brain is not met along it.
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
    """The outermost brain voxel near the line from the brain's middle along ``outward``."""
    points = transform_points(grid.ras_from_ijk, np.argwhere(brain)[:, ::-1].astype(np.float64))
    if len(points) == 0:
        raise GeometryError("expected a brain in the tissue maps; got none")
    offsets = points - points.mean(axis=0)
    along = offsets @ outward
    beside_mm = np.linalg.norm(offsets - along[:, None] * outward, axis=1)
    # A craniotomy is some centimetres wide; its highest point may be a gyrus beside the line.
    near = (beside_mm < 6) & (along > 0)
    if not near.any():
        raise GeometryError(f"expected the brain along {np.round(outward, 2).tolist()} (RAS); got nothing there")
    highest = int(np.where(near, along, -np.inf).argmax())
    return cast(Array, points.mean(axis=0) + along[highest] * outward)


def centre_of_mass(share: Volume) -> Array:
    """(3,): centre of mass of a map (1, D, H, W), RAS mm."""
    weight = share.data[0].double().numpy()[..., None]
    return cast(Array, (share.grid.points_ras() * weight).sum(axis=(0, 1, 2)) / weight.sum())


def _ventricle_point(anatomy: Anatomy, entry: Array, brain: Mask) -> Array:
    """The ventricle voxel nearest to the entry; the deepest point of the brain where no ventricle is known."""
    grid = anatomy.tissues.grid
    found = np.argwhere(anatomy.tissue("ventricles").data[0].numpy() > 0.5)
    if len(found) == 0:
        depth = depth_below_surface_mm(brain, grid)
        found = np.argwhere(depth == depth.max())[:1]
    points = transform_points(grid.ras_from_ijk, found[:, ::-1].astype(np.float64))
    return cast(Array, points[np.linalg.norm(points - entry, axis=1).argmin()])


def _axes_around(beam: Array, roll: float) -> Array:
    # Any vector off the beam starts the frame; the roll then decides.
    start = np.eye(3)[int(np.abs(beam).argmin())]
    lateral = np.cross(start, beam)
    lateral /= np.linalg.norm(lateral)
    elevation = np.cross(beam, lateral)
    turned = math.cos(roll) * lateral + math.sin(roll) * elevation
    return np.stack([turned, np.cross(beam, turned), beam], axis=1)


class Cone:
    """The swept field of view: a chart between RAS mm and beam coordinates.

    Beam coordinates (..., 3) are (sweep mm at the face, angle rad, depth mm below the face).

    Parameters
    ----------
    probe : Probe
    settings : ConeSettings
    seed : int
        Of the hand's tremor.
    """

    def __init__(self, probe: Probe, settings: ConeSettings, seed: int = 0) -> None:
        self.probe = probe
        self.settings = settings
        self._frames = np.linspace(-0.5, 0.5, 61) * settings.sweep_mm
        self._drift_mm = _tremor(len(self._frames), settings.tremor_mm, seed)

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
        # Behind the pivot the sweep coordinate has no meaning; such points are outside by their depth anyway.
        sweep = elevation / np.maximum(1 + below / self.settings.pivot_mm, 0.1)
        # The drift along the beam enters the sweep coordinate by less than it is long over the pivot's distance.
        below = below - self._drift(sweep, 1)
        sweep = elevation / np.maximum(1 + below / self.settings.pivot_mm, 0.1)
        lateral = lateral - self._drift(sweep, 0)
        forward = below + self.settings.apex_mm
        depth = np.hypot(lateral, forward) - self.settings.apex_mm
        return np.stack([sweep, np.arctan2(lateral, forward), depth], axis=-1)

    def contains(self, points_ras: Array) -> Mask:
        """Whether points (..., 3), RAS mm, lie in the field of view."""
        coordinates = self.beam_coordinates(points_ras)
        return cast(Mask, np.all((coordinates >= self.low) & (coordinates <= self.high), axis=-1))

    def grid(self, spacing_mm: float, turn_deg: Sequence[float] = (24.0, -17.0, 31.0)) -> Grid:
        """The smallest isotropic grid that holds the cone, turned against the probe by ``turn_deg``.

        Reconstructed volumes lie as the tracker's axes do, oblique to both the head and the probe.
        """
        axes = self.probe.axes_ras @ _rotation(turn_deg)
        surface = self._lattice(9)
        local = surface @ axes
        low, high = local.min(axis=0) - spacing_mm, local.max(axis=0) + spacing_mm
        size = np.ceil((high - low) / spacing_mm).astype(int) + 1
        matrix = np.eye(4)
        matrix[:3, :3] = axes * spacing_mm
        matrix[:3, 3] = axes @ low
        return Grid(cast(Shape, tuple(int(n) for n in size[::-1])), matrix)

    def _lattice(self, steps: int) -> Array:
        counts = (len(self._frames), steps, steps)
        axes = [np.linspace(a, b, n) for a, b, n in zip(self.low, self.high, counts, strict=True)]
        return self.points_ras(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3))

    def _drift(self, sweep: Array, component: int) -> Array:
        return np.asarray(np.interp(sweep, self._frames, self._drift_mm[component]), dtype=np.float64)


def _tremor(frames: int, tremor_mm: float, seed: int) -> Array:
    """(2, frames): slow drift of the hand, lateral and along the beam (half as much), mm."""
    random = random_stream(seed, "tremor")
    phase = np.linspace(0, 1, frames)
    drift = np.zeros((2, frames))
    for waves in range(1, 9):
        weight = random.standard_normal(2) / waves**0.5
        drift += weight[:, None] * np.cos(2 * np.pi * (waves * phase + random.uniform(size=(2, 1))))
    return cast(Array, drift / max(float(drift.std()), 1e-12) * tremor_mm * np.array([[1.0], [0.5]]))


def rotation_about(vector: Array) -> Array:
    """(3, 3): the rotation about ``vector`` (3,) by its length in rad (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = np.asarray(vector, dtype=np.float64) / max(angle, 1e-12)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return cast(Array, np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross))


def _rotation(turn_deg: Sequence[float]) -> Array:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(np.asarray(turn_deg, dtype=np.float64))):
        turn = np.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix
