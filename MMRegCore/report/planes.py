"""Axial, coronal and sagittal cuts through the fixed image, whatever way its own grid lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from MMRegCore.assessment.assess import centroid_ras
from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import inside, positions_between, sample
from MMRegCore.volume import Volume

_Axes = tuple[tuple[int, int, int], ...]
Picture = npt.NDArray[np.float64]

# Pixels along the longest side of the three planes, and the share of it that is shown around the mask.
PIXELS = 420
RIM_SHARE = 0.08

# To the right of the picture, down in the picture and into it, RAS; seen from the feet and from the patient's left,
# as radiologists hold images (the patient's right is on the left of the picture, the nose on the left).
_DIRECTIONS: dict[str, _Axes] = {
    "axial": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "coronal": ((-1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (-1, 0, 0)),
}
_LETTERS = ("LR", "PA", "IS")  # towards -, towards + along x, y, z (RAS)


@dataclass(frozen=True, eq=False)
class Plane:
    """One cut."""

    name: str  # 'axial', 'coronal' or 'sagittal'
    grid: Grid  # (1, H, W): isotropic pixels, rows downwards
    letters: tuple[str, str, str, str]  # what lies to the left, right, top and bottom: R, L, A, P, S or I

    @property
    def pixel_mm(self) -> float:
        """Size of a pixel."""
        return float(self.grid.spacing_mm[0])

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        return self.grid.shape[2] * self.pixel_mm, self.grid.shape[1] * self.pixel_mm

    @property
    def largest_mm(self) -> float:
        """The longest side of the three planes."""
        return PIXELS * self.pixel_mm

    def cut(self, volume: Volume) -> Picture:
        """(H, W): the first channel of ``volume`` on this plane, trilinear; NaN outside of its grid."""
        positions = positions_between(volume.grid, self.grid)
        values = sample(volume.data[None, :1], positions)[0, 0, 0].double()
        values[~inside(positions, volume.grid.shape)[0, 0, 0]] = torch.nan
        picture: Picture = values.numpy()
        return picture

    def cut_mask(self, mask: torch.Tensor, grid: Grid) -> npt.NDArray[np.bool_]:
        """(H, W): a mask (D, H, W) on ``grid`` on this plane; False outside of the grid."""
        values: Picture = self.cut(Volume(mask[None].float(), grid))
        inside_mask: npt.NDArray[np.bool_] = np.nan_to_num(values) > 0.5
        return inside_mask


def planes_through(grid: Grid, mask: torch.Tensor) -> tuple[Plane, ...]:
    """The three planes through the centroid of ``mask`` (D, H, W), large enough to show all of it."""
    voxels = mask.nonzero().flip(1).double().cpu().numpy()
    points = voxels @ grid.ras_from_ijk[:3, :3].T + grid.ras_from_ijk[:3, 3]
    extent = float(np.ptp(points, axis=0).max()) + float(grid.spacing_mm.max())
    rim = RIM_SHARE * extent + float(grid.spacing_mm.max()) / 2
    low, high = points.min(axis=0) - rim, points.max(axis=0) + rim
    pixel_mm = float((high - low).max()) / PIXELS
    centre = centroid_ras(grid, mask)
    return tuple(_plane(name, axes, centre, (low, high), pixel_mm) for name, axes in _DIRECTIONS.items())


def _plane(name: str, axes: _Axes, centre: Array, box: tuple[Array, Array], pixel_mm: float) -> Plane:
    right, down, into = (np.array(axis, dtype=np.float64) for axis in axes)
    middle = (box[0] + box[1]) / 2
    corner = centre.copy()
    size = []
    for axis in (right, down):
        along = int(np.abs(axis).argmax())
        extent = float(box[1][along] - box[0][along])
        size.append(max(1, round(extent / pixel_mm)))
        corner[along] = middle[along] - axis[along] * (size[-1] - 1) / 2 * pixel_mm
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, down, into], axis=1) * pixel_mm
    matrix[:3, 3] = corner
    letters = (_letter(-right), _letter(right), _letter(-down), _letter(down))
    return Plane(name, Grid((1, size[1], size[0]), matrix), letters)


def _letter(direction: Array) -> str:
    along = int(np.abs(direction).argmax())
    return _LETTERS[along][int(direction[along] > 0)]
