"""Squared local normalised cross-correlation, for images of one contrast."""

from __future__ import annotations

import torch

from MMRegCore.ops import box_mean
from MMRegCore.similarity.protocol import Local, Similarity

# Variances below this are taken for flat: noise of a constant region must not count as texture.
_FLAT = 1e-5


class Ncc(Similarity):
    """The squared correlation coefficient of each box; 1 is a linear relation.

    Parameters
    ----------
    half_width : int
        Of the boxes, in voxels.
    """

    best = 1.0

    def __init__(self, half_width: int = 4) -> None:
        self.half_width = half_width

    def encode_moving(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The image as it is."""
        return image

    def compare(self, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> Local:
        """Squared correlation of the box around each voxel."""

        def mean(product: torch.Tensor) -> torch.Tensor:
            return box_mean(product, self.half_width, outside="edge", weight=weight)

        covariance, fixed_variance, moving_variance = (
            mean(a * b) - mean(a) * mean(b) for a, b in ((fixed, moving), (fixed, fixed), (moving, moving))
        )
        return Local(covariance.square() / ((fixed_variance + _FLAT) * (moving_variance + _FLAT)), weight)


MEASURE = Ncc
