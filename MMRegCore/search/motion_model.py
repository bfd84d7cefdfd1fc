"""What is expected of a brain's motion before any image is looked at: a small linear part and a smooth deformation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.ops import identity_positions, sample
from MMRegCore.prepare import Prepared
from MMRegCore.search.settings import MotionPriorSettings

# Translation, rotation, scale and shear.
LINEAR = 12
# Control points per standard deviation of the smoothing kernel: trilinear interpolation between them is then exact to
# a hundredth of the displacement.
_POINTS_PER_SIGMA = 2.5


@dataclass(frozen=True, eq=False)
class MotionModel:
    """Displacements as functions of standard normal parameters.

    The first three parameters are a translation, the next three a rotation vector about the middle of the field of
    view, the next six a symmetric matrix of scale and shear about it (without effect where the prior has none), each in
    units of its expected size; the others are white noise that a Gaussian kernel turns into a smooth field.  Half the
    squared length of the parameters is minus the logarithm of the prior, whatever the resolution.  Vectors have the
    order (d, h, w).

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

    def move(self, parameters: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Take positions (1, 3, D, H, W), voxels of the working grid, to where the MR has them.

        Twelve parameters give the linear part alone.
        """
        matrix, shift = self._linear(parameters)
        centre = self.centre.reshape(1, 3, 1, 1, 1)
        moved = (matrix @ (positions - centre).flatten(2)).reshape(positions.shape)
        moved = moved + (centre + shift.reshape(1, 3, 1, 1, 1))
        if len(parameters) == LINEAR:
            return moved
        places = (positions - self.low.reshape(1, 3, 1, 1, 1)) / self.step
        return moved + sample(self._control(parameters[LINEAR:]), places)

    @torch.no_grad()
    def displacement(self, parameters: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """(1, 3, D, H, W): the displacement at every voxel of the working grid."""
        positions = identity_positions(shape, self.centre.device)
        return self.move(parameters, positions) - positions

    def _linear(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y, z = parameters[3:6] * self.rotation
        xx, yy, zz, xy, xz, yz = parameters[6:LINEAR] * self.scale_shear
        rows = ((xx, xy - z, xz + y), (xy + z, yy, yz - x), (xz - y, yz + x, zz))
        return torch.matrix_exp(torch.stack([torch.stack(row) for row in rows])), parameters[:3] * self.translation

    def _control(self, noise: torch.Tensor) -> torch.Tensor:
        """(1, 3, d, h, w): displacement of the control points in voxels."""
        reach = len(self.kernel) - 1
        # The three components are the batch.
        field = noise.reshape(3, 1, *(n + reach for n in self.points))
        for axis in range(3):
            size = [1, 1, 1, 1, 1]
            size[2 + axis] = len(self.kernel)
            field = F.conv3d(field, self.kernel.reshape(size))
        return self.deformation * field.transpose(0, 1)
