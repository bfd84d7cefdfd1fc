"""DNS: descriptors of a whole volume by MASR-Net, a part at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F

from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.preprocess import replicate_edge

# Parts are cubes of at most this size without their margins: 256³ is described within 6 GB.
PART_VOXEL = 96


@torch.no_grad()
def dns(
    image: torch.Tensor, network: MasrNet, *, mask: torch.Tensor | None = None, part_voxel: int = PART_VOXEL
) -> torch.Tensor:
    """Describe every voxel by MASR-Net (Mok et al. 2024), in unit vectors.

    What needs the whole image, the features at half resolution and coarser, is computed for the whole image; what is
    large, at full resolution, in parts that look beyond their borders as far as the network does.  So the parts leave
    no trace in the result.

    Parameters
    ----------
    image : Tensor, (1, 1, D, H, W)
        Intensities; any linear change of them leaves the descriptors as they are.
    network : MasrNet
        On the device of ``image``.
    mask : Tensor, (D, H, W), bool, optional
        Where there is an image; its edge is carried on outside.
    part_voxel : int
        Size of the parts, even; smaller ones take less memory and more time.

    Returns
    -------
    Tensor, (1, 24, D, H, W), float32
        Of length 1 at every voxel, so that the dot product of two is their cosine similarity.
    """
    if mask is not None:
        image = replicate_edge(image[0, 0], mask)[None, None]
    image = unit_range(image)
    parts = _parts(tuple(image.shape[2:]), part_voxel, network.reach)
    coarse = network.coarse(_pooled(image, network, parts))
    descriptors = image.new_empty((1, network.settings.descriptor, *image.shape[2:]))
    for part in parts:
        described = network.describe(image[_all(part.around)], coarse[_all(_halved(part.around))])
        descriptors[_all(part.core)] = F.normalize(described[_all(part.inner)], dim=1)
    return descriptors


@dataclass(frozen=True)
class _Part:
    """What a part gives (``core``), what it looks at (``around``), and where the one is in the other.

    All begin at even places, where a voxel of half resolution begins.
    """

    core: tuple[slice, ...]
    around: tuple[slice, ...]
    inner: tuple[slice, ...]


def _parts(shape: tuple[int, ...], most: int, reach: int) -> list[_Part]:
    """Cut a grid into parts of about equal size that see ``reach`` around them."""
    cores = product(*(_cuts(size, most) for size in shape))
    return [_part(core, shape, reach) for core in cores]


def _cuts(size: int, most: int) -> list[slice]:
    count = -(-size // most)
    length = -(-size // (2 * count)) * 2
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def _part(core: tuple[slice, ...], shape: tuple[int, ...], reach: int) -> _Part:
    around = tuple(slice(max(c.start - reach, 0), min(c.stop + reach, n)) for c, n in zip(core, shape, strict=True))
    inner = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(core, around, strict=True))
    return _Part(core, around, inner)


def _pooled(image: torch.Tensor, network: MasrNet, parts: list[_Part]) -> torch.Tensor:
    """`MasrNet.pooled` of the whole image."""
    shape = tuple(-(-n // 2) for n in image.shape[2:])
    whole = image.new_empty((1, network.settings.channels[0], *shape))
    for part in parts:
        whole[_all(_halved(part.core))] = network.pooled(image[_all(part.around)])[_all(_halved(part.inner))]
    return whole


def _halved(place: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(slice(s.start // 2, -(-s.stop // 2)) for s in place)


def _all(place: tuple[slice, ...]) -> tuple[slice, ...]:
    """The same place in every channel."""
    return (slice(None), slice(None), *place)
