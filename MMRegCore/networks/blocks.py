"""Small parts that several networks are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_SLOPE = 0.2


def leaky(volume: torch.Tensor) -> torch.Tensor:
    """LeakyReLU, as every network here has it."""
    return F.leaky_relu(volume, _SLOPE)


def carried_on(volume: torch.Tensor, padding: Sequence[int]) -> torch.Tensor:
    """The edge of a volume carried on outside, as `torch.nn.functional.pad` counts."""
    # On a CPU, autocast would turn all of it to float32 for this, only to turn it back.
    with torch.autocast(volume.device.type, enabled=False):
        return F.pad(volume, tuple(padding), mode="replicate")


def doubled(volume: torch.Tensor) -> torch.Tensor:
    """Trilinear upsampling by two, in the precision that comes in: (B, C, d, h, w) to (B, C, 2d, 2h, 2w)."""
    with torch.autocast(volume.device.type, enabled=False):
        return F.interpolate(volume, scale_factor=2, mode="trilinear", align_corners=False)


class Conv(nn.Module):
    """A 3³ convolution that carries the edge on outside, so that the border of an image is no structure of its own.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    stride : int
        In voxels.
    active : bool
        Whether LeakyReLU follows.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, active: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(inputs, outputs, 3, stride=stride)
        self._active = active
        # As wide as what comes in, layer after layer (He et al. 2015).
        nn.init.kaiming_normal_(self.convolution.weight, a=_SLOPE)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """(B, inputs, D, H, W) to (B, outputs, ⌈D / stride⌉, …)."""
        out: torch.Tensor = self.convolution(carried_on(volume, (1,) * 6))
        # In place: nothing else holds what a convolution gave, and a volume of channels is long to copy.
        return F.leaky_relu(out, _SLOPE, inplace=True) if self._active else out


def two_convs(inputs: int, outputs: int) -> nn.Sequential:
    """Two active 3³ convolutions."""
    return nn.Sequential(Conv(inputs, outputs), Conv(outputs, outputs))


def blur_pool(volume: torch.Tensor) -> torch.Tensor:
    """Blur by the binomial (1, 3, 3, 1) / 8 along each axis, then take every second value (Zhang 2019).

    Parameters
    ----------
    volume : Tensor, (B, C, D, H, W)

    Returns
    -------
    Tensor, (B, C, ⌈D/2⌉, ⌈H/2⌉, ⌈W/2⌉)
        Voxel i lies at 2i + ½ of the input, where `upsampled` puts it back; the edge is carried on outside.
    """
    for axis in (2, 3, 4):
        padding = [0] * 6
        padding[2 * (4 - axis)], padding[2 * (4 - axis) + 1] = 1, 1 + volume.shape[axis] % 2
        padded = carried_on(volume, padding)
        count = padded.shape[axis] // 2 - 1
        # Slices: on a CPU, convolutions of one channel are slow.
        even, odd = padded.unflatten(axis, (-1, 2)).unbind(axis + 1)
        inner = even.narrow(axis, 1, count) + odd.narrow(axis, 0, count)
        outer = even.narrow(axis, 0, count) + odd.narrow(axis, 1, count)
        volume = (3 * inner + outer) / 8
    return volume


def upsampled(volume: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Trilinear upsampling by two: (B, C, d, h, w) to (B, C, D, H, W), each at most twice as long."""
    return doubled(volume)[..., : shape[0], : shape[1], : shape[2]]
