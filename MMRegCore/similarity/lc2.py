"""LC²: how much of an ultrasound image's local variance the MR explains (Wein et al. 2008, Fuerst et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from MMRegCore.ops import Lattice, Patches, box_mean, gradient_magnitude
from MMRegCore.ops.constants import constant
from MMRegCore.ops.gradient import Backward, with_gradient
from MMRegCore.similarity.protocol import Comparison, Local, Similarity

# Patches with less of their volume inside are not fitted: too few voxels for so many regressors.
_LEAST_SUPPORT = 0.3
# Variance, relative to that of the whole image, below which a patch counts as flat.
_RIDGE = 1e-2
_LARGEST_FRACTION = 0.999


class Lc2(Similarity):
    """In each patch the ultrasound is fitted by a constant, the MR's intensity and its gradient magnitude.

    With s the fraction of the patch's variance that is explained, the value is ``-log(1 - s)``: twice the logarithm of
    the likelihood ratio, per voxel, of 'explained by the MR' to 'unexplained'.  Several MR enter one fit.

    Parameters
    ----------
    half_width : int
        Of the patches, in samples.
    stride : int
        Distance of their centres; patches overlap, so that more of them would hardly tell more.
    """

    joint = True

    def __init__(self, half_width: int = 4, stride: int = 2) -> None:
        self.half_width, self.stride = half_width, stride

    def encode_fixed(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The ultrasound, standardised."""
        return standardise(image, weight)

    def encode_moving(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, 2, D, H, W): intensity and gradient magnitude, each standardised."""
        return torch.cat([standardise(image, weight), standardise(gradient_magnitude(image), weight)], dim=1)

    def compare(self, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> Local:
        """Log-likelihood ratio of each patch."""
        fraction, support = explained_variance(fixed, moving, weight, half_width=self.half_width, stride=self.stride)
        return Local(-torch.log1p(-fraction), support * (support > _LEAST_SUPPORT))

    def support(self, weight: torch.Tensor) -> torch.Tensor:
        """The mean weight of each patch, where it suffices."""
        support = box_mean(weight, self.half_width, stride=self.stride)
        return support * (support > _LEAST_SUPPORT)

    def comparison(self, fixed: torch.Tensor, lattice: Lattice) -> Comparison:
        """The same for scattered samples, only in the patches that count."""
        patches = Patches.of(lattice, self.half_width, self.stride, _LEAST_SUPPORT)

        def compare(moving: Sequence[torch.Tensor], weight: torch.Tensor) -> Local:
            samples, motions = weight.shape[:2]
            there = fixed[:, None].expand(-1, motions, -1)
            channels = torch.cat([torch.ones_like(there), there, *moving], dim=2).flatten(0, 1).t().contiguous()
            products = with_gradient(_products, channels, weight.flatten())
            # The motions of a sample lie side by side: they share its patches.
            means = patches.mean(products.reshape(samples, motions * products.shape[1]))
            moments = means.reshape(len(means) * motions, products.shape[1]).t().contiguous()
            fraction, support = with_gradient(_explained, moments), moments[0]
            values = torch.stack([-torch.log1p(-fraction), support * (support > _LEAST_SUPPORT)])
            value, counted = (patches.spread(part.reshape(len(means), motions)) for part in values)
            return Local(value, counted)

        return compare


def standardise(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) with zero mean and unit variance over a weight (B, 1, D, H, W); zero where it is constant."""
    everywhere = (2, 3, 4)
    share = weight / weight.sum(dim=everywhere, keepdim=True).clamp(min=1e-12)
    centred = images - (images * share).sum(dim=everywhere, keepdim=True)
    variance = (centred.square() * share).sum(dim=everywhere, keepdim=True)
    return centred / variance.clamp(min=1e-12).sqrt()


def explained_variance(
    fixed: torch.Tensor, regressors: torch.Tensor, weight: torch.Tensor, *, half_width: int, stride: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fraction of each patch's variance that a linear combination of regressors and a constant explains.

    Parameters
    ----------
    fixed : Tensor, (B, 1, D, H, W)
    regressors : Tensor, (B, K, D, H, W)
        Of about unit variance, so that the ridge means something.
    weight : Tensor, (B, 1, D, H, W)
        In [0, 1].
    half_width, stride : int
        Of the patches, and distance of their centres, in voxels.

    Returns
    -------
    fraction, support : Tensor, (B, 1, d, h, w)
        Fraction in [0, 1), and the patch's mean weight; zeros count outside the image.
    """
    channels = torch.cat([torch.ones_like(fixed), fixed, regressors], dim=1)
    weighted = channels * weight
    rows = [
        box_mean(weighted[:, i : i + 1] * channels[:, i:], half_width, stride=stride) for i in range(channels.shape[1])
    ]
    moments = torch.cat(rows, dim=1).transpose(0, 1)
    return with_gradient(_explained, moments)[:, None], moments[0][:, None]


def _products(channels: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """``w c_i c_j``, i ≤ j, of channels (n, N) and weights (N,), row by row of the matrix: (N, n (n + 1) / 2).

    Sums over patches want a sample's products side by side, arithmetic wants a channel's samples.
    """
    pairs, weighted = _pairs(len(channels)), channels * weight
    products = channels.new_empty(channels.shape[1], len(pairs))
    for column, (i, j) in enumerate(pairs):
        torch.mul(weighted[i], channels[j], out=products[:, column])

    def gradient_of(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Of ½ cᵀMc with the symmetric matrix M of the gradient: Mc; Euler's theorem gives cᵀMc / 2 for the weight.
        worth = torch.zeros_like(channels)
        for row, (i, j) in zip(gradient.t().contiguous(), pairs, strict=True):
            worth[i].addcmul_(row, channels[j])
            worth[j].addcmul_(row, channels[i])
        return worth * weight, (worth * channels).sum(dim=0) / 2

    return products, gradient_of


@dataclass(frozen=True, eq=False)
class _Fit:
    """The least-squares fit of each patch: coefficients of the regressors, means, variance, what it explains."""

    coefficients: list[torch.Tensor]
    means: list[torch.Tensor]
    variance: torch.Tensor
    explained: torch.Tensor

    @property
    def fraction(self) -> torch.Tensor:
        return (self.explained / (self.variance + _RIDGE)).clamp(0, _LARGEST_FRACTION)

    @classmethod
    def of(cls, moments: torch.Tensor) -> _Fit:
        """From the patches' means of all products of two channels (pairs, ...): 1, the fixed image, the regressors."""
        count = (math.isqrt(8 * len(moments) + 1) - 1) // 2
        place = {pair: number for number, pair in enumerate(_pairs(count))}
        mean = moments / moments[0].clamp(min=1e-6)
        covariance = {
            (i, j): torch.addcmul(mean[place[i, j]], mean[place[0, i]], mean[place[0, j]], value=-1)
            for i in range(1, count)
            for j in range(i, count)
        }
        variance = covariance[1, 1].clamp(min=0)
        explained = torch.zeros_like(variance)
        # Elimination, one regressor after the other: what each explains of what those before it left.
        factors, coefficients = {}, {}
        for k in range(2, count):
            pivot = covariance[k, k].clamp(min=0) + _RIDGE
            coefficients[k] = covariance[1, k] / pivot
            explained = torch.addcmul(explained, covariance[1, k], coefficients[k])
            for j in range(k + 1, count):
                factors[k, j] = covariance[k, j] / pivot
                for m in (1, *range(j, count)):
                    left = covariance[min(m, k), max(m, k)]
                    pair = min(m, j), max(m, j)
                    covariance[pair] = torch.addcmul(covariance[pair], factors[k, j], left, value=-1)
        for k, j in reversed(factors):
            coefficients[k] = torch.addcmul(coefficients[k], factors[k, j], coefficients[j], value=-1)
        means = [mean[place[0, i]] for i in range(1, count)]
        return cls(list(coefficients.values()), means, variance, explained)


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i, count)]


def _explained(moments: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """(...): the fraction of each patch's variance that is explained, from its moments (pairs, ...).

    What the fit leaves of a voxel is ``e = γᵀc``, with γ = (βᵀr̄ − ū, 1, −β); ``d = νᵀc``, with ν = (−ū, 1, 0), is the
    fixed image about its mean.  At the optimum β does not count (envelope theorem), so that the fraction f of the
    variance v changes with a voxel's weight by ``((1 − f) d² − e² − a) / (w (v + ridge))``: quadratic in the channels,
    so linear in the moments.  w is the support, and a what makes the fraction independent of its scale.
    """
    fit, support = _Fit.of(moments), moments[0]
    fraction, beta = fit.fraction, fit.coefficients

    def gradient_of(gradient: torch.Tensor) -> tuple[torch.Tensor]:
        mean, *regressor_means = fit.means
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        offset = sum((b * m for b, m in zip(beta, regressor_means, strict=True)), -mean)
        left = torch.stack([offset, one, *(-b for b in beta)])
        about = torch.stack([-mean, one, *(zero for _ in beta)])
        first, second = constant(tuple(_pairs(len(left))), mean.device, torch.int64).t()
        scale = gradient * (fraction < _LARGEST_FRACTION) / ((fit.variance + _RIDGE) * support.clamp(min=1e-6))
        # A product of two channels stands for two entries of the symmetric matrix.
        times = torch.where(first == second, 1, 2).reshape(-1, *[1] * mean.ndim)
        worth = times * ((1 - fraction) * about[first] * about[second] - left[first] * left[second])
        energy = sum((b.square() for b in beta), zero)
        worth[0] -= fit.explained + _RIDGE * energy - fraction * fit.variance
        return (worth * scale,)

    return fraction, gradient_of


MEASURE = Lc2
