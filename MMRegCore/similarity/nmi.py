"""Normalised mutual information (Studholme et al. 1999)."""

from __future__ import annotations

import torch

from MMRegCore.similarity.protocol import Local, Similarity

# Values beyond these quantiles share the outermost bins: a few hot voxels must not empty all the others.
_TAIL = 0.005


class Nmi(Similarity):
    """``(H(A) + H(B)) / H(A, B)`` of the joint histogram: 1 is independent, 2 is one-to-one.

    A constant image says nothing about the other one: 1.

    Parameters
    ----------
    bins : int
        Per image, between its 0.5 % and 99.5 % quantiles.
    window_bins : float
        Standard deviation of the Gaussian Parzen windows, in bins; 0 counts whole voxels, which is faster and has no
        gradient.
    """

    best = 2.0
    unrelated = 1.0

    def __init__(self, bins: int = 32, window_bins: float = 1.0) -> None:
        self.bins, self.window_bins = bins, window_bins

    def encode_moving(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The image scaled so that its quantiles are 0 and 1, and clamped."""
        low, high = _quantiles(image.detach()[weight > 0])
        return ((image - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(image)

    def compare(self, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> Local:
        """One value for the whole image, supported by all of it."""
        counted = weight.flatten() > 0
        share = weight.flatten()[counted]
        a, b = (image.flatten()[counted] for image in (fixed, moving))
        joint = self._counted(a, b, share) if self.window_bins == 0 else self._smoothed(a, b, share)
        together = _entropy(joint)
        value = (_entropy(joint.sum(dim=1)) + _entropy(joint.sum(dim=0))) / together.clamp(min=1e-8)
        value = torch.where(together > 1e-8, value, torch.ones_like(value)).to(fixed.dtype)
        return Local(value.reshape(1, 1, 1, 1, 1), self.support(weight))

    def support(self, weight: torch.Tensor) -> torch.Tensor:
        """(1, 1, 1, 1, 1): the sum of the weight."""
        return weight.sum().reshape(1, 1, 1, 1, 1)

    def _counted(self, a: torch.Tensor, b: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        first, second = ((image * self.bins).clamp(0, self.bins - 1).long() for image in (a, b))
        joint = torch.bincount(first * self.bins + second, share.double(), minlength=self.bins**2)
        return joint.reshape(self.bins, self.bins) / joint.sum()

    def _smoothed(self, a: torch.Tensor, b: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        centres = torch.linspace(0, 1, self.bins, dtype=a.dtype, device=a.device)
        windows = []
        for image in (a, b):
            distance = (image.reshape(-1, 1) - centres) * (self.bins - 1) / self.window_bins
            window = torch.exp(-0.5 * distance.square())
            windows.append(window / window.sum(dim=1, keepdim=True))
        return (windows[0] * (share / share.sum())[:, None]).t() @ windows[1]


def _quantiles(values: torch.Tensor) -> tuple[float, float]:
    """The `_TAIL` and 1 - `_TAIL` quantiles; the extremes where those coincide (an image that is nearly flat)."""
    rank = max(1, round(_TAIL * values.numel()))
    low = float(values.kthvalue(rank).values)
    high = float(values.kthvalue(values.numel() - rank + 1).values)
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    return -(shares * (shares + 1e-12).log()).sum()


MEASURE = Nmi
