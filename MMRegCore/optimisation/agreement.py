"""How well MR images explain an ultrasound image, for any way of bringing them onto it: LC² as evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from MMRegCore.optimisation.instance import pool
from MMRegCore.preprocess import Prepared
from MMRegCore.similarity import explained_share, lc2_regressors, patch_mean, standardised
from MMRegCore.warp import inside, sample, voxel_coordinates

# Patches with less of their volume in the field of view are not fitted: too few voxels for so many regressors.
_LEAST_SUPPORT = 0.3
# Patches are this many samples apart: they overlap, so that more of them would hardly tell more.
_PATCH_STEP = 2


@dataclass(frozen=True, eq=False)
class Agreement:
    """LC² of one ultrasound and its MR images at one resolution.

    The ultrasound is sampled at places that lie at random within their voxels.  On the lattice itself an MR moved by
    half a voxel would always look better than one not moved, because interpolation smooths its noise: that alone
    pulls every optimum half a voxel along each axis away from the truth.

    Attributes
    ----------
    fixed, weight : Tensor, (1, 1, D, H, W)
        Ultrasound, standardised, and where it is evidence.
    positions : Tensor, (1, D, H, W, 3)
        Where it was sampled, voxels (w, h, d) of the working grid.
    moving : tuple of Tensor, (1, 3, d, h, w)
        Intensity, gradient magnitude and evidence of each MR, averaged over ``stride``³ voxels of the working grid.
    stride, radius : int
        Pooling, and half-width of the patches in samples.
    patch_distance_mm : float
        Distance of the patches' centres.
    """

    fixed: torch.Tensor
    weight: torch.Tensor
    positions: torch.Tensor
    moving: tuple[torch.Tensor, ...]
    stride: int
    radius: int
    patch_distance_mm: float

    @classmethod
    def of(cls, prepared: Prepared, lattice_mm: float, radius: int) -> Agreement:
        """The agreement of a prepared pair around its field of view.

        Parameters
        ----------
        prepared : Prepared
        lattice_mm : float
            Distance of the samples; images are pooled to the next finer resolution.
        radius : int
            Half-width of the patches in samples.
        """
        voxel_mm = float(prepared.grid.spacing_mm.mean())
        stride = max(int(lattice_mm / voxel_mm + 1e-3), 1)
        step = max(lattice_mm / (stride * voxel_mm), 1.0)
        image, weight = pool(prepared.fixed, stride), (pool(prepared.fixed_weight, stride) > 0.5).float()
        if not bool(weight.any()):
            weight = (pool(prepared.fixed_weight, stride) > 0).float()
        index = weight[0, 0].nonzero()
        low, high = index.amin(dim=0), index.amax(dim=0)
        counts = [int(n / step) + 1 for n in (high - low).tolist()]
        lattice = low.flip(0) + step * voxel_coordinates(tuple(counts), image.device)
        # A stream of its own: the same places in every run, whatever the seed.
        random = torch.Generator().manual_seed(0)
        places = lattice + step * (torch.rand(lattice.shape, generator=random) - 0.5).to(lattice.device)
        moving = []
        for volume, evidence in zip(prepared.moving, prepared.moving_weight, strict=True):
            coarse, part = pool(volume, stride), pool(evidence, stride)
            moving.append(torch.cat([lc2_regressors(coarse, part), part], dim=1))
        return cls(
            sample(standardised(image, weight), places),
            sample(weight, places, mode="nearest", padding_mode="zeros"),
            places * stride + (stride - 1) / 2,
            tuple(moving),
            stride,
            radius,
            _PATCH_STEP * step * stride * voxel_mm,
        )

    def gain(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the MR images explain when the ultrasound's sample at ``self.positions`` is compared with ``positions``.

        Parameters
        ----------
        positions : Tensor, (1, D, H, W, 3)
            Voxels (w, h, d) of the working grid.

        Returns
        -------
        gain : Tensor, (1, 1, a, b, c)
            ``-log(1 - share)`` of each patch, every second voxel: twice the logarithm of the likelihood ratio, per
            voxel, of 'explained by the MR' to 'unexplained'.
        share : Tensor, (1, 1, a, b, c)
            Share of the field of view that each patch stands for; what no MR covers gains nothing.
        """
        places = (positions - (self.stride - 1) / 2) / self.stride
        regressors, weight = [], self.weight
        for volume in self.moving:
            values = sample(volume, places)
            regressors.append(values[:, :2])
            weight = weight * values[:, 2:] * inside(places, volume.shape[2:])[:, None]
        explained, _, support = explained_share(
            self.fixed, torch.cat(regressors, dim=1), weight, radius=self.radius, stride=_PATCH_STEP
        )
        support = support * (support > _LEAST_SUPPORT)
        return -torch.log1p(-explained), support / self._whole

    def mean_gain(self, positions: torch.Tensor) -> torch.Tensor:
        """Scalar: the gain averaged over the field of view."""
        gain, share = self.gain(positions)
        return (gain * share).sum()

    def displaced(self, displacement_voxel: torch.Tensor) -> torch.Tensor:
        """(1, D, H, W, 3): the samples moved by a displacement (1, 3, …), components (d, h, w), of the working grid."""
        return self.positions + sample(displacement_voxel.flip(1), self.positions).permute(0, 2, 3, 4, 1)

    def shares(self) -> torch.Tensor:
        """(1, 1, a, b, c): share of the field of view that each patch stands for where an MR covers all of it."""
        support = patch_mean(self.weight, self.radius, _PATCH_STEP)
        return support * (support > _LEAST_SUPPORT) / self._whole

    def patch_centres(self) -> torch.Tensor:
        """(1, a, b, c, 3): middle of each patch, voxels (w, h, d) of the working grid, but for the jitter."""
        return self.positions[:, ::_PATCH_STEP, ::_PATCH_STEP, ::_PATCH_STEP]

    @cached_property
    def _whole(self) -> float:
        # Patches of a step apart, each counting its mean weight, add up to the field of view in samples over the step³.
        return max(float(self.weight.sum()) / _PATCH_STEP**3, 1.0)
