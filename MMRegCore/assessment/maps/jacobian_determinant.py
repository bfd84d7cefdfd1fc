"""Local volume change of the transform."""

from MMRegCore.assessment.maps import DIVERGING, MapSpec

MAP = MapSpec(
    "jacobian_determinant",
    "Volume change (Jacobian determinant)",
    "",
    "MR stretched ← 1 → MR squeezed; 0 or less folds",
    colours=DIVERGING,
    order=2,
    middle=1.0,
    background=1.0,
    compute=lambda measured: measured.field.jacobian_determinant(),
)
