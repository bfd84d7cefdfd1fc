"""One picture from two registered images, for viewing: a weighted mean, or the stronger detail of both."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.networks.intensity import unit_range
from MMRegCore.volume import Volume

BlendMethod = Literal["weighted", "wavelet"]
# The cubic B-spline by which the à-trous transform smooths.
_B3 = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_LEVELS = 4


def blend(
    first: Volume, second: Volume, *, method: BlendMethod = "wavelet", weight: float = 0.5, levels: int = _LEVELS
) -> Volume:
    """Fuse two images of one grid, each scaled to [0, 1] by its robust range first: (1, D, H, W) in [0, 1].

    'weighted' is ``weight · first + (1 - weight) · second``, with a weight from 0 to 1.  'wavelet' splits both by the
    undecimated wavelet transform of some ``levels`` with cubic B-splines (à trous; Starck and Murtagh), takes at every
    voxel and level the larger coefficient, and the weighted mean of what is left: shifting the images shifts the
    result.

    Raises
    ------
    GeometryError
        When the grids differ.
    InputError
        When the method, the weight or the number of levels cannot be used.
    """
    if not first.grid.matches(second.grid):
        raise GeometryError(
            f"expected '{first.name}' and '{second.name}' on one grid; resample one of them, or give a transform"
        )
    if not 0 <= weight <= 1:
        raise InputError(f"expected a weight from 0 to 1; got {weight:g}")
    if levels < 1:
        raise InputError(f"expected at least one level; got {levels}")
    one, two = (unit_range(torch.nan_to_num(v.data))[None] for v in (first, second))
    if method == "weighted":
        data = weight * one + (1 - weight) * two
    elif method == "wavelet":
        data = _stronger_detail(one, two, weight, levels)
    else:
        raise InputError(f"expected the method to be weighted or wavelet; got '{method}'")
    return Volume(data[0].clamp(0, 1), first.grid, name=f"{first.name}+{second.name}")


def starlet(image: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Undecimated wavelet transform of (1, 1, D, H, W): ``levels`` details, fine to coarse, and the rest; adds up."""
    parts = []
    for level in range(levels):
        smooth = _smoothed(image, 2**level)
        parts.append(image - smooth)
        image = smooth
    return [*parts, image]


def _stronger_detail(one: torch.Tensor, two: torch.Tensor, weight: float, levels: int) -> torch.Tensor:
    pairs = list(zip(starlet(one, levels), starlet(two, levels), strict=True))
    total = weight * pairs[-1][0] + (1 - weight) * pairs[-1][1]
    for a, b in pairs[:-1]:
        total = total + torch.where(a.abs() >= b.abs(), a, b)
    return total


def _smoothed(image: torch.Tensor, step: int) -> torch.Tensor:
    """Convolve with the B-spline with holes of ``step`` voxels, replicate padding outside."""
    kernel = torch.tensor(_B3, dtype=image.dtype, device=image.device)
    for axis in (2, 3, 4):
        shape, padding, dilation = [1] * 5, [0] * 6, [1, 1, 1]
        shape[axis] = len(_B3)
        padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = 2 * step
        dilation[axis - 2] = step
        image = F.conv3d(F.pad(image, padding, mode="replicate"), kernel.reshape(shape), dilation=dilation)
    return image
