"""What a method gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Solution:
    """What a method gives back.

    Attributes
    ----------
    displacement_voxel : Tensor, (1, 3, D, H, W)
        Fixed to moving, components (d, h, w) in voxels of the working grid.
    maps : mapping of str to Tensor, (1, 1, D, H, W)
        What else the method knows of each voxel, on the working grid; the name says the unit.
    """

    displacement_voxel: torch.Tensor
    maps: Mapping[str, torch.Tensor]

    def to(self, device: torch.device) -> Solution:
        """The same on another device."""
        return Solution(self.displacement_voxel.to(device), {name: m.to(device) for name, m in self.maps.items()})
