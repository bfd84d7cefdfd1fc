"""Terms of the losses of registration networks; every one is differentiable and a mean over the voxels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MMRegCore.ops import box_mean, jacobian_determinant, warp
from MMRegCore.similarity.protocol import Similarity

# Darker than this is background.
_DARK = 0.02


def warped_loss(
    similarity: Similarity, fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor
) -> torch.Tensor:
    """Loss of a similarity between a fixed image and a moving one (B, 1, D, H, W) along a displacement.

    What encodes without a gradient is warped after it was encoded.
    """
    if similarity.differentiable:
        return similarity.loss(fixed, warp(moving, displacement))
    weight = torch.ones_like(fixed)
    encoded = similarity.encode_fixed(fixed, weight), similarity.encode_moving(moving, weight)
    return encoded_loss(similarity, encoded[0], warp(encoded[1], displacement))


def encoded_loss(similarity: Similarity, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Loss of a similarity between encoded images (B, C, D, H, W)."""
    return similarity.best - similarity.compare(fixed, moving, torch.ones_like(fixed[:, :1])).mean()


def folding_loss(displacement: torch.Tensor) -> torch.Tensor:
    """How negative the Jacobian determinant is, averaged over the voxels (MultiPropReg, Eq. 12); 0 without folds."""
    return F.relu(-jacobian_determinant(displacement, "forward")).mean()


def known_displacement_loss(
    fixed: torch.Tensor, displacement: torch.Tensor, known: torch.Tensor | None
) -> torch.Tensor:
    """Mean squared distance, in voxels, to a known displacement (B, 3, D, H, W); 0 where none is known.

    Where the fixed image (B, 1, D, H, W) in [0, 1] is dark nothing determines it, and it does not count.
    """
    if known is None:
        return displacement.sum() * 0
    foreground = (fixed > _DARK).to(displacement.dtype)
    return ((displacement - known).square() * foreground).sum() / foreground.sum().clamp(min=1)


def latent_loss(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of independent normal values from the standard normal, per value (Eq. 11)."""
    return 0.5 * (log_variance.exp() + mean.square() - log_variance - 1).mean()


def soft_dice_loss(
    fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor, *, most: int | None = None, blur: int = 0
) -> torch.Tensor:
    """1 minus the mean Dice of label maps (B, 1, D, H, W), those of ``moving`` warped by trilinear weights.

    Labels that one of the two does not have, and 0, do not count; of more than ``most``, as many are drawn from torch's
    global stream.  Averaged ``blur`` times over 3³ voxels first, structures that do not touch yet have a gradient, and
    what interpolation alone takes from the overlap no longer counts against every motion.
    """
    common = [int(n) for n in fixed.unique() if n != 0 and bool((moving == n).any())]
    if not common:
        return displacement.sum() * 0
    if most is not None and len(common) > most:
        common = [common[index] for index in torch.randperm(len(common))[:most].tolist()]
    numbers = torch.tensor(common, dtype=fixed.dtype, device=fixed.device).reshape(1, -1, 1, 1, 1)
    one, two = ((labels == numbers).to(displacement.dtype) for labels in (fixed, moving))
    for _ in range(blur):
        one, two = box_mean(one, 1, outside="edge"), box_mean(two, 1, outside="edge")
    two = warp(two, displacement)
    everywhere = (2, 3, 4)
    # Squares: of whole voxels it is Dice, of fractions it is best where both agree and not where they are whole.
    total = one.square().sum(dim=everywhere) + two.square().sum(dim=everywhere)
    return 1 - (2 * (one * two).sum(dim=everywhere) / total.clamp(min=1e-6)).mean()
