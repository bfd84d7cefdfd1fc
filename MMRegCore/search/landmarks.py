"""Corresponding landmarks as evidence: the start that they give, and what they add to the posterior of a motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Array, Grid, transform_points
from MMRegCore.optimisation.lbfgs import Objective
from MMRegCore.prepare import Prepared
from MMRegCore.search.motion_model import MotionModel
from MMRegCore.search.selection import LandmarkMotion
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

# Landmarks may lie outside their image by so many of their standard deviations: nobody sees where they are placed then.
_OUTSIDE = 4.0
# A rotation that the landmarks determine no better than to this angle (20°) is not taken from them.
_LARGEST_DOUBT_RAD = 0.35
_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class LandmarkPairs:
    """Corresponding points of the fixed and the moving images.

    Attributes
    ----------
    fixed_ras, moving_ras : ndarray, (N, 3), float64
        RAS mm, in the same order.
    error_mm : float
        Standard deviation, along each axis, of where a moving point is set from where its fixed partner belongs.
    labels : tuple of str
        What they are called in messages; their number in the list where empty.

    Raises
    ------
    InputError
        When there is none, the numbers of points differ, a coordinate is not finite, two points of an image are the
        same, or the error is not a positive number.
    """

    fixed_ras: Array
    moving_ras: Array
    error_mm: float
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fixed, moving = _points(self.fixed_ras, "fixed"), _points(self.moving_ras, "moving")
        if len(fixed) != len(moving) or len(fixed) == 0:
            raise InputError(
                f"expected as many fixed as moving landmarks, at least one; got {len(fixed)} fixed and {len(moving)} "
                "moving"
            )
        if not (np.isfinite(self.error_mm) and self.error_mm > 0):
            raise InputError(f"expected an error of the landmarks above 0 mm; got {self.error_mm:g}")
        named = self.labels if len(self.labels) == len(fixed) else ("",) * len(fixed)
        labels = tuple(label.strip() or str(number) for number, label in enumerate(named, 1))
        for points, where in ((fixed, "fixed"), (moving, "moving")):
            _check_apart(points, labels, where)
        for name, value in (("fixed_ras", fixed), ("moving_ras", moving), ("labels", labels)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.fixed_ras)

    def check_inside(self, fixed: Volume, moving: Sequence[Volume]) -> None:
        """Raise `InputError` where a landmark lies outside its image (of several moving ones, outside all of them)."""
        for points, images in ((self.fixed_ras, [fixed]), (self.moving_ras, moving)):
            outside_mm = np.min([_outside_mm(image.grid, points) for image in images], axis=0)
            worst = int(outside_mm.argmax())
            if outside_mm[worst] > _OUTSIDE * self.error_mm:
                place = ", ".join(f"{value:.1f}" for value in points[worst])
                names = " and ".join(f"'{image.name}'" for image in images)
                raise InputError(
                    f"expected landmarks in their images, in RAS mm; got landmark {self.labels[worst]} at ({place}), "
                    f"{outside_mm[worst]:.0f} mm outside of {names}"
                )

    def residuals_mm(self, transform: SpatialTransform) -> Array:
        """(N,): distance of each moving landmark from where the transform takes its fixed partner, mm."""
        return np.asarray(np.linalg.norm(transform.apply(self.fixed_ras) - self.moving_ras, axis=1))

    def start(self, initial: SpatialTransform) -> LandmarkStart:
        """The motion that brings the landmarks together best after an initial transform.

        A rigid transform by least squares (Kabsch 1976); the mean translation where there are fewer than three pairs,
        or they lie so close to one line that they leave the rotation about it open.
        """
        reached = initial.apply(self.fixed_ras)
        from_mean, to_mean = reached.mean(axis=0), self.moving_ras.mean(axis=0)
        before, after = reached - from_mean, self.moving_ras - to_mean
        across_mm = min(
            float(np.linalg.svd(each, compute_uv=False)[1]) if len(self) > 1 else 0.0 for each in (before, after)
        )
        motion: LandmarkMotion = "translation"
        rotation = np.eye(3)
        if len(self) >= 3 and self.error_mm < _LARGEST_DOUBT_RAD * across_mm:
            motion = "rigid"
            u, _, vt = np.linalg.svd(before.T @ after)
            rotation = vt.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
        matrix = np.eye(4)
        matrix[:3, :3] = rotation
        matrix[:3, 3] = to_mean - rotation @ from_mean
        return LandmarkStart(self, motion, matrix, initial)

    def on(self, prepared: Prepared, start: SpatialTransform, *, replaces_prior: bool = False) -> LandmarkTerm:
        """The landmarks on the working grid of a pair that was prepared under that start."""
        grid, device = prepared.grid, prepared.fixed.image.device

        def voxel(points_ras: Array) -> torch.Tensor:
            ijk = transform_points(grid.ijk_from_ras, points_ras)
            return torch.from_numpy(ijk[:, ::-1].copy()).float().to(device)

        there = voxel(start.apply_inverse(self.moving_ras))
        return LandmarkTerm(voxel(self.fixed_ras), there, self.error_mm / prepared.spacing_mm, replaces_prior)


@dataclass(frozen=True, eq=False)
class LandmarkStart:
    """Where a registration starts by its landmarks.

    Attributes
    ----------
    pairs : LandmarkPairs
    motion : {'rigid', 'translation'}
    matrix_ras : ndarray, (4, 4)
        What follows the initial transform, RAS mm.
    initial : SpatialTransform
        Fixed to moving, as it was given.
    """

    pairs: LandmarkPairs
    motion: LandmarkMotion
    matrix_ras: Array
    initial: SpatialTransform

    @property
    def transform(self) -> SpatialTransform:
        """Both, fixed to moving."""
        return self.initial.then(SpatialTransform.from_matrix(self.matrix_ras))

    def on(self, prepared: Prepared) -> LandmarkTerm:
        """The landmarks on the working grid of a pair that was prepared under `transform`."""
        return self.pairs.on(prepared, self.transform, replaces_prior=self.motion == "rigid")


@dataclass(frozen=True, eq=False)
class LandmarkTerm:
    """Minus the log-likelihood of landmarks under a motion.

    Attributes
    ----------
    fixed, moving : Tensor, (N, 3)
        Voxels (d, h, w) of the working grid: the fixed landmarks, and where the MR has their partners under the
        start.
    error_voxel : float
        Standard deviation along each axis.
    replaces_prior : bool
        Whether they determine the rigid motion.  Then they are all that is known of it beforehand: the start that they
        gave, about which the prior lies, is theirs too and must not count a second time.
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    error_voxel: float
    replaces_prior: bool

    def cost(self, model: MotionModel) -> Objective:
        """``½ Σ |T(fixed) − moving|² / σ²`` of parameters (K, n), as (K,); less the rigid prior if it is replaced."""
        motion = model.at(self.fixed)

        def cost(parameters: torch.Tensor) -> torch.Tensor:
            missed = (motion(parameters) - self.moving[:, None]) / self.error_voxel
            cost = 0.5 * missed.square().sum(dim=(0, 2))
            return cost - model.rigid_surprise(parameters) if self.replaces_prior else cost

        return cost


def _points(values: Array, where: str) -> Array:
    """(N, 3), float64, read-only."""
    points = np.array(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"expected {where} landmarks of three coordinates, (N, 3); got an array {points.shape}")
    if not np.isfinite(points).all():
        raise InputError(f"expected finite coordinates of landmarks; got {points.tolist()}")
    points.setflags(write=False)
    return points


def _check_apart(points: Array, labels: Sequence[str], where: str) -> None:
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    same = np.argwhere(np.triu(distance <= _SAME_PLACE_MM, 1))
    if len(same):
        first, second = (labels[number] for number in same[0])
        raise InputError(f"expected landmarks at different places; got {where} landmarks {first} and {second} at one")


def _outside_mm(grid: Grid, points_ras: Array) -> Array:
    """(N,): how far points lie outside of a grid's box, mm."""
    ijk = transform_points(grid.ijk_from_ras, points_ras)
    within = np.clip(ijk, -0.5, np.array(grid.itk_size) - 0.5)
    return np.asarray(np.linalg.norm((ijk - within) * grid.spacing_mm, axis=1))
