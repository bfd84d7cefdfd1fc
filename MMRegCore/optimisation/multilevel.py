"""Instance optimisation on several resolutions: Adam on the displacement, or velocity, of every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.config import DnsSettings
from MMRegCore.monitor import Monitor
from MMRegCore.networks.flow import integrated
from MMRegCore.optimisation.instance import Adam, roughness
from MMRegCore.warp import sample, voxel_coordinates


def optimise_levels(
    fixed: torch.Tensor,
    moving: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    settings: DnsSettings,
    monitor: Monitor,
    *,
    unit: bool,
) -> torch.Tensor:
    """Find the displacement under which descriptors agree, coarse to fine (Mok et al. 2024, Eq. 5 and Table 4).

    Minimises ``mean_x ½|F(x) − M(x + u(x))|² + λ·Σ mean |∂u|²``, the first term averaged over the moving images; of
    unit vectors it is one more than the negated cosine similarity.  The parameter is u in halves of the grid's length
    along each axis, which is what the learning rates of Table 4 are steps of; ∂u is without unit.

    Parameters
    ----------
    fixed : Tensor, (1, C, D, H, W)
        Descriptors.
    moving : sequence of Tensor, (1, C, D, H, W)
        Of each moving image.
    weights : sequence of Tensor, (1, 1, D, H, W)
        Evidence for each moving image, in [0, 1]; where there is none, the field follows its neighbours.
    settings : DnsSettings
    monitor : Monitor
    unit : bool
        Whether descriptors are compared by their direction only, as those of MASR-Net are.

    Returns
    -------
    Tensor, (1, 3, D, H, W)
        Displacement (d, h, w) in voxels.
    """
    shape = tuple(fixed.shape[2:])
    parameter = fixed.new_zeros((1, 3, *shape))
    work = [n * s**3 for n, s in zip(settings.iterations, settings.scales, strict=True)]
    for level, scale in enumerate(settings.scales):
        size = tuple(max(round(scale * n), 2) for n in shape)
        there = _resized(fixed, size)
        pairs = zip(moving, weights, strict=True)
        terms = [_Term.of(there, _resized(image, size), _resized(weight, size), unit) for image, weight in pairs]
        parameter = _resized(parameter, size).requires_grad_(True)
        adam = Adam(parameter, settings.learning_rate[level])
        start, share = sum(work[:level]) / max(sum(work), 1), work[level] / max(sum(work), 1)
        for iteration in range(settings.iterations[level]):
            done = start + share * iteration / settings.iterations[level]
            monitor.report(f"descriptors at scale {scale:g}", done)
            loss = settings.regularisation[level] * roughness(_in_voxels(parameter))
            displacement = _displacement(parameter, settings)
            for term in terms:
                loss = loss + term.dissimilarity(displacement) / len(terms)
            adam.step(torch.autograd.grad(loss, parameter)[0])
        parameter = parameter.detach()
    return _displacement(_resized(parameter, shape), settings)


def _displacement(parameter: torch.Tensor, settings: DnsSettings) -> torch.Tensor:
    voxels = _in_voxels(parameter)
    return integrated(voxels) if settings.form == "velocity" else voxels


def _in_voxels(parameter: torch.Tensor) -> torch.Tensor:
    """From halves of the grid's length, edge to edge, to voxels."""
    halves = parameter.new_tensor(parameter.shape[2:]) / 2
    voxels: torch.Tensor = parameter * halves.reshape(1, 3, 1, 1, 1)
    return voxels


def _resized(volume: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Trilinear, the outer faces of the outer voxels where they were."""
    if tuple(volume.shape[2:]) == shape:
        return volume
    return F.interpolate(volume, size=shape, mode="trilinear", align_corners=False)


@dataclass(frozen=True, eq=False)
class _Term:
    """Weighted mean of ½|F − M|² over the N voxels that are evidence at all."""

    fixed: torch.Tensor  # (C, N)
    moving: torch.Tensor  # (1, C, D, H, W)
    share: torch.Tensor  # (N,), adds up to 1
    places: torch.Tensor  # (N,), index of the voxels
    positions: torch.Tensor  # (N, 3), their coordinates (w, h, d)
    unit: bool

    @classmethod
    def of(cls, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor, unit: bool) -> _Term:
        places = weight.flatten().nonzero()[:, 0]
        share = weight.flatten()[places]
        positions = voxel_coordinates(tuple(fixed.shape[2:]), fixed.device).reshape(-1, 3)[places]
        values = fixed.flatten(2)[0][:, places]
        values = F.normalize(values, dim=0) if unit else values
        return cls(values, moving, share / share.sum().clamp(min=1e-12), places, positions, unit)

    def dissimilarity(self, displacement_voxel: torch.Tensor) -> torch.Tensor:
        there = self.positions + displacement_voxel.flatten(2)[0][:, self.places].flip(0).t()
        warped = sample(self.moving, there[None, :, None, None])[0, :, :, 0, 0]
        warped = F.normalize(warped, dim=0) if self.unit else warped
        return ((warped - self.fixed).square().sum(dim=0) * self.share).sum() / 2
