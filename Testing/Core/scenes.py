"""One texture in space, seen from any grid: scenes with a known transform, and problems for methods."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from known_motion import texture
from MMRegCore.geometry import Grid
from MMRegCore.methods.protocol import Problem
from MMRegCore.monitor import Monitor
from MMRegCore.ops import sample
from MMRegCore.prepare import Prepared
from MMRegCore.search.sampled import Levels
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

# The texture fills a cube of this size around the origin; beyond its faces it stays as it is there.
_EXTENT_MM = 72


@cache
def _texture() -> torch.Tensor:
    return 2 * texture(1, _EXTENT_MM) - 1


def texture_at(points_ras: np.ndarray, *, inverted: bool = False) -> torch.Tensor:
    """The texture at points (D, H, W, 3): (1, D, H, W); bright, or in another, nonlinear contrast."""
    positions = torch.from_numpy(points_ras + (_EXTENT_MM - 1) / 2).float().flip(-1)
    values = sample(_texture(), positions.permute(3, 0, 1, 2)[None])[0]
    return 100 * (torch.exp(-values) if inverted else values)


def scene(
    grid: Grid,
    moved: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    inverted: bool = False,
    name: str = "image",
) -> Volume:
    """The texture on a grid; ``moved`` takes points (N, 3) to where they are looked up."""
    points = grid.points_ras()
    if moved is not None:
        points = moved(points.reshape(-1, 3)).reshape(points.shape)
    return Volume(texture_at(points, inverted=inverted), grid, name=name)


def box(
    shape: tuple[int, int, int],
    spacing: float | tuple[float, float, float] = 1.0,
    direction: np.ndarray | None = None,
    centre: np.ndarray | tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """A grid (D, H, W) around ``centre``, RAS mm; spacing along (i, j, k)."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if direction is None else direction) * spacing
    matrix[:3, 3] = np.array(centre) - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, matrix)


def translation(vector_mm: np.ndarray | tuple[float, float, float]) -> SpatialTransform:
    """A translation, RAS mm."""
    matrix = np.eye(4)
    matrix[:3, 3] = vector_mm
    return SpatialTransform.from_matrix(matrix)


def inner_points(grid: Grid, rim: int = 6, step: int = 3) -> np.ndarray:
    """(N, 3), RAS mm: every ``step``-th voxel of a grid, ``rim`` voxels from its border."""
    part = slice(rim, -rim, step)
    return grid.points_ras()[part, part, part].reshape(-1, 3)


def error_mm(transform: SpatialTransform, truth: Callable[[np.ndarray], np.ndarray], grid: Grid) -> float:
    """Mean distance from the truth at the inner points of a grid."""
    points = inner_points(grid)
    return float(np.linalg.norm(transform.apply(points) - truth(points), axis=1).mean())


def problem(prepared: Prepared, *, memory_bytes: int = 2**30, monitor: Monitor | None = None) -> Problem:
    """What a method is given of a prepared pair."""
    return Problem(prepared, Levels(prepared), memory_bytes, monitor or Monitor())
