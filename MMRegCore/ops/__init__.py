"""The arithmetic that every part of MMReg shares: tensors in, tensors out, nothing kept.

Volumes are (B, C, D, H, W).  Positions and displacements are (B, 3, D, H, W) with components (d, h, w) in voxels; there
is no other order inside MMReg.
"""

from MMRegCore.ops.fields import (
    diffusion_energy,
    gradient_magnitude,
    integrate_velocity,
    jacobian_determinant,
    upsample_field,
)
from MMRegCore.ops.filters import avg_pool, box_mean, gaussian_blur, upsample
from MMRegCore.ops.matrices import matrix_exp
from MMRegCore.ops.patches import Lattice, Patches
from MMRegCore.ops.points import PointSampler
from MMRegCore.ops.rotation import rotation_angle, rotation_matrix
from MMRegCore.ops.row_sums import RowSums
from MMRegCore.ops.sampling import identity_positions, inside, positions_between, resize, sample, warp
from MMRegCore.ops.tiling import Tile, tiles

__all__ = [
    "Lattice",
    "Patches",
    "PointSampler",
    "RowSums",
    "Tile",
    "avg_pool",
    "box_mean",
    "diffusion_energy",
    "gaussian_blur",
    "gradient_magnitude",
    "identity_positions",
    "inside",
    "integrate_velocity",
    "jacobian_determinant",
    "matrix_exp",
    "positions_between",
    "resize",
    "rotation_angle",
    "rotation_matrix",
    "sample",
    "tiles",
    "upsample",
    "upsample_field",
    "warp",
]
