"""Dense displacement fields: units, composition, inverse, Jacobian, nearest rigid motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.errors import GeometryError
from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import jacobian_determinant, positions_between, sample, warp


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """A displacement at every voxel of a grid, pull convention: ``x_moving = x_fixed + u(x_fixed)``.

    Attributes
    ----------
    displacement_mm : Tensor, (D, H, W, 3), float32
        Components (x, y, z), RAS mm.
    grid : Grid
        The fixed grid.
    """

    displacement_mm: torch.Tensor
    grid: Grid

    def __post_init__(self) -> None:
        expected = (*self.grid.shape, 3)
        if tuple(self.displacement_mm.shape) != expected:
            raise GeometryError(f"expected a displacement of shape {expected}; got {tuple(self.displacement_mm.shape)}")
        object.__setattr__(self, "displacement_mm", self.displacement_mm.float())

    @classmethod
    def from_voxel(cls, displacement_voxel: torch.Tensor, grid: Grid) -> DisplacementField:
        """From (1, 3, D, H, W), components (d, h, w) in voxels of ``grid``."""
        matrix = torch.as_tensor(grid.ras_from_ijk[:3, :3].copy()).to(displacement_voxel)
        return cls(displacement_voxel[0].flip(0).permute(1, 2, 3, 0) @ matrix.T, grid)

    @classmethod
    def zero(cls, grid: Grid) -> DisplacementField:
        """No displacement anywhere."""
        return cls(torch.zeros(*grid.shape, 3), grid)

    @classmethod
    def from_linear(cls, matrix_ras: Array, grid: Grid) -> DisplacementField:
        """The displacement of a linear map (4, 4), RAS mm."""
        # Linear in the voxel's indices: built axis by axis in float64 and summed.
        change = (np.asarray(matrix_ras, dtype=np.float64) - np.eye(4)) @ grid.ras_from_ijk
        field = torch.empty(*grid.shape, 3)
        d, h, w = (torch.arange(n, dtype=torch.float64) for n in grid.shape)
        for component, (i, j, k, shift) in enumerate(change[:3].tolist()):
            field[..., component] = ((d * k + shift)[:, None] + h * j)[..., None] + w * i
        return cls(field, grid)

    def to_voxel(self, grid: Grid | None = None) -> torch.Tensor:
        """(1, 3, D, H, W), components (d, h, w), in voxels of ``grid``; of its own grid when None."""
        matrix = torch.as_tensor((grid or self.grid).ijk_from_ras[:3, :3].copy()).to(self.displacement_mm)
        return (self.displacement_mm @ matrix.T).permute(3, 0, 1, 2).flip(0)[None].contiguous()

    def magnitude_mm(self) -> torch.Tensor:
        """(D, H, W), length of the displacement in mm."""
        magnitude: torch.Tensor = torch.linalg.vector_norm(self.displacement_mm, dim=-1)
        return magnitude

    def on_grid(self, grid: Grid) -> DisplacementField:
        """This field sampled on another grid (trilinear; replicate padding outside)."""
        channels = self.displacement_mm.permute(3, 0, 1, 2)[None]
        values = sample(channels, positions_between(self.grid, grid).to(channels.device))
        return DisplacementField(values[0].permute(1, 2, 3, 0), grid)

    def compose(self, inner: DisplacementField) -> DisplacementField:
        """The field of ``x -> self(inner(x))`` on the grid of ``inner``, which must be this field's own grid."""
        if not self.grid.matches(inner.grid):
            raise GeometryError("expected both fields on one grid; sample one with on_grid first")
        outer = warp(self.to_voxel(), inner.to_voxel())
        return DisplacementField.from_voxel(inner.to_voxel() + outer, self.grid)

    def relative_to(self, linear_ras: Array) -> DisplacementField:
        """The field r with ``linear(x + r(x)) = x + u(x)``: what a linear map (4, 4), RAS mm, leaves of this one."""
        back = np.linalg.inv(np.asarray(linear_ras, dtype=np.float64))
        turned = self.displacement_mm.cpu() @ torch.as_tensor(back[:3, :3].T.copy(), dtype=torch.float32)
        return DisplacementField(self.from_linear(back, self.grid).displacement_mm.add_(turned), self.grid)

    def nearest_rigid(self, weight: torch.Tensor) -> Array:
        """(4, 4), RAS mm: the least-squares rigid transform of ``x -> x + u(x)``, weighted (Kabsch 1976).

        Parameters
        ----------
        weight : Tensor, (D, H, W)
            At least zero; all alike where it is zero everywhere.
        """
        source_centre, target_centre, _, products = self._moments(weight)
        u, singular, vt = np.linalg.svd(products)
        rotation = np.eye(3)
        # Fewer than two spread directions (weights on a line or a point) leave the rotation open: keep none.
        if singular[1] > 1e-9:
            sign = np.sign(np.linalg.det(vt.T @ u.T))
            rotation = vt.T @ np.diag([1.0, 1.0, sign]) @ u.T
        return _about(rotation, source_centre, target_centre)

    def nearest_affine(self, weight: torch.Tensor) -> Array:
        """(4, 4), RAS mm: the least-squares affine transform of ``x -> x + u(x)``; rigid where that is not determined.

        Parameters
        ----------
        weight : Tensor, (D, H, W)
            As of `nearest_rigid`.
        """
        source_centre, target_centre, spread, products = self._moments(weight)
        # Weights that are flat, to a hundredth, in some direction do not determine the scale along it.
        if np.linalg.cond(spread) > 1e4:
            return self.nearest_rigid(weight)
        matrix = np.linalg.solve(spread, products).T
        return _about(matrix, source_centre, target_centre) if np.linalg.det(matrix) > 0 else self.nearest_rigid(weight)

    def _moments(self, weight: torch.Tensor) -> tuple[Array, Array, Array, Array]:
        """Weighted centres (3,) of x and of x + u, and second moments (3, 3) about them: of x, and of x with x + u."""
        share = weight.double().cpu().numpy()
        share = share / share.sum() if share.any() else np.full(share.shape, 1 / share.size)
        middle = self.grid.centre_ras
        source_centre, target_centre = np.zeros(3), np.zeros(3)
        spread, products = np.zeros((3, 3)), np.zeros((3, 3))
        for d, part in enumerate(self.grid.slices()):
            if not share[d].any():
                continue
            source = part.points_ras().reshape(-1, 3) - middle
            target = source + self._slice(d).reshape(-1, 3)
            weighted = source * share[d].reshape(-1, 1)
            source_centre += weighted.sum(axis=0)
            target_centre += share[d].reshape(-1) @ target
            spread += weighted.T @ source
            products += weighted.T @ target
        spread -= np.outer(source_centre, source_centre)
        products -= np.outer(source_centre, target_centre)
        return source_centre + middle, target_centre + middle, spread, products

    def _slice(self, d: int) -> Array:
        """(H, W, 3), float64: the displacements of slice d."""
        values: Array = self.displacement_mm[d].double().cpu().numpy()
        return values

    def inverse(self, iterations: int = 30) -> DisplacementField:
        """The field v with ``v(x) = -u(x + v(x))``, by fixed-point iteration on the same grid.

        Converges where the displacement's Jacobian has norm below 1 (no folds); replicate padding outside.
        """
        forward = self.to_voxel()
        backward = torch.zeros_like(forward)
        for _ in range(iterations):
            backward = -warp(forward, backward)
        return DisplacementField.from_voxel(backward, self.grid)

    def jacobian_determinant(self) -> torch.Tensor:
        """(D, H, W): local volume change of ``x -> x + u(x)``; 1 keeps the volume, 0 or less folds."""
        return jacobian_determinant(self.to_voxel())[0]


def _about(matrix: Array, source_centre: Array, target_centre: Array) -> Array:
    """(4, 4): the linear map (3, 3) that takes one centre to the other."""
    whole = np.eye(4)
    whole[:3, :3] = matrix
    whole[:3, 3] = target_centre - matrix @ source_centre
    return whole
