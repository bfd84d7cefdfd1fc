"""Brain shift as tracked ultrasound shows it: tracking error, sinking of the brain, smooth random residual.

The sizes of the parts come from the expert landmarks of 20 cases of RESECT (Xiao et al., Med Phys 44, 2017), taken
before the dura was opened; ``python -m benchmarks shift-statistics`` fits the numbers anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.ops import rotation_matrix
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.craniotomy import Cone, Probe
from MMRegCore.simulate.noise import random_stream
from MMRegCore.simulate.random_field import correlated_field, without_folds

# Fine enough for the mean of a field as smooth as this.
_MEAN_SPACING_MM = 3.0


@dataclass(frozen=True)
class BrainShiftSettings(Settings):
    """Size and shape of a simulated brain shift; the defaults are those of the RESECT landmarks."""

    mean_mm: float | None = setting(
        None,
        "Mean length of the displacement in the field of view; none: as drawn. Met by scaling the translation, or "
        "the other parts without any translation where these alone are larger.",
        minimum=0,
    )
    translation_mm: float = setting(
        3.2, "Median length of the tracking error at the centre of the field of view.", minimum=0
    )
    translation_log_std: float = setting(0.8, "Standard deviation of the logarithm of that length.", minimum=0)
    rotation_deg: float = setting(3.0, "Standard deviation of the tracking's rotation about each axis.", minimum=0)
    residual_mm: float = setting(0.6, "Standard deviation per axis of the smooth random residual.", minimum=0)
    correlation_length_mm: float = setting(26.0, "Correlation length r of the residual, exp(-d² / 2r²).", minimum=0.1)
    # The landmarks show no more shift near the surface than in the depth.  This is a choice, small enough that sinking
    # and residual together are as large as the fitted residual.
    sinking_mm: float = setting(1.5, "Displacement along gravity at the craniotomy, largest there.", minimum=0)
    width_mm: float = setting(
        35.0, "Lateral distance from the craniotomy at which the sinking falls to 61 %.", minimum=0.1
    )
    depth_mm: float = setting(30.0, "Depth below the craniotomy at which the sinking falls to 61 %.", minimum=0.1)
    gravity_ras: tuple[float, float, float] | None = setting(
        None, "Direction of gravity, RAS; none: between the beam and posterior (a supine patient)."
    )

    def check_together(self) -> None:
        """Raise `InputError` unless gravity has three components."""
        if self.gravity_ras is not None and len(self.gravity_ras) != 3:
            raise InputError(f"expected gravity_ras to be three numbers; got {self.gravity_ras}")


@dataclass(frozen=True, eq=False)
class BrainShift:
    """One drawn shift, from the tracked position of a point to its position when the MR was acquired."""

    true_from_tracked: Array  # (4, 4), RAS mm, rigid: tracked to true position
    probe: Probe  # true position; its origin is the centre of the craniotomy
    settings: BrainShiftSettings
    seed: int  # of the residual
    scale: float  # of the sinking and the residual

    @property
    def tracked_probe(self) -> Probe:
        """The probe where the tracking reports it."""
        inverse: Array = np.linalg.inv(self.true_from_tracked).astype(np.float64)
        return Probe(transform_points(inverse, self.probe.origin_ras), inverse[:3, :3] @ self.probe.axes_ras)

    def field(self, grid: Grid) -> DisplacementField:
        """The pull field ``u`` on a grid of the tracked ultrasound: the MR point of ``x`` is ``x + u(x)``.

        Raises `InputError` when the field would fold or nearly fold.
        """
        true_grid = Grid(grid.shape, self.true_from_tracked @ grid.ras_from_ijk)
        tracking = true_grid.points_ras() - grid.points_ras()
        tissue = self.scale * tissue_shift(true_grid, self.probe, self.settings, self.seed)
        return without_folds(DisplacementField(torch.from_numpy(tracking + tissue), grid))


def draw_brain_shift(cone: Cone, settings: BrainShiftSettings, *, seed: int = 0) -> BrainShift:
    """Draw a brain shift for a field of view.

    Parameters
    ----------
    cone : Cone
        True field of view; the tracking error rotates about its centre, and `mean_mm` is the mean over it.
    seed : int
        The same seed draws the same shift.
    """
    random = random_stream(seed, "tracking")
    direction = random.standard_normal(3)
    length_mm = settings.translation_mm * math.exp(settings.translation_log_std * random.standard_normal())
    translation = direction / np.linalg.norm(direction) * length_mm
    rotation = np.radians(settings.rotation_deg) * random.standard_normal(3)
    grid = cone.grid(_MEAN_SPACING_MM)
    inside = cone.contains(grid.points_ras())
    from_centre = grid.points_ras()[inside]
    centre = from_centre.mean(axis=0)
    from_centre -= centre
    scale = 1.0
    if settings.mean_mm is not None:
        # Displacement of true points by the rotation of the tracking and by the tissue.
        rotated = from_centre @ (np.eye(3) - rotation_matrix(rotation))
        others = rotated + tissue_shift(grid, cone.probe, settings, seed)[inside]
        translation_scale, scale = _scales_for_mean(translation, others, settings.mean_mm)
        translation, rotation = translation_scale * translation, scale * rotation
    true_from_tracked = np.eye(4)
    true_from_tracked[:3, :3] = rotation_matrix(rotation)
    true_from_tracked[:3, 3] = centre + true_from_tracked[:3, :3] @ (translation - centre)
    return BrainShift(true_from_tracked, cone.probe, settings, seed, scale)


def tissue_shift(grid: Grid, probe: Probe, settings: BrainShiftSettings, seed: int) -> Array:
    """(D, H, W, 3), RAS mm: from the shifted to the original position of the tissue at each voxel of a true grid."""
    from_probe = grid.points_ras() - probe.origin_ras
    along_mm = from_probe @ probe.beam_ras
    lateral_mm = np.linalg.norm(from_probe - along_mm[..., None] * probe.beam_ras, axis=-1)
    below_mm = np.maximum(along_mm, 0)
    decay = np.exp(-0.5 * (lateral_mm / settings.width_mm) ** 2 - 0.5 * (below_mm / settings.depth_mm) ** 2)
    sinking = settings.sinking_mm * decay[..., None] * gravity_direction(probe, settings)
    return np.asarray(settings.residual_mm * correlated_field(grid, settings.correlation_length_mm, seed) - sinking)


def gravity_direction(probe: Probe, settings: BrainShiftSettings) -> Array:
    """(3,), unit vector, RAS: the direction in which the brain sinks."""
    given = settings.gravity_ras
    direction = probe.beam_ras + np.array([0.0, -1.0, 0.0]) if given is None else np.asarray(given, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if length < 1e-6:
        raise GeometryError(f"expected a direction of gravity that is not zero; got {direction.tolist()} (RAS)")
    return np.asarray(direction / length)


def _scales_for_mean(translation: Array, others: Array, mean_mm: float) -> tuple[float, float]:
    """Scales of the translation (3,) and of the other displacements (N, 3) that give this mean length."""
    alone = float(np.linalg.norm(others, axis=1).mean())
    length = float(np.linalg.norm(translation))
    if alone >= mean_mm or length == 0:
        return 0.0, mean_mm / max(alone, 1e-12)
    # The mean is at least the translation minus the others, which bounds the scale; bisection finds it.
    low, high = 0.0, (mean_mm + alone) / length
    for _ in range(50):
        middle = (low + high) / 2
        below = float(np.linalg.norm(middle * translation + others, axis=1).mean()) < mean_mm
        low, high = (middle, high) if below else (low, middle)
    return high, 1.0
