"""What registration networks are trained to make small; every term is differentiable and a mean over the voxels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.flow import warp

# Variances below this are taken for flat: noise of a constant region must not count as texture.
_FLAT = 1e-5
# Darker than this is background.
_DARK = 0.02
# Width of the Parzen windows of the joint histogram, in bins.
_WINDOW_BINS = 1.0


def mind_loss(
    fixed: torch.Tensor, warped: torch.Tensor, *, radius: int = 2, dilation: int = 2, squared: bool = True
) -> torch.Tensor:
    """How far the MIND-SSC descriptors of two images are apart.

    Parameters
    ----------
    fixed, warped : Tensor, (B, 1, D, H, W)
    radius, dilation : int
        Of the descriptor, in voxels.
    squared : bool
        Mean squared difference, else the mean absolute one (adaptive gradient guidance, Eq. 5).

    Returns
    -------
    Tensor, ()
    """
    with torch.no_grad():
        wanted = torch.cat([mind_ssc(one, radius=radius, dilation=dilation) for one in fixed.split(1)])
    found = torch.cat([mind_ssc(one, radius=radius, dilation=dilation) for one in warped.split(1)])
    difference = found - wanted
    return difference.square().mean() if squared else difference.abs().mean()


def local_correlation_loss(fixed: torch.Tensor, warped: torch.Tensor, *, window: int = 9) -> torch.Tensor:
    """1 minus the squared correlation in boxes of ``window`` voxels, averaged over (B, 1, D, H, W); 0 is best."""
    covariance, fixed_variance, warped_variance = (
        _box(a * b, window) - _box(a, window) * _box(b, window)
        for a, b in ((fixed, warped), (fixed, fixed), (warped, warped))
    )
    squared = covariance.square() / ((fixed_variance + _FLAT) * (warped_variance + _FLAT))
    return 1 - squared.mean()


def mutual_information_loss(fixed: torch.Tensor, warped: torch.Tensor, *, bins: int = 32) -> torch.Tensor:
    """2 minus the normalised mutual information of images (B, 1, D, H, W) in [0, 1], by Gaussian Parzen windows.

    0 where one image tells the other, 1 where they are independent (Studholme et al. 1999).
    """
    centres = torch.linspace(0, 1, bins, dtype=fixed.dtype, device=fixed.device)
    shares = []
    for image in (fixed, warped):
        weight = torch.exp(-0.5 * ((image.reshape(-1, 1) - centres) * (bins - 1) / _WINDOW_BINS).square())
        shares.append(weight / weight.sum(dim=1, keepdim=True))
    joint = shares[0].t() @ shares[1] / len(shares[0])
    together = _entropy(joint)
    return 2 - (_entropy(joint.sum(dim=1)) + _entropy(joint.sum(dim=0))) / together.clamp(min=1e-8)


def cosine_loss(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """1 minus the mean cosine of the angle between descriptors (B, C, D, H, W); 0 is best."""
    return 1 - F.cosine_similarity(fixed, warped, dim=1).mean()


def diffusion_loss(flow: torch.Tensor) -> torch.Tensor:
    """Mean squared forward difference of a field (B, 3, D, H, W), summed over the axes."""
    return sum(
        (torch.diff(flow, dim=axis).square().mean() for axis in (2, 3, 4) if flow.shape[axis] > 1),
        start=flow.new_zeros(()),
    )


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """(B, D-1, H-1, W-1): determinant of x + u(x) by forward differences of (B, 3, D, H, W), in voxels."""
    d, h, w = (n - 1 for n in displacement.shape[2:])
    columns = [torch.diff(displacement, dim=axis)[..., :d, :h, :w] for axis in (2, 3, 4)]
    identity = torch.eye(3, dtype=displacement.dtype, device=displacement.device).reshape(3, 3, 1, 1, 1)
    # Rows: component; columns: axis of the derivative.
    (a, b, c), (e, f, g), (i, j, k) = (
        tuple(columns[axis][:, row] + identity[row, axis] for axis in range(3)) for row in range(3)
    )
    return a * (f * k - g * j) - b * (e * k - g * i) + c * (e * j - f * i)


def folding_loss(displacement: torch.Tensor) -> torch.Tensor:
    """How negative the Jacobian determinant is, averaged over the voxels (MultiPropReg, Eq. 12); 0 without folds."""
    return F.relu(-jacobian_determinant(displacement)).mean()


def known_loss(fixed: torch.Tensor, displacement: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """Mean squared distance, in voxels, to the displacement that is known (B, 3, D, H, W); 0 where none is.

    Where the fixed image (B, 1, D, H, W) in [0, 1] is dark there is nothing to tell it by, and it does not count.
    """
    if known is None:
        return displacement.sum() * 0
    seen = (fixed > _DARK).to(displacement.dtype)
    return ((displacement - known).square() * seen).sum() / seen.sum().clamp(min=1)


def latent_loss(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of independent normal values from the standard normal, per value (Eq. 11)."""
    return 0.5 * (log_variance.exp() + mean.square() - log_variance - 1).mean()


def soft_dice_loss(
    fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor, *, most: int | None = None, blur: int = 0
) -> torch.Tensor:
    """1 minus the mean Dice of label maps (B, 1, D, H, W), those of ``moving`` warped by trilinear weights.

    Labels that one of the two does not have, and 0, do not count; of more than ``most``, as many are drawn from torch's
    global stream.  Averaged ``blur`` times over 3³ voxels first, structures that do not touch yet feel each other, and
    what interpolation alone takes from the overlap no longer counts against every motion.
    """
    common = [int(n) for n in fixed.unique() if n != 0 and bool((moving == n).any())]
    if not common:
        return displacement.sum() * 0
    if most is not None and len(common) > most:
        common = [common[index] for index in torch.randperm(len(common))[:most].tolist()]
    numbers = torch.tensor(common, dtype=fixed.dtype, device=fixed.device).reshape(1, -1, 1, 1, 1)
    wanted, found = ((labels == numbers).to(displacement.dtype) for labels in (fixed, moving))
    for _ in range(blur):
        wanted, found = _box(wanted, 3), _box(found, 3)
    found = warp(found, displacement)
    everywhere = (2, 3, 4)
    shared = 2 * (wanted * found).sum(dim=everywhere)
    # Squares: of whole voxels it is Dice, of shares it is best where both agree and not where they are whole.
    total = wanted.square().sum(dim=everywhere) + found.square().sum(dim=everywhere)
    return 1 - (shared / total.clamp(min=1e-6)).mean()


def _box(volume: torch.Tensor, window: int) -> torch.Tensor:
    half = window // 2
    return F.avg_pool3d(F.pad(volume, (half,) * 6, mode="replicate"), window, stride=1)


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    return -(shares * (shares + 1e-12).log()).sum()
