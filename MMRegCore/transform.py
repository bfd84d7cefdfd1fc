"""Spatial transforms: the result of a registration, or one made elsewhere.

A result is composite: a linear part, which holds everywhere, after a residual cubic B-spline that is zero outside
the neighbourhood of the fixed image.  ITK and Slicer evaluate such a transform identically, on and off the voxel
grid, inside and far outside (they interpolate displacement grids differently; see docs/conventions.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from SimpleITK import _SimpleITK as unwrapped  # type: ignore[attr-defined]

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError
from MMRegCore.geometry import (
    Array,
    Grid,
    check_affine,
    lps_from_ras_matrix,
    lps_from_ras_points,
    ras_from_lps_matrix,
    ras_from_lps_points,
    transform_points,
)

# Control points are this many voxels of the field's grid apart: the optimisers smooth over more than that.
CONTROL_STRIDE = 2
# Rings of control points that stay exactly zero, so that ITK (identity outside its valid region) and VTK (zero
# coefficients outside) agree there.
ZERO_RINGS = 3
_DEEPEST_NESTING = 16


@dataclass(frozen=True, eq=False)
class SpatialTransform:
    """A map from fixed to moving space (pull convention, ITK's resampling transform).

    Attributes
    ----------
    itk : SimpleITK.Transform
        Takes fixed points to moving points, LPS mm.
    """

    itk: sitk.Transform

    @classmethod
    def identity(cls) -> SpatialTransform:
        """The map that moves nothing."""
        return cls.from_matrix(np.eye(4))

    @classmethod
    def from_matrix(cls, moving_from_fixed_ras: Array) -> SpatialTransform:
        """From a (4, 4) matrix, RAS mm."""
        return cls(_itk_affine(moving_from_fixed_ras))

    def then(self, outer: SpatialTransform) -> SpatialTransform:
        """The map that applies this one first and ``outer`` to its result; neighbouring linear parts are merged."""
        chain: list[sitk.Transform] = []
        for part in [*_in_order_of_application(self.itk), *_in_order_of_application(outer.itk)]:
            if chain and part.IsLinear() and chain[-1].IsLinear():
                chain[-1] = _itk_affine(_matrix_ras(part) @ _matrix_ras(chain[-1]))
            else:
                chain.append(part)
        if len(chain) == 1:
            return SpatialTransform(chain[0])
        return SpatialTransform(sitk.CompositeTransform(chain[::-1]))

    @property
    def linear_ras(self) -> Array:
        """(4, 4): the product of the linear parts, RAS mm; what holds far outside the fixed image."""
        matrix = np.eye(4)
        for part in _in_order_of_application(self.itk):
            if part.IsLinear():
                matrix = _matrix_ras(part) @ matrix
        return matrix

    @property
    def is_linear(self) -> bool:
        """Whether the map is a single matrix."""
        return all(part.IsLinear() for part in _in_order_of_application(self.itk))

    def apply(self, points_ras: Array) -> Array:
        """Take fixed points (N, 3), RAS mm, to moving points (N, 3), RAS mm."""
        points = lps_from_ras_points(points_ras)
        moved = [self.itk.TransformPoint(point) for point in points.tolist()]
        return ras_from_lps_points(np.array(moved, dtype=np.float64).reshape(-1, 3))

    def apply_inverse(self, points_ras: Array, tolerance_mm: float = 1e-5, iterations: int = 60) -> Array:
        """Take moving points (N, 3), RAS mm, to the fixed points (N, 3) that :meth:`apply` maps onto them.

        Raises `GeometryError` when a point is not reached to ``tolerance_mm``: the map folds or has no inverse there.
        """
        target = np.asarray(points_ras, dtype=np.float64).reshape(-1, 3)
        linear_inverse = cast(Array, np.linalg.inv(self.linear_ras))
        fixed = transform_points(linear_inverse, target)
        if len(target) == 0 or self.is_linear:
            return fixed
        for _ in range(iterations):
            error = target - self.apply(fixed)
            if np.abs(error).max() <= tolerance_mm:
                return fixed
            fixed = fixed + self._newton_step(fixed, error)
        missed = np.abs(target - self.apply(fixed)).max(axis=1)
        if missed.max() > tolerance_mm:
            worst = int(missed.argmax())
            raise GeometryError(
                f"expected the transform to be invertible at {np.round(target[worst], 2).tolist()} mm (RAS); "
                f"the inverse stayed {missed[worst]:.3g} mm away after {iterations} iterations"
            )
        return fixed

    def _newton_step(self, fixed: Array, error: Array, step_mm: float = 1e-3) -> Array:
        columns = [(self.apply(fixed + step_mm * axis) - self.apply(fixed - step_mm * axis)) for axis in np.eye(3)]
        jacobian = np.stack(columns, axis=-1) / (2 * step_mm)
        # Where the map folds a Newton step is meaningless: take the plain fixed-point step there.
        safe = np.linalg.det(jacobian) > 0.1 * abs(np.linalg.det(self.linear_ras[:3, :3]))
        jacobian[~safe] = self.linear_ras[:3, :3]
        return cast(Array, np.linalg.solve(jacobian, error[..., None])[..., 0])

    def displacement_field(self, grid: Grid) -> DisplacementField:
        """The whole map as a displacement ``T(x) - x`` at every voxel of ``grid``."""
        if self.is_linear:
            return DisplacementField.from_linear(self.linear_ras, grid)
        to_field = sitk.TransformToDisplacementFieldFilter()
        to_field.SetOutputPixelType(sitk.sitkVectorFloat32)
        to_field.SetReferenceImage(grid.to_itk())
        displacement_lps = sitk.GetArrayFromImage(to_field.Execute(self.itk))
        return DisplacementField(torch.from_numpy(displacement_lps * np.array([-1, -1, 1], dtype=np.float32)), grid)


def composite_from_field(
    field: DisplacementField, weight: torch.Tensor, margin_mm: float = 10.0, *, affine: bool = False
) -> SpatialTransform:
    """Make the composite transform whose values on the field's grid are the field's.

    The linear part is the rigid (or affine) transform that fits the field best where ``weight`` is large; the residual
    is a cubic B-spline that has replicate padding outside the grid and fades to zero over a margin wide enough not to
    fold.

    Parameters
    ----------
    field : DisplacementField
        Fixed to moving, on the working grid.
    weight : Tensor, (D, H, W)
        At each voxel, at least zero; for instance the field-of-view mask.
    margin_mm : float
        Smallest width of the fade.
    affine : bool
        Whether the linear part may stretch and shear.
    """
    matrix = field.nearest_affine(weight) if affine else field.nearest_rigid(weight)
    residual = field.relative_to(matrix)
    linear = SpatialTransform.from_matrix(matrix)
    if float(residual.magnitude_mm().max()) < 1e-4:
        return linear
    return SpatialTransform(_bspline(_faded(residual, margin_mm))).then(linear)


def _faded(field: DisplacementField, margin_mm: float) -> DisplacementField:
    """The field on a padded grid: unchanged on its own grid, replicated and faded to zero outside."""
    spacing = float(field.grid.spacing_mm.min())
    # A cosine fade of amplitude a over a width m has slope a·π/(2m); 4 a keeps it below 0.4, far from folding.
    width = max(margin_mm, 4 * _largest_at_border(field))
    fade = math.ceil(width / spacing)
    zeros = CONTROL_STRIDE * (ZERO_RINGS + 3)
    pad = fade + zeros
    channels = field.displacement_mm.permute(3, 0, 1, 2)[None]
    padded = F.pad(channels, (pad,) * 6, mode="replicate")
    for axis, size in enumerate(field.grid.shape):
        outside = (torch.arange(size + 2 * pad) - pad).clamp(max=0).abs()
        outside = torch.maximum(outside, (torch.arange(size + 2 * pad) - pad - size + 1).clamp(min=0))
        window = 0.5 * (1 + torch.cos(math.pi * (outside / fade).clamp(max=1)))
        padded = padded * window.reshape([-1 if axis == a else 1 for a in range(3)])
    return DisplacementField(padded[0].permute(1, 2, 3, 0), field.grid.padded(pad))


def _largest_at_border(field: DisplacementField) -> float:
    magnitude = field.magnitude_mm()
    faces = [magnitude.select(axis, index) for axis in range(3) for index in (0, -1)]
    return max(float(face.max()) for face in faces)


def _bspline(field: DisplacementField) -> sitk.Transform:
    """A cubic B-spline transform that interpolates the field at every `CONTROL_STRIDE`-th voxel."""
    # Every axis of the padded field has many voxels, so plain striding keeps all of it but a zero rim.
    nodes = field.displacement_mm[::CONTROL_STRIDE, ::CONTROL_STRIDE, ::CONTROL_STRIDE]
    scale = np.diag([CONTROL_STRIDE] * 3 + [1.0])
    grid = Grid(cast("tuple[int, int, int]", tuple(nodes.shape[:3])), field.grid.ras_from_ijk @ scale)
    sign_lps = (-1.0, -1.0, 1.0)
    images = []
    for component, sign in enumerate(sign_lps):
        values = nodes[..., component].double().numpy() * sign
        coefficients = sitk.GetArrayFromImage(sitk.BSplineDecomposition(sitk.GetImageFromArray(values), 3))
        for axis in range(3):
            moved = np.moveaxis(coefficients, axis, 0)
            moved[:ZERO_RINGS] = 0
            moved[-ZERO_RINGS:] = 0
        images.append(grid.to_itk(coefficients))
    return sitk.BSplineTransform(images, 3)


def simple_parts(itk: sitk.Transform) -> Iterator[sitk.Transform]:
    """The transforms in ``itk`` that are no composites, in ITK's order: the last one is applied first.

    None of them is downcast: SimpleITK has no class for many of ITK's linear transforms (CenteredAffineTransform,
    ScalableAffineTransform, …), and its own accessors fail on them.
    """
    inner = _inner(itk)
    if not inner or _is_shell(itk):
        yield itk
    for part in inner if not _is_shell(itk) else ():
        yield from simple_parts(part)


def _inner(itk: sitk.Transform) -> list[sitk.Transform]:
    """What a composite holds, not downcast; nothing for another transform."""
    if itk.GetTransformEnum() != sitk.sitkComposite:
        return []
    composite = sitk.CompositeTransform(itk)
    # The public accessor downcasts.
    return [
        unwrapped.CompositeTransform_GetNthTransform(composite, index)
        for index in range(composite.GetNumberOfTransforms())
    ]


def _is_shell(itk: sitk.Transform) -> bool:
    """Whether a composite is the shell in which SimpleITK hands out a transform that it knows nothing of.

    Its only part comes in a shell again, without end.
    """
    for _ in range(_DEEPEST_NESTING):
        inner = _inner(itk)
        if len(inner) != 1 or inner[0].GetTransformEnum() != sitk.sitkComposite:
            return False
        itk = inner[0]
    return True


def _in_order_of_application(itk: sitk.Transform) -> Iterator[sitk.Transform]:
    """The simple transforms in ``itk``, the one applied first in front."""
    return reversed(list(simple_parts(itk)))


def as_affine(linear: sitk.Transform) -> sitk.Transform:
    """Any linear ITK transform as an affine one; raises `GeometryError` where it cannot be inverted."""
    return _itk_affine(_matrix_ras(linear))


def _matrix_ras(linear: sitk.Transform) -> Array:
    """(4, 4), RAS: read off at four points, which holds for every kind of linear ITK transform."""
    origin = np.array(linear.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis in range(3):
        matrix[:3, axis] = np.array(linear.TransformPoint(np.eye(3)[axis].tolist())) - origin
    matrix[:3, 3] = origin
    return ras_from_lps_matrix(matrix)


def _itk_affine(matrix_ras: Array) -> sitk.Transform:
    check_affine(np.asarray(matrix_ras), "the linear transform")
    matrix_lps = lps_from_ras_matrix(matrix_ras)
    affine = sitk.AffineTransform(3)
    affine.SetMatrix([float(v) for v in matrix_lps[:3, :3].ravel()])
    affine.SetTranslation([float(v) for v in matrix_lps[:3, 3]])
    return affine


def check_invertible(transform: SpatialTransform, what: str) -> None:
    """Raise `GeometryError` unless the linear part of ``transform`` can be inverted."""
    try:
        check_affine(transform.linear_ras, what)
    except GeometryError as error:
        raise GeometryError(f"expected {what} to be invertible; got {transform.linear_ras.tolist()}") from error
