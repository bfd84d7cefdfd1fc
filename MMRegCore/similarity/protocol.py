"""What every similarity measure can do, whoever asks: rigid search, deformation, training, quality, model selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F

from MMRegCore.errors import InputError
from MMRegCore.ops.patches import Lattice


class Local(NamedTuple):
    """Similarity place by place.

    Attributes
    ----------
    value : Tensor, (B, 1, d, h, w)
        Larger is more similar.
    support : Tensor, (B, 1, d, h, w)
        At least zero: how much each place counts.
    """

    value: torch.Tensor
    support: torch.Tensor

    def mean(self) -> torch.Tensor:
        """Scalar: the mean weighted by the support; 0 without support."""
        return (self.value * self.support).sum() / self.support.sum().clamp(min=1e-12)


# Of encoded moving images (N, K, C) each and a weight (N, K, 1), at the N samples of a lattice under K motions.
Comparison = Callable[[Sequence[torch.Tensor], torch.Tensor], Local]


class Similarity(ABC):
    """How similar a moving image is to a fixed one, in two steps.

    Images are *encoded* once, each in its own space; encoded images are resampled, and *compared* as often as an
    optimiser asks.  Comparing is differentiable; encoding too, unless ``differentiable`` says otherwise.

    Attributes
    ----------
    best : float
        Value of a perfect match, where there is one: ``best - value`` is a loss.
    differentiable : bool
        Whether `encode_fixed` and `encode_moving` have a gradient; where they have none, warp what is encoded.
    joint : bool
        Whether several moving images explain the fixed one together; otherwise their similarities are averaged.
    stride : int
        Distance of the places that `compare` gives values for, in samples.
    unrelated : float, optional
        About the value of unrelated images: in a search, what no moving image covers counts as that.  None where it
        depends on the images, and is measured on them.
    fine : bool
        Whether images are encoded at their own resolution, and coarser work takes averages of what is encoded;
        otherwise averages of the images are encoded.
    """

    best: ClassVar[float] = 0.0
    differentiable: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    stride: int = 1
    unrelated: ClassVar[float | None] = 0.0
    fine: ClassVar[bool] = False

    def encode_fixed(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W): what is compared of a fixed image (B, 1, D, H, W), given its weight (B, 1, D, H, W)."""
        return self.encode_moving(image, weight)

    @abstractmethod
    def encode_moving(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W): what is compared of a moving image (B, 1, D, H, W), given its weight (B, 1, D, H, W)."""

    @abstractmethod
    def compare(self, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> Local:
        """Compare encoded images (B, C, d, h, w) at the same samples, where the weight (B, 1, d, h, w) is not zero."""

    def support(self, weight: torch.Tensor) -> torch.Tensor:
        """(B, 1, d, h, w): the support that `compare` gives for a weight."""
        return weight

    def compare_all(self, fixed: torch.Tensor, moving: Sequence[torch.Tensor], weight: torch.Tensor) -> Local:
        """Compare with several encoded moving images of the same samples."""
        if self.joint or len(moving) == 1:
            return self.compare(fixed, torch.cat(list(moving), dim=1), weight)
        each = [self.compare(fixed, one, weight) for one in moving]
        return Local(torch.stack([one.value for one in each]).mean(dim=0), each[0].support)

    def comparison(self, fixed: torch.Tensor, lattice: Lattice) -> Comparison:
        """Compare as `compare_all` does, but images that are known at scattered samples alone, and many times.

        Parameters
        ----------
        fixed : Tensor, (N, C)
            The encoded fixed image at the samples.
        lattice : Lattice

        Returns
        -------
        callable
            Of the encoded moving images (N, K, C) each, and the weight (N, K, 1), under each of K motions: values at
            the places of the lattice, (1, K, a, b, c).
        """
        there = lattice.spread(fixed)

        def compare(moving: Sequence[torch.Tensor], weight: torch.Tensor) -> Local:
            motions = [
                self.compare_all(there, [lattice.spread(image) for image in images], lattice.spread(counted))
                for *images, counted in zip(*(each.unbind(1) for each in (*moving, weight)), strict=True)
            ]
            return Local(*(torch.cat(parts, dim=1) for parts in zip(*motions, strict=True)))

        return compare

    def mean(self, fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Similarity of two images on one grid.

        Parameters
        ----------
        fixed, moving : Tensor, (B, 1, D, H, W)
        mask : Tensor, (B, 1, D, H, W), optional
            Where to compare: bool, or weights in [0, 1]; everywhere when None.

        Returns
        -------
        Tensor, ()

        Raises
        ------
        InputError
            When sizes differ or the mask is empty.
        """
        weight = torch.ones_like(fixed[:, :1]) if mask is None else mask.to(fixed.dtype)
        check_shapes(fixed, moving, weight)
        return self.compare(self.encode_fixed(fixed, weight), self.encode_moving(moving, weight), weight).mean()

    def loss(self, fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Scalar: ``best - mean``."""
        return self.best - self.mean(fixed, moving, mask)


class Descriptor(Similarity):
    """A vector for every voxel; places are compared one by one, by the distance of their vectors.

    Attributes
    ----------
    unit : bool
        Whether only the direction of the vectors counts: they are normalised before they are compared, and the value is
        the cosine of their angle.
    """

    unit: ClassVar[bool] = False
    unrelated = None
    fine = True

    def value(self, fixed: torch.Tensor, moving: torch.Tensor, dim: int) -> torch.Tensor:
        """Minus the mean squared difference of vectors, which lie along ``dim``; of unit vectors the cosine."""
        if self.unit:
            fixed, moving = F.normalize(fixed, dim=dim), F.normalize(moving, dim=dim)
            return 1 - (moving - fixed).square().sum(dim=dim, keepdim=True) / 2
        return -(moving - fixed).square().mean(dim=dim, keepdim=True)

    def compare(self, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> Local:
        """Compare voxel by voxel."""
        return Local(self.value(fixed, moving, 1), weight)

    def comparison(self, fixed: torch.Tensor, lattice: Lattice) -> Comparison:
        """The same for scattered samples, without the cells in between."""

        def compare(moving: Sequence[torch.Tensor], weight: torch.Tensor) -> Local:
            each = [self.value(fixed[:, None], image, 2) for image in moving]
            value = torch.stack(each).mean(dim=0)
            return Local(lattice.spread(value[..., 0]), lattice.spread(weight[..., 0]))

        return compare


def check_shapes(fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> None:
    """Raise `InputError` unless two images and a weight lie on one grid and the weight is not zero everywhere."""
    if fixed.shape != moving.shape or weight.shape != (fixed.shape[0], 1, *fixed.shape[2:]):
        raise InputError(
            "expected two images (B, C, D, H, W) of one shape and a mask (B, 1, D, H, W); "
            f"got {tuple(fixed.shape)}, {tuple(moving.shape)} and {tuple(weight.shape)}"
        )
    if not bool(weight.any()):
        raise InputError("expected a mask with at least one voxel inside; got an empty one")
