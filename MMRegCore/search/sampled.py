"""A similarity at scattered sample points, for any motion: what the search maximises and model selection compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from MMRegCore.ops import Lattice, PointSampler, avg_pool, identity_positions, sample
from MMRegCore.prepare import Prepared
from MMRegCore.search.settings import SearchSettings
from MMRegCore.similarity import patch_similarity
from MMRegCore.similarity.protocol import Comparison, Local, Similarity
from MMRegCore.volume import Channel

# More tell nothing that these do not: at 0.75 mm the field of view of an ultrasound of 170 ml.
_MOST_SAMPLES = 400_000


@dataclass(frozen=True, eq=False)
class SampledSimilarity:
    """The similarity of one fixed image and its moving images at one resolution.

    The fixed image is sampled at points that lie at random within the cells of a lattice.  On a regular grid an MR
    moved by half a voxel would always look better than one not moved, because interpolation smooths its noise: that
    alone pulls every optimum half a voxel along each axis away from the truth.

    Attributes
    ----------
    measure : Similarity
    fixed : Tensor, (N, C)
        The encoded fixed image at the sample points, which all lie in its field of view.
    points : Tensor, (N, 3)
        The sample points, in voxels (d, h, w) of the working grid.
    lattice : Lattice
        Their cells.
    origin : Tensor, (3,)
        Where the first cell's centre lies, voxels of the working grid.
    cell_voxel : float
        Distance of the cells, in the same.
    moving : PointSampler
        All encoded moving images, then their weights, averaged over ``stride``³ voxels of the working grid.
    channels : tuple of int
        Of each encoded moving image.
    stride : int
    patch_spacing_mm : float
        Distance of the places that have a value.
    unrelated : Tensor, ()
        Value of unrelated images.
    """

    measure: Similarity
    fixed: torch.Tensor
    points: torch.Tensor
    lattice: Lattice
    origin: torch.Tensor
    cell_voxel: float
    moving: PointSampler
    channels: tuple[int, ...]
    stride: int
    patch_spacing_mm: float
    unrelated: torch.Tensor

    @classmethod
    def of(cls, prepared: Prepared, measure: Similarity, spacing_mm: float) -> SampledSimilarity:
        """Sample a prepared pair within its field of view.

        Parameters
        ----------
        prepared : Prepared
        measure : Similarity
        spacing_mm : float
            Distance of the sample points, larger where the field of view would hold too many; images, or descriptors of
            them, are averaged to the next finer resolution.
        """
        voxel_mm = prepared.spacing_mm
        volume_mm3 = float((prepared.fixed.weight > 0).sum()) * voxel_mm**3
        spacing_mm = max(spacing_mm, (volume_mm3 / _MOST_SAMPLES) ** (1 / 3))
        stride = max(int(spacing_mm / voxel_mm + 1e-3), 1)
        step = max(spacing_mm / (stride * voxel_mm), 1.0)
        weight = avg_pool(prepared.fixed.weight, stride)
        weight = (weight > 0.5).float() if bool((weight > 0.5).any()) else (weight > 0).float()
        points, lattice, low = _scattered(weight, step)
        fixed = _encoded(measure.encode_fixed, prepared.fixed, stride, measure.fine)
        encoded = [_encoded(measure.encode_moving, channel, stride, measure.fine) for channel in prepared.moving]
        weights = [avg_pool(channel.weight, stride) for channel in prepared.moving]
        rows, moving = _as_rows(sample(fixed, _as_volume(points))), PointSampler(torch.cat([*encoded, *weights], dim=1))
        channels = tuple(image.shape[1] for image in encoded)
        half = (stride - 1) / 2
        return cls(
            measure,
            rows,
            points * stride + half,
            lattice,
            low * stride + half,
            step * stride,
            moving,
            channels,
            stride,
            measure.stride * step * stride * voxel_mm,
            _unrelated(measure, rows, moving(points).split((*channels, len(channels)), dim=1)),
        )

    def at(self, points: torch.Tensor) -> Local:
        """The similarity when the sample at ``self.points`` is compared with what the MR have at ``points``.

        Parameters
        ----------
        points : Tensor, (N, 3) or (N, K, 3)
            Voxels of the working grid; of K motions at once.

        Returns
        -------
        Local, (1, K, a, b, c)
            The support is the share of the field of view that a place stands for, so that the support of all places
            adds up to 1 where moving images cover all of it.  Values are relative to that of unrelated images, so that
            what none covers counts as unrelated.
        """
        places = (points.reshape(-1, 3) - (self.stride - 1) / 2) / self.stride
        values = self.moving(places).unflatten(0, (len(points), points.shape[1] if points.ndim == 3 else 1))
        *moving, weights = values.split((*self.channels, len(self.channels)), dim=2)
        weight = weights.prod(dim=2, keepdim=True) * self.moving.covers(places).reshape(*weights.shape[:2], 1)
        value, support = self._compare(moving, weight)
        return Local(value - self.unrelated, support / self._whole)

    def means(self, points: torch.Tensor) -> torch.Tensor:
        """(K,): the similarity averaged over the field of view, of points (N, K, 3)."""
        value, share = self.at(points)
        return (value * share).sum(dim=(0, 2, 3, 4))

    def mean(self, points: torch.Tensor) -> torch.Tensor:
        """Scalar: the same of points (N, 3)."""
        return self.means(points)[0]

    def displaced(self, displacement_voxel: torch.Tensor) -> torch.Tensor:
        """(N, 3): the sample points moved by a displacement (1, 3, D, H, W) of the working grid."""
        return self.points + _as_rows(sample(displacement_voxel, _as_volume(self.points)))

    def shares(self) -> torch.Tensor:
        """(1, 1, a, b, c): the support where moving images cover everything."""
        return self.measure.support(self.lattice.active[None, None].float()) / self._whole

    @property
    def place_voxel(self) -> float:
        """Distance of the places that have a value, voxels of the working grid; the first lies at the origin."""
        return self.measure.stride * self.cell_voxel

    def on_places(self, positions: torch.Tensor) -> torch.Tensor:
        """Where positions (1, 3, D, H, W), voxels of the working grid, lie among the places that have a value."""
        return (positions - self.origin.reshape(1, 3, 1, 1, 1)) / self.place_voxel

    @cached_property
    def _compare(self) -> Comparison:
        return self.measure.comparison(self.fixed, self.lattice)

    @cached_property
    def _whole(self) -> float:
        # Patches of a step apart, each counting its mean weight, add up to the field of view in samples over the step³.
        return max(len(self.points) / self.measure.stride**3, 1.0)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for a motion: several similarities, each with its weight."""

    parts: tuple[tuple[float, SampledSimilarity], ...]

    @property
    def samples(self) -> int:
        """Points that are looked at."""
        return max(sum(len(sampled.points) for _, sampled in self.parts), 1)


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

    def all(self, settings: SearchSettings) -> list[Evidence]:
        """The evidence at each level of a search, coarse to fine."""
        levels = list(zip(settings.sampling_spacing_mm, settings.half_width, strict=True))
        *coarser, finest = [Evidence(((1.0, self.at(settings.similarity, *level)),)) for level in levels]
        if settings.descriptor_weight == 0:
            return [*coarser, finest]
        described = [((settings.descriptor_weight, self.at(settings.descriptor, *level)),) for level in levels[:-1]]
        both = [Evidence(one.parts + other) for one, other in zip(coarser[1:], described[1:], strict=True)]
        return [*map(Evidence, described[:1]), *both, finest]


def _encoded(
    encode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], channel: Channel, stride: int, fine: bool
) -> torch.Tensor:
    """(1, C, d, h, w): an image as a measure encodes it, averaged over ``stride``³ voxels before or, if fine, after."""
    if fine:
        return avg_pool(encode(channel.image, channel.weight), stride)
    return encode(avg_pool(channel.image, stride), avg_pool(channel.weight, stride))


@torch.no_grad()
def _unrelated(measure: Similarity, fixed: torch.Tensor, moving: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scalar: what the measure gives for samples (N, C) of one place and of another."""
    if measure.unrelated is not None:
        return fixed.new_full((), measure.unrelated)
    *images, weights = moving
    weight = weights.prod(dim=1)
    total = weight.new_zeros(())
    for quarter in (1, 2, 3):
        elsewhere = _as_volume(fixed.roll(quarter * len(fixed) // 4, 0))
        value = measure.compare_all(elsewhere, [_as_volume(image) for image in images], _as_volume(weight[:, None]))
        total = total + value.mean() / 3
    return total


def _scattered(weight: torch.Tensor, step: float) -> tuple[torch.Tensor, Lattice, torch.Tensor]:
    """One point (N, 3) in every cell of ``step`` voxels, where it meets the weight; the cells; the first's centre."""
    index = weight[0, 0].nonzero()
    low, high = index.amin(dim=0), index.amax(dim=0)
    counts = [int(n / step) + 1 for n in (high - low).tolist()]
    # A stream of its own: the same points in every run, whatever the seed.
    jitter = torch.rand((1, *counts, 3), generator=torch.Generator().manual_seed(0)) - 0.5
    centres = low.reshape(1, 3, 1, 1, 1) + step * identity_positions(counts, weight.device)
    points = centres + step * jitter.flip(-1).permute(0, 4, 1, 2, 3).to(weight.device)
    lattice = Lattice(sample(weight, points, mode="nearest", padding_mode="zeros")[0, 0] > 0)
    return lattice.collect(points), lattice, low.float()


def _as_volume(points: torch.Tensor) -> torch.Tensor:
    """Positions (1, 3, N, 1, 1) of points (N, 3); the same with any number of channels."""
    return points.t()[None, :, :, None, None]


def _as_rows(values: torch.Tensor) -> torch.Tensor:
    """(N, C) of values (1, C, N, 1, 1)."""
    return values[0, :, :, 0, 0].t().contiguous()
