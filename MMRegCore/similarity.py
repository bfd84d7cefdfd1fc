"""How alike two images are inside a mask; every term has the signature ``(fixed, moving, mask)``.

Label maps are compared by `dice`, in evaluation and in the validation of a training alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from MMRegCore.errors import GeometryError, InputError

# Values beyond these quantiles share the outermost bins: a few hot voxels must not empty all the others.
_TAIL = 0.005


def mind_distance(fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of MIND-SSC descriptors over a mask (Heinrich et al. 2013); 0 is perfect agreement.

    Parameters
    ----------
    fixed, moving : Tensor, (B, C, D, H, W)
        Descriptors in [0, 1] on one grid.
    mask : Tensor, (B, 1, D, H, W), bool
        Where to compare.

    Returns
    -------
    Tensor, (), differentiable in both descriptors.

    Raises
    ------
    InputError
        When sizes differ or the mask is empty.
    """
    _check(fixed, moving, mask)
    squared = (fixed - moving).square().mean(dim=1, keepdim=True)
    return squared[mask].mean()


def normalised_mutual_information(
    fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor, *, bins: int = 32
) -> torch.Tensor:
    """``(H(A) + H(B)) / H(A, B)`` over a mask (Studholme et al. 1999): 1 is independent, 2 is one-to-one.

    Counted in a hard joint histogram with equal bins between the 0.5 % and 99.5 % quantiles; not differentiable.
    A constant image tells nothing about the other one: 1.

    Parameters
    ----------
    fixed, moving : Tensor, (B, 1, D, H, W)
        Intensities on one grid.
    mask : Tensor, (B, 1, D, H, W), bool
        Where to compare.
    bins : int
        Per image.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    InputError
        When sizes differ or the mask is empty.
    """
    _check(fixed, moving, mask)
    pair = _binned(fixed[mask], bins) * bins + _binned(moving[mask], bins)
    joint = torch.bincount(pair, minlength=bins * bins).double().reshape(bins, bins)
    joint = joint / joint.sum()
    together = _entropy(joint)
    if float(together) <= 0:
        return torch.ones_like(together)
    return (_entropy(joint.sum(dim=1)) + _entropy(joint.sum(dim=0))) / together


def lc2(
    fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor, *, radius: int = 4, stride: int = 1
) -> torch.Tensor:
    """LC² (Wein et al. 2008, Fuerst et al. 2014): the share of an ultrasound's variance that the MR explains.

    In each patch the ultrasound is fitted by a linear combination of a constant, the MR's intensity and its gradient
    magnitude (each of them of every MR); the explained shares are averaged with the patch's standard deviation for
    weight: 0 is nothing, 1 is everything.

    Parameters
    ----------
    fixed : Tensor, (B, 1, D, H, W)
        Ultrasound.
    moving : Tensor, (B, K, D, H, W)
        What may explain it; see `lc2_regressors`.
    mask : Tensor, (B, 1, D, H, W), bool
        Where to compare.
    radius : int
        Half-width of the patch in voxels.
    stride : int
        Distance of the patches' centres in voxels.

    Returns
    -------
    Tensor, (), differentiable in both images.

    Raises
    ------
    InputError
        When sizes differ or the mask is empty.
    """
    _check(fixed, moving[:, :1], mask)
    where = mask.to(fixed.dtype)
    share, variance, support = explained_share(
        standardised(fixed, where), standardised(moving, where), where, radius=radius, stride=stride
    )
    # The root of nothing has no slope.
    weight = (variance + 1e-12 * (1 + variance.detach().amax())).sqrt() * support
    return (share * weight).sum() / weight.sum()


def lc2_regressors(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, 2, D, H, W): intensity and gradient magnitude of an MR (B, 1, D, H, W), each standardised over a mask."""
    slopes = [torch.gradient(images, dim=axis)[0] for axis in (2, 3, 4) if images.shape[axis] > 1]
    magnitude = torch.stack(slopes).norm(dim=0)
    return torch.cat([standardised(images, mask), standardised(magnitude, mask)], dim=1)


def standardised(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) with zero mean and unit variance over a weight (B, 1, D, H, W); zero where it is constant."""
    everywhere = (2, 3, 4)
    share = weight / weight.sum(dim=everywhere, keepdim=True).clamp(min=1e-12)
    centred = images - (images * share).sum(dim=everywhere, keepdim=True)
    variance = (centred.square() * share).sum(dim=everywhere, keepdim=True)
    return centred / variance.clamp(min=1e-12).sqrt()


def explained_share(
    fixed: torch.Tensor,
    regressors: torch.Tensor,
    weight: torch.Tensor,
    *,
    radius: int,
    stride: int = 1,
    ridge: float = 1e-2,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Share of each patch's variance that a linear combination of regressors and a constant explains.

    Parameters
    ----------
    fixed : Tensor, (B, 1, D, H, W)
    regressors : Tensor, (B, K, D, H, W)
        Of about unit variance, so that ``ridge`` means something.
    weight : Tensor, (B, 1, D, H, W)
        Evidence in [0, 1].
    radius, stride : int
        Half-width and distance of the patches in voxels.
    ridge : float
        Variance below which a patch counts as flat.

    Returns
    -------
    share, variance, support : Tensor, (B, 1, d, h, w)
        Share in [0, 1), variance of ``fixed``, and the patch's mean weight; zeros count outside the image.
    """
    channels = torch.cat([torch.ones_like(fixed), fixed, regressors], dim=1)
    weighted = channels * weight
    count = channels.shape[1]
    # All products of two channels, row by row: the first row holds the support and the means.
    rows = [patch_mean(weighted[:, i : i + 1] * channels[:, i:], radius, stride) for i in range(count)]
    support = rows[0][:, :1]
    mean = [row.split(1, dim=1) for row in [row / support.clamp(min=1e-6) for row in rows]]
    covariance = {(i, j): mean[i][j - i] - mean[0][i] * mean[0][j] for i in range(1, count) for j in range(i, count)}
    variance = covariance[1, 1].clamp(min=0)
    explained = torch.zeros_like(variance)
    # Elimination, one regressor after the other: what each explains of what those before it left.
    for k in range(2, count):
        pivot = covariance[k, k].clamp(min=0) + ridge
        explained = explained + covariance[1, k].square() / pivot
        for j in range(k + 1, count):
            factor = covariance[k, j] / pivot
            covariance[1, j] = covariance[1, j] - factor * covariance[1, k]
            for m in range(j, count):
                covariance[j, m] = covariance[j, m] - factor * covariance[k, m]
    return (explained / (variance + ridge)).clamp(0, 0.999), variance, support


def dice(first: torch.Tensor, second: torch.Tensor, labels: Sequence[int] | None = None) -> dict[int, float]:
    """Dice coefficient of each label: 2 |A ∩ B| / (|A| + |B|).

    Parameters
    ----------
    first, second : Tensor, (..., D, H, W)
        Label maps of one shape, whole numbers of any type.
    labels : sequence of int, optional
        Those that are asked for; every label but 0 that is in either map when None.

    Returns
    -------
    dict of int to float
        In [0, 1]; NaN for a label that is in neither map.

    Raises
    ------
    GeometryError
        When the shapes differ.
    """
    if first.shape != second.shape:
        raise GeometryError(f"expected label maps of one shape; got {tuple(first.shape)} and {tuple(second.shape)}")
    one, two = first.round().long().flatten(), second.round().long().flatten()
    if labels is None:
        labels = [int(n) for n in torch.cat([one.unique(), two.unique()]).unique() if int(n) != 0]
    overlaps = {}
    for number in labels:
        a, b = one == number, two == number
        total = int(a.sum()) + int(b.sum())
        overlaps[int(number)] = 2 * int((a & b).sum()) / total if total else float("nan")
    return overlaps


def patch_mean(volume: torch.Tensor, radius: int, stride: int) -> torch.Tensor:
    """Mean over boxes of half-width ``radius``, every ``stride`` voxels, zeros outside; axis by axis."""
    size = 2 * radius + 1
    for axis in (4, 3, 2):
        kernel, step, pad = [1, 1, 1], [1, 1, 1], [0] * 6
        kernel[axis - 2], step[axis - 2] = size, stride
        pad[2 * (4 - axis)] = pad[2 * (4 - axis) + 1] = radius
        volume = F.avg_pool3d(F.pad(volume, pad), kernel, stride=step)
    return volume


def _binned(values: torch.Tensor, bins: int) -> torch.Tensor:
    """(N,) intensities to bin numbers 0 … bins - 1."""
    low, high = _quantiles(values)
    width = (high - low) / bins
    if width <= 0:
        return torch.zeros_like(values, dtype=torch.int64)
    return ((values - low) / width).clamp(0, bins - 1).long()


def _quantiles(values: torch.Tensor) -> tuple[float, float]:
    """The `_TAIL` and 1 - `_TAIL` quantiles; the extremes where those coincide (an image that is nearly flat)."""
    rank = max(1, round(_TAIL * values.numel()))
    low = float(values.kthvalue(rank).values)
    high = float(values.kthvalue(values.numel() - rank + 1).values)
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    present = shares[shares > 0]
    return -(present * present.log()).sum()


def _check(fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor) -> None:
    if fixed.shape != moving.shape or mask.shape != (fixed.shape[0], 1, *fixed.shape[2:]):
        raise InputError(
            "expected two images (B, C, D, H, W) of one shape and a mask (B, 1, D, H, W); "
            f"got {tuple(fixed.shape)}, {tuple(moving.shape)} and {tuple(mask.shape)}"
        )
    if not bool(mask.any()):
        raise InputError("expected a mask with at least one voxel inside; got an empty one")
