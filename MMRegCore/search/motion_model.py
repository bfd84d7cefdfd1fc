"""What is expected of a brain's motion before any image is looked at: a small linear part and a smooth deformation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from MMRegCore.ops import RowSums, identity_positions, matrix_exp, sample
from MMRegCore.ops.points import corner_weights, corners
from MMRegCore.prepare import Prepared
from MMRegCore.search.settings import MotionPriorSettings

# Translation, rotation, scale and shear.
LINEAR = 12
# Control points per standard deviation of the smoothing kernel: trilinear interpolation between them is then exact to
# a hundredth of the displacement.
_POINTS_PER_SIGMA = 2.5


@dataclass(frozen=True, eq=False)
class MotionModel:
    """Displacements as functions of parameters without a unit.

    The first three parameters are a translation, the next three a rotation vector about the middle of the field of
    view, the next six a symmetric matrix of scale and shear about it (without effect where the prior has none), each in
    units of its expected size; the others are white noise that a Gaussian kernel turns into a smooth field.
    Translation and rotation follow Student's t a priori, the others are standard normal, whatever the resolution.
    Vectors have the order (d, h, w).

    Attributes
    ----------
    centre : Tensor, (3,)
        Middle of the field of view, voxels of the working grid.
    low : Tensor, (3,)
        First control point, voxels.
    step : float
        Distance of the control points in voxels.
    points : tuple of int
        Control points along (d, h, w).
    kernel : Tensor, (n,)
        Of the smoothing, with unit energy along each axis.
    translation, rotation, scale_shear, deformation : float
        Expected sizes: voxels per axis, radians per axis, fraction, voxels per axis.
    degrees_of_freedom : float
        Of Student's t.
    """

    centre: torch.Tensor
    low: torch.Tensor
    step: float
    points: tuple[int, int, int]
    kernel: torch.Tensor
    translation: float
    rotation: float
    scale_shear: float
    deformation: float
    degrees_of_freedom: float

    @classmethod
    def of(cls, prepared: Prepared, prior: MotionPriorSettings) -> MotionModel:
        """The motion expected in the field of view of a prepared pair."""
        voxel_mm = prepared.spacing_mm
        index = prepared.fixed.weight[0, 0].nonzero().float()
        low, high = index.amin(dim=0), index.amax(dim=0)
        # Smoothing white noise with sigma gives a correlation with √2 sigma.
        sigma = prior.correlation_length_mm / math.sqrt(2) / voxel_mm
        step = max(sigma / _POINTS_PER_SIGMA, 1.0)
        reach = math.ceil(3 * sigma / step)
        offsets = torch.arange(-reach, reach + 1, device=index.device) * (step / sigma)
        kernel = torch.exp(-0.5 * offsets.square())
        counts = [math.ceil(float(n) / step) + 1 for n in high - low]
        return cls(
            index.mean(dim=0),
            low,
            step,
            (counts[0], counts[1], counts[2]),
            kernel / kernel.norm(),
            prior.translation_mm / voxel_mm,
            math.radians(prior.rotation_deg),
            prior.scale_shear_percent / 100,
            prior.deformation_mm / voxel_mm,
            prior.degrees_of_freedom,
        )

    def identity(self) -> torch.Tensor:
        """(N,): the parameters of no motion at all."""
        reach = len(self.kernel) - 1
        return self.kernel.new_zeros(LINEAR + 3 * math.prod(n + reach for n in self.points))

    def from_linear(self, linear: torch.Tensor) -> torch.Tensor:
        """(N,): the parameters of a linear motion (12,), without deformation."""
        parameters = self.identity()
        parameters[:LINEAR] = linear
        return parameters

    def surprise(self, parameters: torch.Tensor) -> torch.Tensor:
        """(K,): minus the logarithm of the prior of parameters (K, n), up to a constant."""
        return self.rigid_surprise(parameters) + parameters[:, 6:].square().sum(dim=1) / 2

    def rigid_surprise(self, parameters: torch.Tensor) -> torch.Tensor:
        """(K,): the part of that which translation and rotation have."""
        freedom = self.degrees_of_freedom
        squared = parameters[:, :6].square().unflatten(1, (2, 3)).sum(dim=2)
        return (freedom + 3) / 2 * torch.log1p(squared / freedom).sum(dim=1)

    def at(self, points: torch.Tensor) -> PointMotion:
        """The motion of points (N, 3), voxels of the working grid."""
        index, fraction, _ = corners((points - self.low) / self.step, self.points)
        row = torch.arange(len(points), device=points.device).repeat_interleave(8)
        shape = len(points), math.prod(self.points)
        weight = corner_weights(fraction).flatten()
        return PointMotion(self, points - self.centre, RowSums.of(row, index.flatten(), weight, shape))

    def move(self, parameters: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Take positions (1, 3, D, H, W), voxels of the working grid, to where the MR has them.

        Twelve parameters give the linear part alone.
        """
        return positions + self._displacement(parameters, positions)

    @torch.no_grad()
    def displacement(self, parameters: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """(1, 3, D, H, W): the displacement at every voxel of the working grid."""
        return self._displacement(parameters, identity_positions(shape, self.centre.device))

    def _displacement(self, parameters: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        matrix, shift = self.linear(parameters)
        offsets = positions - self.centre.reshape(1, 3, 1, 1, 1)
        change = matrix - torch.eye(3, device=matrix.device)
        displaced = (change @ offsets.flatten(2)).reshape(positions.shape) + shift.reshape(1, 3, 1, 1, 1)
        if len(parameters) == LINEAR:
            return displaced
        control = self.control(parameters).t().reshape(1, 3, *self.points)
        return displaced + sample(control, (positions - self.low.reshape(1, 3, 1, 1, 1)) / self.step)

    def linear(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Matrix (..., 3, 3) and translation (..., 3), voxels, about the middle of the field of view."""
        x, y, z = (parameters[..., 3:6] * self.rotation).unbind(-1)
        xx, yy, zz, xy, xz, yz = (parameters[..., 6:LINEAR] * self.scale_shear).unbind(-1)
        rows = torch.stack([xx, xy - z, xz + y, xy + z, yy, yz - x, xz - y, yz + x, zz], dim=-1)
        return matrix_exp(rows.unflatten(-1, (3, 3))), parameters[..., :3] * self.translation

    def control(self, parameters: torch.Tensor) -> torch.Tensor:
        """(..., n, 3): displacement of the control points in voxels."""
        reach = len(self.kernel) - 1
        field = parameters[..., LINEAR:].unflatten(-1, (3, *(n + reach for n in self.points)))
        for smoothing in self._smoothing:
            # The axis goes to the end: in turn, all three do.
            field = torch.tensordot(field, smoothing, dims=([field.ndim - 3], [1]))
        points: torch.Tensor = self.deformation * field.flatten(-3).transpose(-2, -1)
        return points

    @cached_property
    def _smoothing(self) -> tuple[torch.Tensor, ...]:
        """(n, n + reach) for each axis: convolution with the kernel, where it lies within."""
        rows = len(self.kernel)
        made = []
        for n in self.points:
            matrix = self.kernel.new_zeros(n, n + rows - 1)
            for row in range(n):
                matrix[row, row : row + rows] = self.kernel
            made.append(matrix)
        return tuple(made)


@dataclass(frozen=True, eq=False)
class PointMotion:
    """A motion model at points that stay the same: what does not depend on the parameters is made once.

    Attributes
    ----------
    model : MotionModel
    offsets : Tensor, (N, 3)
        The points from the middle of the field of view, voxels.
    interpolation : RowSums
        From the control points to the points.
    """

    model: MotionModel
    offsets: torch.Tensor
    interpolation: RowSums

    def __call__(self, parameters: torch.Tensor) -> torch.Tensor:
        """(N, K, 3): where the MR has the points, voxels of the working grid, by parameters (K, n).

        Twelve parameters give the linear part alone.
        """
        matrix, shift = self.model.linear(parameters)
        count = len(parameters)
        columns = matrix.permute(2, 0, 1).reshape(3, 3 * count)
        moved = torch.addmm((self.model.centre + shift).flatten(), self.offsets, columns)
        if parameters.shape[1] > LINEAR:
            control = self.model.control(parameters).permute(1, 0, 2).flatten(1)
            moved = moved + self.interpolation(control)
        return moved.reshape(-1, count, 3)
