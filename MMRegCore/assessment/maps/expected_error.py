"""Expected length of the registration's error; made by `MMRegCore.assessment.expected_error`."""

from MMRegCore.assessment.maps import RISK, MapSpec

# One scale for all results: three millimetres is where a result is rejected.
MAP = MapSpec(
    "expected_error", "Expected error", "mm", "dark red: do not rely on it", colours=RISK, order=0, limits=(0.0, 4.0)
)
