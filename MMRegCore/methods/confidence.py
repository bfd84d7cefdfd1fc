"""Expected error of a registration at every voxel, from how sharply the images tell the result from its neighbours."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

from MMRegCore.optimisation.agreement import Agreement
from MMRegCore.preprocess import Prepared
from MMRegCore.warp import sample, voxel_coordinates

# The result is moved by this much along each axis; agreement that does not fall cannot have decided the place.
PROBE_MM = 2.0
# A voxel's error is decided by what lies around it as far as the deformation is alike.
_AROUND_MM = 8.0
# log(expected error in mm) = _OFFSET + _SLOPE · log(fall of the agreement + _FLOOR): least squares on simulated cases
# of brains that no benchmark uses, see docs/methods.md.
_OFFSET, _SLOPE, _FLOOR = -1.0, -0.6, 0.01
_SMALLEST_MM, _LARGEST_MM = 0.3, 20.0


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
    fall = agreement_fall(agreement, displacement_voxel, float(prepared.grid.spacing_mm.mean()))
    error = torch.exp(_OFFSET + _SLOPE * torch.log(fall.clamp(min=0) + _FLOOR)).clamp(_SMALLEST_MM, _LARGEST_MM)
    centres = agreement.patch_centres()
    first, last = centres[0, 0, 0, 0], centres[0, -1, -1, -1]
    counts = torch.tensor(centres.shape[1:4], device=first.device).flip(0)
    lattice = voxel_coordinates(tuple(prepared.fixed.shape[2:]), first.device)
    return sample(error, (lattice - first) / ((last - first) / (counts - 1).clamp(min=1)).clamp(min=1e-6))


def agreement_fall(agreement: Agreement, displacement_voxel: torch.Tensor, voxel_mm: float) -> torch.Tensor:
    """(1, 1, a, b, c): mean fall of the gain around each patch when the result is moved by `PROBE_MM`."""
    positions = agreement.displaced(displacement_voxel)
    gain, share = agreement.gain(positions)
    fall = torch.zeros_like(gain)
    for axis, sign in product(range(3), (-1, 1)):
        probe = torch.zeros(3, device=positions.device)
        probe[axis] = sign * PROBE_MM / voxel_mm
        fall += (gain - agreement.gain(positions + probe)[0]) / 6
    sigma = _AROUND_MM / agreement.patch_distance_mm
    return _blurred(fall * share, sigma) / _blurred(share, sigma).clamp(min=1e-12)


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
