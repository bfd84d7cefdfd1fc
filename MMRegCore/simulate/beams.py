"""Samples along the beams of a swept cone: where an ultrasound image is formed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from MMRegCore.geometry import Array, Shape
from MMRegCore.simulate.craniotomy import Cone
from MMRegCore.simulate.noise import random_stream, smooth_noise

# Beam sampling: finer than the point spread in every direction.
_SWEEP_STEP_MM = 0.45
_DEPTH_STEP_MM = 0.25
_BEAM_STEP_RAD = math.radians(0.38)


@dataclass(frozen=True, eq=False)
class BeamGrid:
    """Evenly spaced samples of the beams: arrays are (S, A, R) = (sweep, angle, depth)."""

    low: Array  # (3,): beam coordinates of the first sample; see `Cone`
    step: Array  # (3,): from sample to sample
    shape: Shape
    points_ras: Array  # (S, A, R, 3), RAS mm
    radius_mm: torch.Tensor  # (R,): from the virtual apex of the beams

    @classmethod
    def of(cls, cone: Cone) -> BeamGrid:
        """Those of a cone."""
        low, high = cone.low, cone.high
        wanted = np.array([_SWEEP_STEP_MM, _BEAM_STEP_RAD, _DEPTH_STEP_MM])
        counts = np.ceil((high - low) / wanted).astype(int) + 1
        coordinates = cone.sampling_grid(counts.tolist())
        radius = torch.from_numpy(cone.settings.apex_mm + coordinates[0, 0, :, 2]).float()
        step = (high - low) / (counts - 1)
        return cls(low, step, cast(Shape, coordinates.shape[:3]), cone.points_ras(coordinates), radius)

    @property
    def depth_mm(self) -> torch.Tensor:
        """(R,)."""
        return self.radius_mm - self.radius_mm[0]

    def sigma_voxel(self, sweep_mm: float, lateral_mm: float, depth_mm: float) -> tuple[float, float, float]:
        """Standard deviations in mm, lateral at half depth, in samples."""
        middle_mm = float(self.radius_mm[len(self.radius_mm) // 2])
        return (
            sweep_mm / float(self.step[0]),
            lateral_mm / (float(self.step[1]) * middle_mm),
            depth_mm / float(self.step[2]),
        )

    def noise(self, name: str, seed: int, sweep_mm: float, lateral_mm: float, depth_mm: float) -> torch.Tensor:
        """(S, A, R): `smooth_noise` with these standard deviations in mm."""
        sigma = self.sigma_voxel(sweep_mm, lateral_mm, depth_mm)
        return smooth_noise(self.shape, sigma, random_stream(seed, name))
