"""How good a registration is, measured against what is known."""

from MMRegCore.evaluate.landmarks import paired_points, target_registration_error

__all__ = ["paired_points", "target_registration_error"]
