"""Box patches of samples of which only some count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from MMRegCore.ops.filters import box_mean
from MMRegCore.ops.row_sums import RowSums


@dataclass(frozen=True, eq=False)
class Lattice:
    """Samples, one in each cell of a lattice; only those that count are listed.

    Attributes
    ----------
    active : Tensor, (d, h, w), bool
        The cells whose samples count; samples are listed in their order.
    """

    active: torch.Tensor

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(1, C, d, h, w): values (N, C) of the samples at their cells, zero elsewhere."""
        return _spread(values, self._places, self.active.shape)

    @cached_property
    def _places(self) -> torch.Tensor:
        return _places(self.active)

    def collect(self, volume: torch.Tensor) -> torch.Tensor:
        """(N, C): what a volume (1, C, d, h, w) has at the active cells."""
        return volume[0][:, self.active].t().contiguous()


@dataclass(frozen=True, eq=False)
class Patches:
    """Means over boxes of (2·half_width + 1)³ cells, cells that are not active counting as zeros.

    The same as `box_mean` of what is spread out, without the work for boxes and cells that do not count.

    Attributes
    ----------
    kept : Tensor, (a, b, c), bool
        The boxes that are filled enough, of those whose centres lie ``stride`` cells apart, the first on the first.
    sums : tuple of RowSums
        Along d, then h, then w.
    volume : int
        Cells of a box.
    """

    kept: torch.Tensor
    sums: tuple[RowSums, ...]
    volume: int

    @classmethod
    def of(cls, lattice: Lattice, half_width: int, stride: int, least: float) -> Patches:
        """Those patches of which more than a share ``least`` is active."""
        kept = box_mean(lattice.active[None, None].float(), half_width, stride=stride)[0, 0] > least
        number, sums = _numbered(lattice.active), []
        for axis in range(3):
            wanted = _reached(kept, axis, tuple(lattice.active.shape), half_width, stride)
            number, part = _along(number, wanted, axis, half_width, stride)
            sums.append(part)
        return cls(kept, tuple(sums), (2 * half_width + 1) ** 3)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """(P, C): the means of values (N, C)."""
        for part in self.sums:
            values = part(values)
        return values / self.volume

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(1, C, a, b, c): values (P, C) of the patches at their places, zero elsewhere."""
        return _spread(values, self._places, self.kept.shape)

    @cached_property
    def _places(self) -> torch.Tensor:
        return _places(self.kept)


def _places(active: torch.Tensor) -> torch.Tensor:
    """(N,): flat indices of the active cells; a GPU is waited for, so once."""
    return active.flatten().nonzero()[:, 0]


def _spread(values: torch.Tensor, places: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    volume = values.new_zeros(values.shape[1], shape.numel())
    return volume.index_copy(1, places, values.t()).reshape(1, -1, *shape)


def _numbered(active: torch.Tensor) -> torch.Tensor:
    """The number of each active cell in the list of them; -1 elsewhere."""
    number = torch.full(active.shape, -1, device=active.device)
    number[active] = torch.arange(int(active.sum()), device=active.device)
    return number


def _reached(kept: torch.Tensor, axis: int, shape: Sequence[int], half_width: int, stride: int) -> torch.Tensor:
    """The partial sums, up to and with an axis, that the kept patches need: bool."""
    for rest in range(axis + 1, 3):
        kept = _dilated(kept, rest, shape[rest], half_width, stride)
    return kept


def _dilated(kept: torch.Tensor, axis: int, size: int, half_width: int, stride: int) -> torch.Tensor:
    """The cells along an axis of which a patch is kept."""
    moved = kept.movedim(axis, -1)
    reached = moved.new_zeros(*moved.shape[:-1], size)
    for offset in range(-half_width, half_width + 1):
        # The patches whose cell at this offset lies within.
        first, stop = max(-(offset // stride), 0), min(-((offset - size) // stride), moved.shape[-1])
        if first < stop:
            begin = first * stride + offset
            reached[..., begin : begin + (stop - first - 1) * stride + 1 : stride] |= moved[..., first:stop]
    return reached.movedim(-1, axis)


def _along(
    number: torch.Tensor, wanted: torch.Tensor, axis: int, half_width: int, stride: int
) -> tuple[torch.Tensor, RowSums]:
    """Sums along one axis: the numbers of the new cells, and what makes their values from those of the old."""
    padding = [0] * 6
    padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = half_width
    terms = F.pad(number, padding, value=-1).unfold(axis, 2 * half_width + 1, stride)[wanted]
    new = _numbered(wanted)
    row, place = (terms >= 0).nonzero(as_tuple=True)
    return new, RowSums.of(row, terms[row, place], None, (len(terms), int(number.max()) + 1))
