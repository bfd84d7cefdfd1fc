"""A similarity at scattered sample points, for any motion: what the search maximises and model selection compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from MMRegCore.ops import avg_pool, identity_positions, inside, sample
from MMRegCore.prepare import Prepared
from MMRegCore.similarity import patch_similarity
from MMRegCore.similarity.protocol import Local, Similarity


@dataclass(frozen=True, eq=False)
class SampledSimilarity:
    """The similarity of one fixed image and its moving images at one resolution.

    The fixed image is sampled at points that lie at random within their cells.  On a regular grid an MR moved by
    half a voxel would always look better than one not moved, because interpolation smooths its noise: that alone pulls
    every optimum half a voxel along each axis away from the truth.

    Attributes
    ----------
    measure : Similarity
    fixed : Tensor, (1, C, d, h, w)
        The encoded fixed image at the sample points.
    weight : Tensor, (1, 1, d, h, w)
        Where it counts.
    positions : Tensor, (1, 3, d, h, w)
        The sample points, in voxels of the working grid.
    moving : tuple of Tensor, (1, C + 1, D', H', W')
        Each encoded moving image and its weight, averaged over ``stride``³ voxels of the working grid.
    stride : int
    patch_spacing_mm : float
        Distance of the places that have a value.
    """

    measure: Similarity
    fixed: torch.Tensor
    weight: torch.Tensor
    positions: torch.Tensor
    moving: tuple[torch.Tensor, ...]
    stride: int
    patch_spacing_mm: float

    @classmethod
    def of(cls, prepared: Prepared, measure: Similarity, spacing_mm: float) -> SampledSimilarity:
        """Sample a prepared pair within its field of view.

        Parameters
        ----------
        prepared : Prepared
        measure : Similarity
        spacing_mm : float
            Distance of the sample points; images are pooled to the next finer resolution.
        """
        voxel_mm = prepared.spacing_mm
        stride = max(int(spacing_mm / voxel_mm + 1e-3), 1)
        step = max(spacing_mm / (stride * voxel_mm), 1.0)
        image, weight = avg_pool(prepared.fixed.image, stride), avg_pool(prepared.fixed.weight, stride)
        weight = (weight > 0.5).float() if bool((weight > 0.5).any()) else (weight > 0).float()
        index = weight[0, 0].nonzero()
        low, high = index.amin(dim=0), index.amax(dim=0)
        counts = [int(n / step) + 1 for n in (high - low).tolist()]
        # A stream of its own: the same points in every run, whatever the seed.
        jitter = torch.rand((1, *counts, 3), generator=torch.Generator().manual_seed(0)) - 0.5
        centres = low.reshape(1, 3, 1, 1, 1) + step * identity_positions(counts, image.device)
        points = centres + step * jitter.flip(-1).permute(0, 4, 1, 2, 3).to(image.device)
        moving = []
        for channel in prepared.moving:
            coarse, part = avg_pool(channel.image, stride), avg_pool(channel.weight, stride)
            moving.append(torch.cat([measure.encode_moving(coarse, part), part], dim=1))
        return cls(
            measure,
            sample(measure.encode_fixed(image, weight), points),
            sample(weight, points, mode="nearest", padding_mode="zeros"),
            points * stride + (stride - 1) / 2,
            tuple(moving),
            stride,
            measure.stride * step * stride * voxel_mm,
        )

    def at(self, positions: torch.Tensor) -> Local:
        """The similarity when the sample at ``self.positions`` is compared with what the MR have at ``positions``.

        Parameters
        ----------
        positions : Tensor, (1, 3, d, h, w)
            Voxels of the working grid.

        Returns
        -------
        Local, (1, 1, a, b, c)
            The support is the share of the field of view that a place stands for, so that the support of all places
            adds up to 1 where moving images cover all of it.  Values are relative to that of unrelated images, so that
            what none covers counts as unrelated.
        """
        places = (positions - (self.stride - 1) / 2) / self.stride
        encoded, weight = [], self.weight
        for volume in self.moving:
            values = sample(volume, places)
            encoded.append(values[:, :-1])
            weight = weight * values[:, -1:] * inside(places, volume.shape[2:])
        value, support = self.measure.compare_all(self.fixed, encoded, weight)
        return Local(value - self.measure.unrelated, support / self._whole)

    def mean(self, positions: torch.Tensor) -> torch.Tensor:
        """Scalar: the similarity averaged over the field of view."""
        value, share = self.at(positions)
        return (value * share).sum()

    def displaced(self, displacement_voxel: torch.Tensor) -> torch.Tensor:
        """(1, 3, d, h, w): the sample points moved by a displacement (1, 3, D, H, W) of the working grid."""
        return self.positions + sample(displacement_voxel, self.positions)

    def shares(self) -> torch.Tensor:
        """(1, 1, a, b, c): the support where moving images cover everything."""
        return self.measure.support(self.weight) / self._whole

    def places(self) -> torch.Tensor:
        """(1, 3, a, b, c): where the places lie that have a value, voxels of the working grid, but for the jitter."""
        step = self.measure.stride
        return self.positions[..., ::step, ::step, ::step]

    @cached_property
    def _whole(self) -> float:
        # Patches of a step apart, each counting its mean weight, add up to the field of view in samples over the step³.
        return max(float(self.weight.sum()) / self.measure.stride**3, 1.0)


class Levels:
    """The sampled similarities of one prepared pair, each made once for all who ask."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self._made: dict[tuple[str, float, int], SampledSimilarity] = {}

    def at(self, similarity: str, spacing_mm: float, half_width: int) -> SampledSimilarity:
        """The similarity of that name, at that sampling spacing, in patches of that half-width."""
        key = (similarity, spacing_mm, half_width)
        if key not in self._made:
            measure = patch_similarity(similarity, half_width)
            self._made[key] = SampledSimilarity.of(self.prepared, measure, spacing_mm)
        return self._made[key]

    def all(self, similarity: str, spacing_mm: Sequence[float], half_width: Sequence[int]) -> list[SampledSimilarity]:
        """Several levels, coarse to fine."""
        return [self.at(similarity, *level) for level in zip(spacing_mm, half_width, strict=True)]
