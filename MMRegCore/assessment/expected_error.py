"""Expected error of a registration at every voxel, from how sharply the images tell the result from its neighbours."""

from __future__ import annotations

import math

import torch

from MMRegCore.ops import gaussian_blur, identity_positions, sample
from MMRegCore.prepare import Prepared
from MMRegCore.search.sampled import SampledSimilarity

# The result is moved by this much along each axis, to both sides.
PROBE_MM = 4.0
# A voxel's error is decided by what lies around it, about as far as the deformation is correlated.
_NEIGHBOURHOOD_MM = 12.0
# Patches nearer than this do not count as independent of each other.
_CORRELATED_MM = 2.0
# A mean loss of similarity below this, over a probe to either side, is as good as none.
_FLATTEST = 0.01
# log(expected error in mm) = _OFFSET + log(standard error in mm): least squares over real pairs and simulated cases as
# hard as they are, see docs/methods.md.
_OFFSET = -1.41
_SMALLEST_MM, _LARGEST_MM = 0.2, 20.0


@torch.no_grad()
def expected_error_mm(prepared: Prepared, displacement_voxel: torch.Tensor, sampled: SampledSimilarity) -> torch.Tensor:
    """Estimate the length of the error of a displacement.

    Parameters
    ----------
    prepared : Prepared
    displacement_voxel : Tensor, (1, 3, D, H, W)
        Voxels of the working grid.
    sampled : SampledSimilarity
        At its finest.

    Returns
    -------
    Tensor, (1, 1, D, H, W)
        mm, on the working grid; calibrated in the field of view only.
    """
    spread = standard_error_mm(sampled, displacement_voxel, prepared.spacing_mm)
    error = (math.exp(_OFFSET) * spread).clamp(_SMALLEST_MM, _LARGEST_MM)
    return sample(error, sampled.on_places(identity_positions(prepared.grid.shape, error.device)))


def standard_error_mm(sampled: SampledSimilarity, displacement_voxel: torch.Tensor, voxel_mm: float) -> torch.Tensor:
    """(1, 1, a, b, c): standard error of the position that the patches around each patch agree on, up to a factor.

    The neighbourhood's similarity is a sum over its patches.  Were each patch to vote for itself, they would pull to
    different sides: the pulls' variance over the curvature squared is the variance of the position where they balance,
    whether or not LC² is the right model (the sandwich estimator of Huber 1967), summed here over the three axes.
    """
    points = sampled.displaced(displacement_voxel)
    value, share = sampled.at(points)
    around, near = (size / sampled.patch_spacing_mm for size in (_NEIGHBOURHOOD_MM, _CORRELATED_MM))
    support = gaussian_blur(share, around, outside="zeros")
    variance = torch.zeros_like(value)
    for axis in range(3):
        probe = torch.zeros(3, device=points.device)
        probe[axis] = PROBE_MM / voxel_mm
        below, above = ((value - sampled.at(points + sign * probe).value) * share for sign in (-1, 1))
        pull = gaussian_blur((below - above) / (2 * PROBE_MM), near, outside="zeros")
        lost = gaussian_blur(below + above, around, outside="zeros")
        curvature = torch.maximum(lost, _FLATTEST * support) / PROBE_MM**2
        # The square of a Gaussian is one of 1/√2 its width.
        spread = gaussian_blur(pull.square(), around / math.sqrt(2), outside="zeros")
        variance = variance + spread / curvature.square()
    # No patch far and wide: nothing is known.
    return torch.where(support > 0, variance.sqrt(), torch.inf)
