"""A resection cavity: where tissue has been removed and saline fills the space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.geometry import Array
from MMRegCore.ops import gaussian_blur
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.anatomy import Anatomy
from MMRegCore.simulate.craniotomy import Probe, centre_of_mass
from MMRegCore.simulate.noise import random_stream, smooth_noise
from MMRegCore.volume import Volume


@dataclass(frozen=True)
class CavitySettings(Settings):
    """Shape of a resection cavity."""

    radius_mm: float = setting(9.0, "Radius where no tumour is given; a tumour is resected whole.", minimum=0.1)
    depth_mm: float = setting(
        11.0, "Depth of the centre below the brain's surface, where no tumour is given.", minimum=0.1
    )
    margin_mm: float = setting(1.0, "Resection margin around a tumour.", minimum=0)
    roughness_mm: float = setting(1.2, "Standard deviation of the wall's random relief.", minimum=0)
    corridor_mm: float = setting(5.0, "Half-width of the corridor from the craniotomy.", minimum=0.1)


def resection_cavity(anatomy: Anatomy, probe: Probe, settings: CavitySettings, *, seed: int = 0) -> Volume:
    """The resected fraction of every voxel: the tumour where there is one, else a ball under the craniotomy.

    (1, D, H, W) in [0, 1], on the grid of the tissue maps and, as these, before the brain shift.  The corridor begins
    at the origin of ``probe``, the centre of the craniotomy; ``seed`` is that of the wall's roughness.
    """
    grid = anatomy.tissues.grid
    points = grid.points_ras()
    spacing_dhw = grid.spacing_mm[::-1]
    if anatomy.tumour is None:
        centre = probe.origin_ras + settings.depth_mm * probe.beam_ras
        inward_mm = settings.radius_mm - np.linalg.norm(points - centre, axis=-1)
    else:
        tumour = anatomy.tumour.data[None]
        blurred = anatomy.tumour.with_data(gaussian_blur(tumour, (1.0 / spacing_dhw).tolist())[0])
        centre = centre_of_mass(blurred)
        fraction = blurred.data[0].double().numpy()
        # The blurred edge of a tumour falls from 1 to 0 over about 2.5 mm and is a half at the edge itself.
        inward_mm = np.where(fraction > 0.01, 2.5 * (fraction - 0.5), -np.inf) + settings.margin_mm
    corridor_mm = settings.corridor_mm - _distance_from_line(points, probe.origin_ras - 10 * probe.beam_ras, centre)
    relief = smooth_noise(grid.shape, (3.0 / spacing_dhw).tolist(), random_stream(seed, "cavity")).numpy()
    inside_mm = np.maximum(inward_mm, corridor_mm) + settings.roughness_mm * relief
    # Voxels within half a millimetre of the wall are partly cavity.
    return Volume(torch.from_numpy(np.clip(inside_mm + 0.5, 0, 1)).float()[None], grid, name="cavity")


def _distance_from_line(points: Array, start: Array, end: Array) -> Array:
    """(D, H, W), mm from the nearest point of the line segment between two points."""
    way = end - start
    along = np.clip((points - start) @ way / (way @ way), 0, 1)
    return np.asarray(np.linalg.norm(points - start - along[..., None] * way, axis=-1))
