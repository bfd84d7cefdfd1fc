"""Expected error of a registration at every voxel, from how sharply the images tell the result from its neighbours."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.preprocess import Prepared
from MMRegCore.warp import sample, voxel_coordinates

# The result is moved by this much along each axis; agreement that does not fall cannot have decided the place.
PROBE_MM = 4.0
# A voxel's error is decided by what lies around it, about as far as the deformation is alike.
_AROUND_MM = 12.0
# log(expected error in mm) = _OFFSET + _SLOPE · log(share of the agreement that is lost + _FLOOR): least squares over
# 16 simulated cases of brains that no benchmark uses (MNI152, label maps), see docs/methods.md.
_OFFSET, _SLOPE, _FLOOR = -2.07, -1.14, 0.02
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
    lost = share_lost(agreement, displacement_voxel, float(prepared.grid.spacing_mm.mean()))
    error = torch.exp(_OFFSET + _SLOPE * torch.log(lost.clamp(min=0) + _FLOOR)).clamp(_SMALLEST_MM, _LARGEST_MM)
    centres = agreement.patch_centres()
    first, last = centres[0, 0, 0, 0], centres[0, -1, -1, -1]
    counts = torch.tensor(centres.shape[1:4], device=first.device).flip(0)
    lattice = voxel_coordinates(tuple(prepared.fixed.shape[2:]), first.device)
    return sample(error, (lattice - first) / ((last - first) / (counts - 1).clamp(min=1)).clamp(min=1e-6))


def share_lost(agreement: Agreement, displacement_voxel: torch.Tensor, voxel_mm: float) -> torch.Tensor:
    """(1, 1, a, b, c): share of the gain around each patch that is lost when the result is moved by `PROBE_MM`.

    In the direction in which least is lost: there the images decide the place worst.
    """
    positions = agreement.displaced(displacement_voxel)
    gain, share = agreement.gain(positions)
    sigma = _AROUND_MM / agreement.patch_distance_mm
    least = torch.full_like(gain, torch.inf)
    for axis, sign in product(range(3), (-1, 1)):
        probe = torch.zeros(3, device=positions.device)
        probe[axis] = sign * PROBE_MM / voxel_mm
        lost = gain - agreement.gain(positions + probe)[0]
        least = torch.minimum(least, _blurred(lost * share, sigma))
    return least / _blurred(gain * share, sigma).clamp(min=1e-12)


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
