"""Brain shift as the tracked ultrasound shows it: an error of the tracking, a sinking brain, a smooth random rest.

How large each part is comes from the expert landmarks of 20 cases of RESECT (Xiao et al., Med Phys 44, 2017), taken
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
from MMRegCore.simulate.craniotomy import Cone, Probe, rotation_about
from MMRegCore.simulate.noise import random_stream
from MMRegCore.simulate.random_field import correlated_field, without_folds

# Fine enough for the mean of a field as smooth as this.
_MEAN_SPACING_MM = 3.0


@dataclass(frozen=True)
class BrainShiftSettings:
    """Size and shape of a simulated brain shift; the defaults are those of the RESECT landmarks.

    Attributes
    ----------
    mean_mm : float, optional
        Mean length of the displacement in the field of view. Met by scaling the translation; where the other parts
        alone are larger, by leaving it out and scaling them. If None the size is drawn.
    translation_mm, translation_log_std : float
        Error of the tracking at the middle of the field of view: median length, and standard deviation of its
        logarithm; any direction.
    rotation_deg : float
        Standard deviation of the tracking's rotation about each axis.
    rest_mm, rest_length_mm : float
        Smooth random part: standard deviation per axis, and the distance r in its correlation exp(-d² / 2r²).
    sinking_mm : float
        How far the brain sinks under the craniotomy. The landmarks show no more near the surface than in the depth, so
        this one is a choice, small enough that sinking and rest together are as large as the fitted rest.
    width_mm, depth_mm : float
        Distance from the craniotomy, beside and below it, at which the sinking has fallen to 61 %.
    gravity_ras : tuple of float, optional
        Direction in which the brain sinks, RAS; between the beam and posterior (a patient on the back) if None.
    """

    mean_mm: float | None = None
    translation_mm: float = 3.2
    translation_log_std: float = 0.8
    rotation_deg: float = 3.0
    rest_mm: float = 0.6
    rest_length_mm: float = 26.0
    sinking_mm: float = 1.5
    width_mm: float = 35.0
    depth_mm: float = 30.0
    gravity_ras: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        lengths = (self.width_mm, self.depth_mm, self.rest_length_mm)
        if not all(math.isfinite(v) and v > 0 for v in lengths):
            raise InputError(f"expected positive lengths in mm; got {self}")
        sizes = (self.translation_mm, self.translation_log_std, self.rotation_deg, self.rest_mm, self.sinking_mm)
        given = () if self.mean_mm is None else (self.mean_mm,)
        if not all(math.isfinite(v) and v >= 0 for v in (*sizes, *given)):
            raise InputError(f"expected sizes of a brain shift of at least 0; got {self}")


@dataclass(frozen=True, eq=False)
class BrainShift:
    """One drawn shift: from where a point seems to lie, by the tracking, to where it was when the MR was taken.

    Attributes
    ----------
    true_from_tracked : ndarray, (4, 4)
        The error of the tracking, RAS mm: from where the tracking puts a point to where it is. Rigid.
    probe : Probe
        True pose; its origin is the middle of the craniotomy.
    settings : BrainShiftSettings
    seed : int
        Of the random part.
    scale : float
        Of the sinking and the random part.
    """

    true_from_tracked: Array
    probe: Probe
    settings: BrainShiftSettings
    seed: int
    scale: float

    @property
    def tracked_probe(self) -> Probe:
        """The pose that the tracking reports."""
        inverse: Array = np.linalg.inv(self.true_from_tracked).astype(np.float64)
        return Probe(transform_points(inverse, self.probe.origin_ras), inverse[:3, :3] @ self.probe.axes_ras)

    def field(self, grid: Grid) -> DisplacementField:
        """The pull field ``u`` on a grid of the tracked ultrasound: the MR point of ``x`` is ``x + u(x)``.

        Raises
        ------
        InputError
            When the field would fold or nearly fold.
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
        Where the ultrasound truly is taken; the tracking turns about its middle, and the mean shift is meant in it.
    settings : BrainShiftSettings
    seed : int
        The same seed draws the same shift.
    """
    random = random_stream(seed, "tracking")
    direction = random.standard_normal(3)
    length_mm = settings.translation_mm * math.exp(settings.translation_log_std * random.standard_normal())
    translation = direction / np.linalg.norm(direction) * length_mm
    turn = np.radians(settings.rotation_deg) * random.standard_normal(3)
    grid = cone.grid(_MEAN_SPACING_MM)
    inside = cone.contains(grid.points_ras())
    from_middle = grid.points_ras()[inside]
    middle = from_middle.mean(axis=0)
    from_middle -= middle
    scale = 1.0
    if settings.mean_mm is not None:
        # What the rotation adds to where a true point seems to be, and how far its tissue has moved.
        turned = from_middle @ (np.eye(3) - rotation_about(turn))
        rest = turned + tissue_shift(grid, cone.probe, settings, seed)[inside]
        share, scale = _shares_for_mean(translation, rest, settings.mean_mm)
        translation, turn = share * translation, scale * turn
    true_from_tracked = np.eye(4)
    true_from_tracked[:3, :3] = rotation_about(turn)
    true_from_tracked[:3, 3] = middle + true_from_tracked[:3, :3] @ (translation - middle)
    return BrainShift(true_from_tracked, cone.probe, settings, seed, scale)


def tissue_shift(grid: Grid, probe: Probe, settings: BrainShiftSettings, seed: int) -> Array:
    """(D, H, W, 3), RAS mm: from where tissue is now to where it was, at each point of a grid in true space."""
    from_probe = grid.points_ras() - probe.origin_ras
    along_mm = from_probe @ probe.beam_ras
    beside_mm = np.linalg.norm(from_probe - along_mm[..., None] * probe.beam_ras, axis=-1)
    below_mm = np.maximum(along_mm, 0)
    fade = np.exp(-0.5 * (beside_mm / settings.width_mm) ** 2 - 0.5 * (below_mm / settings.depth_mm) ** 2)
    sinking = settings.sinking_mm * fade[..., None] * gravity_direction(probe, settings)
    return np.asarray(settings.rest_mm * correlated_field(grid, settings.rest_length_mm, seed) - sinking)


def gravity_direction(probe: Probe, settings: BrainShiftSettings) -> Array:
    """(3,), unit vector, RAS: the way in which the brain sinks."""
    given = settings.gravity_ras
    direction = probe.beam_ras + np.array([0.0, -1.0, 0.0]) if given is None else np.asarray(given, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if not math.isfinite(length) or length < 1e-6:
        raise GeometryError(f"expected a direction of gravity that is not zero; got {direction.tolist()} (RAS)")
    return np.asarray(direction / length)


def _shares_for_mean(translation: Array, rest: Array, mean_mm: float) -> tuple[float, float]:
    """How much of the translation (3,) and of the rest (N, 3) to take for this mean length."""
    alone = float(np.linalg.norm(rest, axis=1).mean())
    length = float(np.linalg.norm(translation))
    if alone >= mean_mm or length == 0:
        return 0.0, mean_mm / max(alone, 1e-12)
    # The mean is at least the translation less the rest, so the answer lies below this; halving finds it.
    low, high = 0.0, (mean_mm + alone) / length
    for _ in range(50):
        middle = (low + high) / 2
        below = float(np.linalg.norm(middle * translation + rest, axis=1).mean()) < mean_mm
        low, high = (middle, high) if below else (low, middle)
    return high, 1.0
