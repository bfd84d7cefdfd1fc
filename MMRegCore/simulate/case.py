"""One simulated case: ultrasound, MR, the true displacement between them, and landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, transform_points
from MMRegCore.ops import gaussian_blur, gradient_magnitude, warp
from MMRegCore.resampling import resample
from MMRegCore.simulate.anatomy import TISSUES, Anatomy, depth_below_surface_mm
from MMRegCore.simulate.brain_shift import BrainShiftSettings, draw_brain_shift, gravity_direction
from MMRegCore.simulate.cavity import CavitySettings, resection_cavity
from MMRegCore.simulate.confounds import ConfoundSettings
from MMRegCore.simulate.craniotomy import Cone, ConeSettings, centre_of_mass, place_probe
from MMRegCore.simulate.points import displacement_at
from MMRegCore.simulate.ultrasound import UltrasoundSettings, simulate_ultrasound
from MMRegCore.volume import Volume

# From the centre of the brain, RAS: over the right Sylvian fissure.
FRONTO_TEMPORAL_RIGHT = (0.95, 0.2, 0.1)


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """A registration problem with ground truth."""

    fixed: Volume  # (1, D, H, W): ultrasound, 0 to 255; its mask is the field of view
    moving: tuple[Volume, ...]  # the MR images of the anatomy, unchanged
    truth: DisplacementField  # on the fixed grid: ``x_moving = x_fixed + u(x_fixed)``, RAS mm
    # (N, 3) each: corresponding anatomical points, RAS mm.
    landmarks_fixed: Array
    landmarks_moving: Array
    # (D, H, W), bool: the resected region on the fixed grid, where there is nothing to register.
    cavity: torch.Tensor | None = None

    @property
    def evaluated(self) -> torch.Tensor:
        """(D, H, W) bool: where errors are evaluated: in the field of view, outside the cavity."""
        inside = torch.ones(self.fixed.grid.shape, dtype=torch.bool) if self.fixed.mask is None else self.fixed.mask
        return inside if self.cavity is None else inside & ~self.cavity


def simulate(
    anatomy: Anatomy,
    *,
    entry_direction_ras: Sequence[float] | None = None,
    spacing_mm: float = 0.6,
    shift: BrainShiftSettings | None = None,
    cone: ConeSettings | None = None,
    ultrasound: UltrasoundSettings | None = None,
    cavity: CavitySettings | None = None,
    confounds: ConfoundSettings | None = None,
    landmarks: int = 30,
    seed: int = 0,
) -> SimulatedCase:
    """Simulate intraoperative ultrasound of a shifted brain; the same seed gives the same case.

    ``entry_direction_ras`` (3,) leads from the centre of the brain to the craniotomy; if None through the tumour where
    there is one, else `FRONTO_TEMPORAL_RIGHT`.  ``spacing_mm`` is that of the isotropic ultrasound grid, 0.1 to 5 mm.
    With a ``cavity`` tissue is resected, the tumour where there is one.  With ``confounds`` the image is as hard to
    explain by an MR as those of patients are.  There are ``landmarks`` landmarks at most,
    fewer where the field of view has not enough structure.

    Raises
    ------
    InputError, GeometryError
        When the craniotomy lies outside the brain, the spacing is out of range, or the displacement would fold.
    """
    if not (np.isfinite(spacing_mm) and 0.1 <= spacing_mm <= 5):
        raise InputError(f"expected an ultrasound spacing between 0.1 and 5 mm; got {spacing_mm}")
    shift, cone = shift or BrainShiftSettings(), cone or ConeSettings()
    probe = place_probe(anatomy, _default_entry(anatomy) if entry_direction_ras is None else entry_direction_ras)
    # The probe rests on the sunken surface.
    sunk_mm = shift.sinking_mm * float(gravity_direction(probe, shift) @ probe.beam_ras)
    # Gel or saline lifts it off.
    lifted_mm = 0.0 if confounds is None else confounds.gel_mm
    drawn = draw_brain_shift(Cone(probe.advanced(sunk_mm - lifted_mm), cone, seed), shift, seed=seed)
    field_of_view = Cone(drawn.tracked_probe, cone, seed)
    grid = field_of_view.grid(spacing_mm)
    mask = torch.from_numpy(field_of_view.contains(grid.points_ras()))
    truth = drawn.field(grid)
    resected = None if cavity is None else resection_cavity(anatomy, probe, cavity, seed=seed)
    fixed = simulate_ultrasound(
        anatomy, field_of_view, truth, ultrasound, cavity=resected, confounds=confounds, seed=seed
    )
    hole = None if resected is None else warp(resample(resected, grid)[None], truth.to_voxel())[0, 0] > 0.5
    points = structural_points(anatomy, truth, mask if hole is None else mask & ~hole, landmarks)
    return SimulatedCase(fixed, anatomy.images, truth, points, points + displacement_at(truth, points), hole)


def _default_entry(anatomy: Anatomy) -> Sequence[float]:
    if anatomy.tumour is None:
        return FRONTO_TEMPORAL_RIGHT
    return list(centre_of_mass(anatomy.tumour) - centre_of_mass(anatomy.brain))


def structural_points(
    anatomy: Anatomy, truth: DisplacementField, mask: torch.Tensor, count: int, apart_mm: float = 6.0
) -> Array:
    """(N, 3), RAS mm of the ultrasound: points where an observer would find structure in both images, `count` at most.

    Tissue borders (largest gradients of the tissue maps, warped by the true displacement) at least 3 mm inside ``mask``
    (D, H, W) and ``apart_mm`` from each other, strongest first.
    """
    if count == 0:
        return np.zeros((0, 3))
    grid = truth.grid
    fractions = warp(resample(anatomy.tissues, grid)[None], truth.to_voxel())
    # One image that shows every tissue border that ultrasound can show.
    weights = torch.tensor([{"grey": 0.7, "white": 1.0}.get(name, 0.0) for name in TISSUES]).reshape(1, -1, 1, 1, 1)
    contrast = gaussian_blur((fractions * weights).sum(dim=1, keepdim=True), 1.5)
    deep = torch.from_numpy(depth_below_surface_mm(mask.numpy(), grid)) >= 3.0
    usable = deep & (fractions[0].sum(dim=0) > 0.9)
    strength = torch.where(usable, gradient_magnitude(contrast)[0, 0], torch.zeros(()))
    # An observer would not rely on borders weaker than this, relative to the strongest.
    candidates = torch.nonzero(strength > 0.15 * strength.max()).numpy()
    order = np.argsort(-strength[tuple(candidates.T)].numpy(), kind="stable")
    points = transform_points(grid.ras_from_ijk, candidates[order][:, ::-1].astype(np.float64))
    chosen: list[Array] = []
    while len(points) > 0 and len(chosen) < count:
        chosen.append(points[0])
        points = points[np.linalg.norm(points - points[0], axis=1) >= apart_mm]
    return np.array(chosen, dtype=np.float64).reshape(-1, 3)
