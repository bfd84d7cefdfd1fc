"""Grids in space; the only place where RAS, LPS and voxel coordinates meet.

Inside MMReg every point and vector is RAS in mm.  A voxel index is written ``ijk`` = (i, j, k) =
(column w, row h, slice d), the order of ITK and Slicer; a tensor is indexed (d, h, w), the reverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from MMRegCore.errors import GeometryError

Array = npt.NDArray[np.float64]
Shape = tuple[int, int, int]

LPS_FROM_RAS: Array = np.diag([-1.0, -1.0, 1.0, 1.0])
LPS_FROM_RAS.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular voxel grid in space.

    Attributes
    ----------
    shape : tuple of int
        (D, H, W): slices, rows, columns.
    ras_from_ijk : ndarray, (4, 4), float64
        Takes (i, j, k, 1) = (w, h, d, 1) in voxels to RAS mm; any orientation and handedness.

    Raises
    ------
    GeometryError
        When a size is below 1 or the matrix is not a finite, invertible affine matrix.
    """

    shape: Shape
    ras_from_ijk: Array

    def __post_init__(self) -> None:
        shape = cast(Shape, tuple(int(n) for n in self.shape))
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"expected three sizes (D, H, W) of at least 1; got {self.shape}")
        matrix = np.array(self.ras_from_ijk, dtype=np.float64)
        check_affine(matrix, "the voxel-to-RAS matrix of the image")
        matrix.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "ras_from_ijk", matrix)

    @classmethod
    def from_itk(cls, image: sitk.Image) -> Grid:
        """Where the voxels of a 3-D SimpleITK image lie."""
        lps_from_ijk = np.eye(4)
        lps_from_ijk[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
        lps_from_ijk[:3, 3] = image.GetOrigin()
        return cls(cast(Shape, image.GetSize()[::-1]), LPS_FROM_RAS @ lps_from_ijk)

    def to_itk(self, values: npt.NDArray[np.generic] | None = None) -> sitk.Image:
        """A SimpleITK image on this grid.

        Parameters
        ----------
        values : ndarray, (D, H, W) or (D, H, W, C), optional
            A fourth axis makes a vector image; None an image of zeros (8 bit), which says where its voxels lie.
        """
        if values is None:
            image = sitk.Image(self.itk_size, sitk.sitkUInt8)
        else:
            image = sitk.GetImageFromArray(np.ascontiguousarray(values), isVector=values.ndim == 4)
        lps_from_ijk = LPS_FROM_RAS @ self.ras_from_ijk
        image.SetSpacing(self.spacing_mm.tolist())
        image.SetOrigin(lps_from_ijk[:3, 3].tolist())
        image.SetDirection((lps_from_ijk[:3, :3] / self.spacing_mm).ravel().tolist())
        return image

    @property
    def itk_size(self) -> tuple[int, int, int]:
        """(W, H, D)."""
        return cast(Shape, self.shape[::-1])

    @property
    def spacing_mm(self) -> Array:
        """(3,), spacing along i, j, k in mm."""
        return cast(Array, np.linalg.norm(self.ras_from_ijk[:3, :3], axis=0))

    @property
    def ijk_from_ras(self) -> Array:
        """(4, 4), RAS mm to voxel index."""
        return cast(Array, np.linalg.inv(self.ras_from_ijk))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.ras_from_ijk[:3, :3])))

    @property
    def centre_ras(self) -> Array:
        """(3,), middle of the grid, RAS mm."""
        middle = (np.array(self.itk_size, dtype=np.float64) - 1) / 2
        return transform_points(self.ras_from_ijk, middle)

    def corners_ras(self) -> Array:
        """(8, 3), centres of the corner voxels, RAS mm."""
        ends = [(0.0, float(n - 1)) for n in self.itk_size]
        return transform_points(self.ras_from_ijk, np.array(list(product(*ends))))

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Tell whether two grids have the same sizes and voxels at the same places."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_ras() - other.corners_ras()).max() <= tolerance_mm)

    def points_ras(self) -> Array:
        """(D, H, W, 3), the RAS position of every voxel, float64."""
        d, h, w = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in self.shape), indexing="ij")
        return transform_points(self.ras_from_ijk, np.stack([w, h, d], axis=-1))

    def slices(self) -> Iterator[Grid]:
        """The slices (1, H, W) along d, one after the other: work on points of a large grid need not hold them all."""
        for d in range(self.shape[0]):
            yield self.cropped((0, 0, d), (1, *self.shape[1:]))

    def pooled(self, stride: int, shape: Shape | None = None) -> Grid:
        """The grid whose voxels are blocks of ``stride`` voxels of this one (average pooling)."""
        new_shape = shape if shape is not None else cast(Shape, tuple(-(-n // stride) for n in self.shape))
        scale = np.diag([stride, stride, stride, 1.0])
        scale[:3, 3] = (stride - 1) / 2
        return Grid(new_shape, self.ras_from_ijk @ scale)

    def padded(self, voxels: int) -> Grid:
        """This grid with ``voxels`` more on every side."""
        return self.cropped([-voxels] * 3, cast(Shape, tuple(n + 2 * voxels for n in self.shape)))

    def cropped(self, low: Sequence[int] | Array, shape: Shape) -> Grid:
        """The part of this grid that begins at voxel ``low`` (i, j, k)."""
        shift = np.eye(4)
        shift[:3, 3] = low
        return Grid(shape, self.ras_from_ijk @ shift)

    def axis_aligned(self, spacing_mm: float) -> Grid:
        """An isotropic grid with its axes along RAS that holds this one's box, about the same middle."""
        faces = np.array(list(product(*((-0.5, n - 0.5) for n in self.itk_size))))
        outer = transform_points(self.ras_from_ijk, faces)
        # Rounding of the matrix must not cost a voxel.
        size = np.maximum(1, np.ceil(np.ptp(outer, axis=0) / spacing_mm - 1e-3)).astype(int)
        matrix = np.diag([spacing_mm] * 3 + [1.0])
        matrix[:3, 3] = self.centre_ras - (size - 1) / 2 * spacing_mm
        return Grid(cast(Shape, tuple(int(n) for n in size[::-1])), matrix)

    def with_spacing(self, spacing_mm: Sequence[float]) -> Grid:
        """The same box with other spacings (i, j, k) in mm; outer voxel faces coincide up to rounding of sizes."""
        old = self.spacing_mm
        new = np.asarray(spacing_mm, dtype=np.float64)
        size = np.maximum(1, np.round(np.array(self.itk_size) * old / new)).astype(int)
        factor = new / old
        scale = np.diag([*factor, 1.0])
        # Both boxes share their centre, so rounding of sizes spreads to both sides.
        scale[:3, 3] = (np.array(self.itk_size) - 1) / 2 - factor * (size - 1) / 2
        return Grid(cast(Shape, tuple(int(n) for n in size[::-1])), self.ras_from_ijk @ scale)


def check_affine(matrix: Array, what: str) -> None:
    """Raise `GeometryError` unless ``matrix`` (4, 4) is a finite, invertible affine matrix."""
    if matrix.shape != (4, 4) or not np.all(np.isfinite(matrix)):
        raise GeometryError(f"expected {what} to be a finite 4×4 matrix; got shape {matrix.shape}: {matrix.tolist()}")
    linear = matrix[:3, :3]
    # Relative to the column lengths, so that small voxels are not mistaken for singular ones.
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(linear, axis=0)
    if (
        lengths.min() <= 0
        or not np.isfinite(lengths).all()
        or abs(np.linalg.det(linear / np.maximum(lengths, 1e-300))) < 1e-6
    ):
        raise GeometryError(f"expected {what} to be invertible; got the 3×3 part {linear.tolist()}")


def transform_points(matrix: Array, points: Array) -> Array:
    """Apply a (4, 4) affine matrix to points (..., 3)."""
    return cast(Array, points @ matrix[:3, :3].T + matrix[:3, 3])


def ras_from_lps_points(points_lps: Array) -> Array:
    """Points or vectors (..., 3), LPS mm to RAS mm (its own inverse)."""
    return cast(Array, np.asarray(points_lps, dtype=np.float64) * np.array([-1.0, -1.0, 1.0]))


lps_from_ras_points = ras_from_lps_points


def ras_from_lps_matrix(matrix_lps: Array) -> Array:
    """A (4, 4) matrix between LPS spaces as the one between RAS spaces (its own inverse)."""
    return cast(Array, LPS_FROM_RAS @ matrix_lps @ LPS_FROM_RAS)


lps_from_ras_matrix = ras_from_lps_matrix


def ijk_target_from_source(target: Grid, source: Grid, target_from_source_ras: Array | None = None) -> Array:
    """(4, 4): voxel index of ``source`` to voxel index of ``target``, through a RAS matrix (identity if None)."""
    middle = np.eye(4) if target_from_source_ras is None else target_from_source_ras
    return cast(Array, target.ijk_from_ras @ middle @ source.ras_from_ijk)
