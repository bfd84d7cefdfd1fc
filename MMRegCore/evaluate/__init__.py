"""How good a registration is, measured against what is known."""

from MMRegCore.evaluate.landmarks import paired_points, target_registration_error
from MMRegCore.evaluate.overlap import dice

__all__ = ["dice", "paired_points", "target_registration_error"]
