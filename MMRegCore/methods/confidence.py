"""Expected error of a registration at every voxel, from how sharply the images tell the result from its neighbours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.preprocess import Prepared
from MMRegCore.warp import sample, voxel_coordinates

# The result is moved by this much along each axis, to both sides.
PROBE_MM = 4.0
# A voxel's error is decided by what lies around it, about as far as the deformation is alike.
_AROUND_MM = 12.0
# Patches nearer than this do not count as independent of each other.
_ALIKE_MM = 2.0
# A mean loss of gain below this, over a probe to either side, is as good as none.
_FLATTEST = 0.01
# log(expected error in mm) = _OFFSET + _SLOPE · log(standard error in mm): least squares over 32 simulated cases of
# brains that no benchmark uses (MNI152, label maps), see docs/methods.md.
_OFFSET, _SLOPE = -1.74, 1.34
_SMALLEST_MM, _LARGEST_MM = 0.2, 20.0


@torch.no_grad()
def expected_error_mm(prepared: Prepared, displacement_voxel: torch.Tensor, agreement: Agreement) -> torch.Tensor:
    """Estimate the length of the error of a displacement.

    Parameters
    ----------
    prepared : Prepared
    displacement_voxel : Tensor, (1, 3, D, H, W)
        Components (d, h, w), voxels of the working grid.
    agreement : Agreement
        At its finest.

    Returns
    -------
    Tensor, (1, 1, D, H, W)
        mm, on the working grid; calibrated in the field of view only.
    """
    spread = standard_error_mm(agreement, displacement_voxel, float(prepared.grid.spacing_mm.mean()))
    error = (math.exp(_OFFSET) * spread**_SLOPE).clamp(_SMALLEST_MM, _LARGEST_MM)
    centres = agreement.patch_centres()
    first, last = centres[0, 0, 0, 0], centres[0, -1, -1, -1]
    counts = torch.tensor(centres.shape[1:4], device=first.device).flip(0)
    lattice = voxel_coordinates(tuple(prepared.fixed.shape[2:]), first.device)
    return sample(error, (lattice - first) / ((last - first) / (counts - 1).clamp(min=1)).clamp(min=1e-6))


def standard_error_mm(agreement: Agreement, displacement_voxel: torch.Tensor, voxel_mm: float) -> torch.Tensor:
    """(1, 1, a, b, c): standard error of the place that the patches around each patch agree on, but for a factor.

    The neighbourhood's agreement is a sum over its patches.  Were each patch to vote for itself, they would pull to
    different sides: the pulls' variance over the curvature squared is the variance of the place where they balance,
    whether or not LC² is the right model (the sandwich estimator of Huber 1967), summed here over the three axes.
    """
    positions = agreement.displaced(displacement_voxel)
    gain, share = agreement.gain(positions)
    around, alike = (size / agreement.patch_distance_mm for size in (_AROUND_MM, _ALIKE_MM))
    evidence = _blurred(share, around)
    variance = torch.zeros_like(gain)
    for axis in range(3):
        probe = torch.zeros(3, device=positions.device)
        probe[axis] = PROBE_MM / voxel_mm
        below, above = ((gain - agreement.gain(positions + sign * probe)[0]) * share for sign in (-1, 1))
        pull = _blurred((below - above) / (2 * PROBE_MM), alike)
        curvature = torch.maximum(_blurred(below + above, around), _FLATTEST * evidence) / PROBE_MM**2
        # The square of a Gaussian is one of 1/√2 its width.
        variance = variance + _blurred(pull.square(), around / math.sqrt(2)) / curvature.square()
    # No patch far and wide: nothing is known.
    return torch.where(evidence > 0, variance.sqrt(), torch.inf)


def _blurred(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (1, 1, a, b, c), zeros outside."""
    reach = max(int(3 * sigma), 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=values.device) / sigma).square())
    for axis in range(3):
        size = [1, 1, 1, 1, 1]
        size[2 + axis] = len(kernel)
        padding = [0, 0, 0]
        padding[axis] = reach
        values = F.conv3d(values, (kernel / kernel.sum()).reshape(size), padding=padding)
    return values
