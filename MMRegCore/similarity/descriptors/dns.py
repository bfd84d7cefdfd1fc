"""DNS: deep neighbourhood self-similarity, descriptors of a whole volume by MASR-Net (Mok et al. 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network
from MMRegCore.ops import Tile, tiles
from MMRegCore.segmentation.field_of_view import replicate_edge
from MMRegCore.similarity.protocol import Descriptor

# Tiles are cubes of at most this size without their margins: 256³ is described within 6 GB.
TILE_VOXEL = 96


class Dns(Descriptor):
    """Descriptors of MASR-Net, compared by the cosine of their angle.

    Parameters
    ----------
    weights : str
        Name or file; see `load_network`.

    Attributes
    ----------
    network : MasrNet
    """

    best = 1.0
    differentiable = False
    unit = True

    def __init__(self, weights: str = "masrnet") -> None:
        self.network = load_network(weights, MasrNet)

    def encode_moving(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, 24, D, H, W): unit vectors; the image's edge is replicated where the weight is zero."""
        network = self.network.to(image.device)
        masks = [w[0] > 0 for w in weight]
        return torch.cat(
            [dns(one, network, mask=m if bool(m.any()) else None) for one, m in zip(image.split(1), masks, strict=True)]
        )


@torch.no_grad()
def dns(
    image: torch.Tensor, network: MasrNet, *, mask: torch.Tensor | None = None, tile_voxel: int = TILE_VOXEL
) -> torch.Tensor:
    """Describe every voxel by MASR-Net (Mok et al. 2024), in unit vectors.

    What needs the whole image, the features at half resolution and coarser, is computed for the whole image; what is
    large, at full resolution, in overlapping tiles, with margins as wide as the network looks: tiles leave no trace.

    Parameters
    ----------
    image : Tensor, (1, 1, D, H, W)
        Intensities; any linear change of them leaves the descriptors as they are.
    network : MasrNet
        On the device of ``image``.
    mask : Tensor, (D, H, W), bool, optional
        Foreground; the image's edge is replicated outside.
    tile_voxel : int
        Size of the tiles, even; smaller ones take less memory and more time.

    Returns
    -------
    Tensor, (1, 24, D, H, W), float32
        Of length 1 at every voxel, so that the dot product of two is their cosine similarity.
    """
    if mask is not None:
        image = replicate_edge(image[0, 0], mask)[None, None]
    image = unit_range(image)
    # Even places, where a voxel of half resolution begins.
    counts = [-(-size // tile_voxel) for size in image.shape[2:]]
    parts = tiles(image.shape[2:], counts, network.reach, multiple=2)
    coarse = network.coarse(_pooled(image, network, parts))
    descriptors = image.new_empty((1, network.settings.descriptor, *image.shape[2:]))
    for part in parts:
        described = network.describe(image[_all(part.around)], coarse[_all(_halved(part.around))])
        descriptors[_all(part.core)] = F.normalize(described[_all(part.inner)], dim=1)
    return descriptors


def _pooled(image: torch.Tensor, network: MasrNet, parts: list[Tile]) -> torch.Tensor:
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


MEASURE = Dns
