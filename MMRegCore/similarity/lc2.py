"""LC²: how much of an ultrasound image's local variance the MR explains (Wein et al. 2008, Fuerst et al. 2014)."""

from __future__ import annotations

import torch

from MMRegCore.ops import box_mean, gradient_magnitude
from MMRegCore.similarity.protocol import Local, Similarity

# Patches with less of their volume inside are not fitted: too few voxels for so many regressors.
_LEAST_SUPPORT = 0.3
# Variance, relative to that of the whole image, below which a patch counts as flat.
_RIDGE = 1e-2


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
    count = channels.shape[1]
    # All products of two channels, row by row: the first row holds the support and the means.
    rows = [box_mean(weighted[:, i : i + 1] * channels[:, i:], half_width, stride=stride) for i in range(count)]
    support = rows[0][:, :1]
    mean = [row.split(1, dim=1) for row in [row / support.clamp(min=1e-6) for row in rows]]
    covariance = {(i, j): mean[i][j - i] - mean[0][i] * mean[0][j] for i in range(1, count) for j in range(i, count)}
    variance = covariance[1, 1].clamp(min=0)
    explained = torch.zeros_like(variance)
    # Elimination, one regressor after the other: what each explains of what those before it left.
    for k in range(2, count):
        pivot = covariance[k, k].clamp(min=0) + _RIDGE
        explained = explained + covariance[1, k].square() / pivot
        for j in range(k + 1, count):
            factor = covariance[k, j] / pivot
            covariance[1, j] = covariance[1, j] - factor * covariance[1, k]
            for m in range(j, count):
                covariance[j, m] = covariance[j, m] - factor * covariance[k, m]
    return (explained / (variance + _RIDGE)).clamp(0, 0.999), support


MEASURE = Lc2
