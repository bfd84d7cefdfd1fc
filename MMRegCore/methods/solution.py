"""What a registration comes to on the working grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from MMRegCore.methods.choice import Choice


@dataclass(frozen=True, eq=False)
class Solution:
    """What a method finds, and what was made of it.

    Attributes
    ----------
    displacement_voxel : Tensor, (1, 3, D, H, W)
        Fixed to moving, components (d, h, w) in voxels of the working grid.
    maps : mapping of str to Tensor, (1, 1, D, H, W)
        What else is known of each voxel, on the working grid; the name says the unit.
    choice : Choice, optional
        What competed; None for a method's result as it is.
    """

    displacement_voxel: torch.Tensor
    maps: Mapping[str, torch.Tensor]
    choice: Choice | None = None

    def cpu(self) -> Solution:
        """The same, field and maps on the CPU."""
        maps = {name: values.cpu() for name, values in self.maps.items()}
        return replace(self, displacement_voxel=self.displacement_voxel.cpu(), maps=maps)
