"""A resection cavity: where tissue has been taken out and saline is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array
from MMRegCore.simulate.anatomy import Anatomy
from MMRegCore.simulate.craniotomy import Probe
from MMRegCore.simulate.noise import gaussian_blur, random_stream, smooth_noise
from MMRegCore.volume import Volume


@dataclass(frozen=True)
class CavitySettings:
    """Shape of a resection cavity.

    Attributes
    ----------
    radius_mm : float
        Of a cavity where no tumour is known; a known tumour is taken out whole.
    depth_mm : float
        From the brain's surface to the middle of such a cavity.
    margin_mm : float
        How far a resection goes beyond a known tumour.
    roughness_mm : float
        Standard deviation by which the wall departs from its shape.
    corridor_mm : float
        Half-width of the way from the craniotomy.
    """

    radius_mm: float = 9.0
    depth_mm: float = 11.0
    margin_mm: float = 1.0
    roughness_mm: float = 1.2
    corridor_mm: float = 5.0

    def __post_init__(self) -> None:
        lengths = (self.radius_mm, self.depth_mm, self.corridor_mm)
        if not all(math.isfinite(v) and v > 0 for v in lengths):
            raise InputError(f"expected positive lengths in mm; got {self}")
        if not all(math.isfinite(v) and v >= 0 for v in (self.margin_mm, self.roughness_mm)):
            raise InputError(f"expected a margin and a roughness of at least 0 mm; got {self}")


def resection_cavity(anatomy: Anatomy, probe: Probe, settings: CavitySettings, *, seed: int = 0) -> Volume:
    """The share of every voxel that is taken out: the tumour where there is one, else a ball under the craniotomy.

    Parameters
    ----------
    anatomy : Anatomy
        As imaged, so the cavity is where its tissue was before the brain shifted.
    probe : Probe
        Its origin is the middle of the craniotomy, from where a corridor leads in.
    settings : CavitySettings
    seed : int
        Of the wall's roughness.

    Returns
    -------
    Volume, (1, D, H, W)
        In [0, 1], on the grid of the tissue maps.
    """
    grid = anatomy.tissues.grid
    points = grid.points_ras()
    spacing = grid.spacing_mm[::-1]
    if anatomy.tumour is None:
        middle = probe.origin_ras + settings.depth_mm * probe.beam_ras
        inward_mm = settings.radius_mm - np.linalg.norm(points - middle, axis=-1)
    else:
        share = gaussian_blur(anatomy.tumour.data, [1.0 / float(s) for s in spacing])[0].double().numpy()
        middle = (points * share[..., None]).sum(axis=(0, 1, 2)) / share.sum()
        # The blurred edge of a tumour falls from 1 to 0 over about 2.5 mm, half of it at the edge itself.
        inward_mm = np.where(share > 0.01, 2.5 * (share - 0.5), -np.inf) + settings.margin_mm
    corridor_mm = settings.corridor_mm - _distance_from_line(points, probe.origin_ras - 10 * probe.beam_ras, middle)
    rough = smooth_noise(grid.shape, [3.0 / float(s) for s in spacing], random_stream(seed, "cavity")).numpy()
    inside_mm = np.maximum(inward_mm, corridor_mm) + settings.roughness_mm * rough
    # Half a millimetre to either side of the wall a voxel is partly wall.
    return Volume(torch.from_numpy(np.clip(inside_mm + 0.5, 0, 1)).float()[None], grid, name="cavity")


def _distance_from_line(points: Array, start: Array, end: Array) -> Array:
    """(D, H, W), mm from the nearest point of the line between two points."""
    way = end - start
    along = np.clip((points - start) @ way / (way @ way), 0, 1)
    return np.asarray(np.linalg.norm(points - start - along[..., None] * way, axis=-1))
