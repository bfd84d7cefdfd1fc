"""Small parts that several networks are made of.

Voxel i of a coarser level lies at 2i + ½ of the finer one, as the mean of a 2³ block does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_SLOPE = 0.2


def leaky_relu(volume: torch.Tensor) -> torch.Tensor:
    """LeakyReLU, as every network here has it."""
    return F.leaky_relu(volume, _SLOPE)


def replicate_pad(volume: torch.Tensor, padding: Sequence[int]) -> torch.Tensor:
    """Replicate padding, counted as `torch.nn.functional.pad` does, in the precision that comes in."""
    # On a CPU, autocast would turn all of it to float32 for this, only to turn it back.
    with torch.autocast(volume.device.type, enabled=False):
        return F.pad(volume, tuple(padding), mode="replicate")


def upsample2(volume: torch.Tensor) -> torch.Tensor:
    """Trilinear upsampling by two, in the precision that comes in: (B, C, d, h, w) to (B, C, 2d, 2h, 2w)."""
    with torch.autocast(volume.device.type, enabled=False):
        return F.interpolate(volume, scale_factor=2, mode="trilinear", align_corners=False)


def avg_pool2(volume: torch.Tensor) -> torch.Tensor:
    """Means of 2³ blocks, in the precision that comes in; sizes are even."""
    # Sums of halves: torch pools in float32 only, and slowly in the memory layout channels-last.
    for axis in (2, 3, 4):
        pairs = volume.unflatten(axis, (-1, 2))
        volume = pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)
    return volume / 8


def blur_pool(volume: torch.Tensor) -> torch.Tensor:
    """Blur by the binomial (1, 3, 3, 1) / 8 along each axis, then take every second value (Zhang 2019).

    (B, C, D, H, W) to (B, C, ⌈D/2⌉, ⌈H/2⌉, ⌈W/2⌉); replicate padding outside.
    """
    for axis in (2, 3, 4):
        padding = [0] * 6
        padding[2 * (4 - axis)], padding[2 * (4 - axis) + 1] = 1, 1 + volume.shape[axis] % 2
        padded = replicate_pad(volume, padding)
        count = padded.shape[axis] // 2 - 1
        # Slices: on a CPU, convolutions of one channel are slow.
        even, odd = padded.unflatten(axis, (-1, 2)).unbind(axis + 1)
        inner = even.narrow(axis, 1, count) + odd.narrow(axis, 0, count)
        outer = even.narrow(axis, 0, count) + odd.narrow(axis, 1, count)
        volume = (3 * inner + outer) / 8
    return volume


def pad_to_multiple(volume: torch.Tensor, multiple: int) -> torch.Tensor:
    """Replicate the far edges of (B, C, D, H, W) until every size is a multiple."""
    lack = [-n % multiple for n in volume.shape[2:]]
    if not any(lack):
        return volume
    return F.pad(volume, (0, lack[2], 0, lack[1], 0, lack[0]), mode="replicate")


def crop_to(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first ``shape`` voxels of a volume (B, C, D, H, W)."""
    return volume[..., : shape[0], : shape[1], : shape[2]]


def to_float32(volume: torch.Tensor) -> torch.Tensor:
    """The same in float32 at least: half precision would lose tenths of a voxel."""
    return volume if volume.dtype == torch.float64 else volume.float()


def affine_map(matrices: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Where affine maps about the middle of a grid take positions.

    Parameters
    ----------
    matrices : Tensor, (B, 3, 4)
        Linear part and translation on coordinates that are 0 in the middle of the grid and ±1 half its longest side
        away; components (d, h, w).
    positions : Tensor, (B, 3, D, H, W)
        Voxels (d, h, w) of a grid of that size.
    """
    shape = positions.shape[2:]
    middle = torch.tensor([(n - 1) / 2 for n in shape], dtype=positions.dtype, device=positions.device)
    middle = middle.reshape(1, 3, 1, 1, 1)
    centred = (positions - middle).expand(len(matrices), -1, -1, -1, -1)
    translation = max(shape) / 2 * matrices[..., 3].reshape(-1, 3, 1, 1, 1)
    return torch.einsum("bij,bjdhw->bidhw", matrices[..., :3], centred) + translation + middle


def init_small(convolution: nn.Conv3d, value: float = 0.0) -> None:
    """Initialise a convolution to almost the same value everywhere; to no motion, where it gives a displacement."""
    nn.init.normal_(convolution.weight, std=1e-3)
    if convolution.bias is not None:
        nn.init.constant_(convolution.bias, value)


class Conv(nn.Module):
    """A 3³ convolution with replicate padding, so that the border of an image is no structure of its own.

    From ``inputs`` to ``outputs`` channels; LeakyReLU follows where it is ``active``.
    """

    def __init__(self, inputs: int, outputs: int, *, active: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(inputs, outputs, 3)
        self._active = active
        # Keeps the variance from layer to layer (He et al. 2015).
        nn.init.kaiming_normal_(self.convolution.weight, a=_SLOPE)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """(B, inputs, D, H, W) to (B, outputs, D, H, W)."""
        out: torch.Tensor = self.convolution(replicate_pad(volume, (1,) * 6))
        # In place: nothing else holds what a convolution gave, and a volume of channels takes long to copy.
        return F.leaky_relu(out, _SLOPE, inplace=True) if self._active else out


def two_convs(inputs: int, outputs: int) -> nn.Sequential:
    """Two active 3³ convolutions."""
    return nn.Sequential(Conv(inputs, outputs), Conv(outputs, outputs))
