"""How far the MR was moved, beyond the linear part of the initial transform."""

from MMRegCore.assessment.maps import MAGNITUDE, MapSpec

MAP = MapSpec(
    "displacement",
    "Displacement",
    "mm",
    "length of the motion that was added to the initial transform",
    colours=MAGNITUDE,
    order=1,
    compute=lambda measured: measured.field.magnitude_mm(),
)
