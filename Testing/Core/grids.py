"""Grids in any orientation, given as ITK gives them."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from MMRegCore.geometry import Grid
from MMRegCore.ops import rotation_matrix

STRAIGHT = np.eye(3)
OBLIQUE = rotation_matrix(np.deg2rad(33) * np.array([1.0, -2.0, 0.7]) / np.linalg.norm([1.0, -2.0, 0.7]))
DIRECTIONS = {
    "lps": STRAIGHT,
    "ras": np.diag([-1.0, -1.0, 1.0]),
    "oblique": OBLIQUE,
    "left_handed": OBLIQUE @ np.diag([1.0, 1.0, -1.0]),
    "permuted": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
}


def itk_image(
    size: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: np.ndarray = STRAIGHT
) -> sitk.Image:
    """An image of zeros: size (w, h, d), spacing mm, origin LPS mm, direction (3, 3) LPS."""
    image = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    image.SetSpacing([float(v) for v in spacing])
    image.SetOrigin([float(v) for v in origin])
    image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    return image


def itk_grid(
    size: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: np.ndarray = STRAIGHT
) -> Grid:
    """The grid of such an image."""
    return Grid.from_itk(itk_image(size, spacing, origin, direction))


def noise_on(grid: Grid) -> sitk.Image:
    """An image of uniform noise on a grid."""
    return grid.to_itk(np.random.default_rng(0).random(grid.shape, dtype=np.float32))
