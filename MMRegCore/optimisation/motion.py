"""What is expected of a brain's motion before any image is looked at: a small linear part and a smooth rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.config import MotionSettings
from MMRegCore.preprocess import Prepared
from MMRegCore.warp import sample

# Translation, rotation, stretch and shear.
LINEAR = 12
# Control points per standard deviation of the smoothing kernel: trilinear interpolation between them is then exact to
# a hundredth of the displacement.
_POINTS_PER_SIGMA = 2.5


@dataclass(frozen=True, eq=False)
class Motion:
    """Displacements as functions of standard normal parameters.

    The first three parameters are a translation, the next three a rotation vector about the middle of the field of
    view, the next six a symmetric matrix that stretches and shears about it (they do nothing where no stretch is asked
    for), each in units of its expected size; the others are white noise that a Gaussian kernel turns into a smooth
    field.  Half the squared length of the parameters is minus the logarithm of the prior, whatever the resolution.

    Attributes
    ----------
    centre : Tensor, (3,)
        Middle of the field of view, voxels (w, h, d) of the working grid.
    low : Tensor, (3,)
        First control point, voxels (w, h, d).
    step : float
        Distance of the control points in voxels.
    points : tuple of int
        Control points along (d, h, w).
    kernel : Tensor, (n,)
        Of the smoothing, with unit energy along each axis.
    translation, rotation, stretch, deformation : float
        Expected sizes: voxels per axis, radians per axis, share, voxels per axis.
    """

    centre: torch.Tensor
    low: torch.Tensor
    step: float
    points: tuple[int, int, int]
    kernel: torch.Tensor
    translation: float
    rotation: float
    stretch: float
    deformation: float

    @classmethod
    def of(cls, prepared: Prepared, settings: MotionSettings) -> Motion:
        """The motion expected in the field of view of a prepared pair."""
        voxel_mm = float(prepared.grid.spacing_mm.mean())
        index = prepared.fixed_weight[0, 0].nonzero().flip(1).float()
        low, high = index.amin(dim=0), index.amax(dim=0)
        # Smoothing white noise with sigma gives a correlation with √2 sigma.
        sigma = settings.length_mm / math.sqrt(2) / voxel_mm
        step = max(sigma / _POINTS_PER_SIGMA, 1.0)
        reach = math.ceil(3 * sigma / step)
        offsets = torch.arange(-reach, reach + 1, device=index.device) * (step / sigma)
        kernel = torch.exp(-0.5 * offsets.square())
        counts = [math.ceil(float(n) / step) + 1 for n in (high - low).flip(0)]
        return cls(
            index.mean(dim=0),
            low,
            step,
            (counts[0], counts[1], counts[2]),
            kernel / kernel.norm(),
            settings.translation_mm / voxel_mm,
            math.radians(settings.rotation_deg),
            settings.stretch_percent / 100,
            settings.deformation_mm / voxel_mm,
        )

    def still(self) -> torch.Tensor:
        """(N,): the parameters of no motion at all."""
        reach = len(self.kernel) - 1
        return self.kernel.new_zeros(LINEAR + 3 * math.prod(n + reach for n in self.points))

    def from_pose(self, pose: torch.Tensor) -> torch.Tensor:
        """(N,): the parameters of a linear pose (12,), without deformation."""
        parameters = self.still()
        parameters[:LINEAR] = pose
        return parameters

    def move(self, parameters: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Take positions (1, D, H, W, 3), voxels (w, h, d) of the working grid, to where the MR has them.

        Twelve parameters give the linear part alone.
        """
        matrix, shift = self._linear(parameters)
        moved = (positions - self.centre) @ matrix.T + self.centre + shift
        if len(parameters) == LINEAR:
            return moved
        places = (positions - self.low) / self.step
        return moved + sample(self._control(parameters[LINEAR:]), places).permute(0, 2, 3, 4, 1)

    def _linear(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y, z = parameters[3:6] * self.rotation
        xx, yy, zz, xy, xz, yz = parameters[6:LINEAR] * self.stretch
        rows = ((xx, xy - z, xz + y), (xy + z, yy, yz - x), (xz - y, yz + x, zz))
        return torch.matrix_exp(torch.stack([torch.stack(row) for row in rows])), parameters[:3] * self.translation

    def _control(self, noise: torch.Tensor) -> torch.Tensor:
        """(1, 3, d, h, w): displacement (w, h, d) of the control points in voxels."""
        reach = len(self.kernel) - 1
        # The three components are the batch.
        field = noise.reshape(3, 1, *(n + reach for n in self.points))
        for axis in range(3):
            size = [1, 1, 1, 1, 1]
            size[2 + axis] = len(self.kernel)
            field = F.conv3d(field, self.kernel.reshape(size))
        return self.deformation * field.transpose(0, 1)
