"""How far forward and backward registration are from being each other's inverse; given by methods that do both."""

from MMRegCore.assessment.maps import MAGNITUDE, MapSpec

MAP = MapSpec(
    "inverse_consistency_error",
    "Inverse consistency error",
    "mm",
    "distance from where a point comes back to, forward and backward",
    colours=MAGNITUDE,
    order=3,
)
