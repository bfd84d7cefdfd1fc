"""Cutting a grid into parts that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

Place = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One part of a grid, a slice for each axis.

    Attributes
    ----------
    core : tuple of slice
        What the part is responsible for; the cores of all tiles make up the grid.
    around : tuple of slice
        The core with its margin, within the grid.
    inner : tuple of slice
        The core within ``around``.
    """

    core: Place
    around: Place

    @property
    def inner(self) -> Place:
        """The core within ``around``."""
        return tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(self.core, self.around, strict=True))

    @property
    def voxels(self) -> int:
        """Voxels of ``around``."""
        return math.prod(s.stop - s.start for s in self.around)


def tiles(shape: Sequence[int], counts: Sequence[int], margin: int, *, multiple: int = 1) -> list[Tile]:
    """Cut a grid into about equal parts with ``margin`` around them.

    Parameters
    ----------
    shape : sequence of int
        Sizes of the grid.
    counts : sequence of int
        Parts along each axis.
    margin : int
        Voxels that a part looks at beyond its core.
    multiple : int
        Every core begins at a multiple of this.
    """
    cores = product(*(_cuts(size, count, multiple) for size, count in zip(shape, counts, strict=True)))
    return [Tile(core, _widened(core, shape, margin)) for core in cores]


def _cuts(size: int, count: int, multiple: int) -> Iterator[slice]:
    length = math.ceil(size / (multiple * count)) * multiple
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


def _widened(core: Place, shape: Sequence[int], margin: int) -> Place:
    return tuple(slice(max(c.start - margin, 0), min(c.stop + margin, n)) for c, n in zip(core, shape, strict=True))
