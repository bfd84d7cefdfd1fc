"""What a registration method is: settings, and a function from a problem to a solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from MMRegCore.settings import Settings

if TYPE_CHECKING:
    import torch

    from MMRegCore.monitor import Monitor
    from MMRegCore.prepare import Prepared
    from MMRegCore.search.sampled import Levels


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method is given."""

    prepared: Prepared  # the images on the working grid, on the device where the work is to happen
    levels: Levels  # their sampled similarities, shared with model selection
    memory_bytes: int  # what the run may use
    monitor: Monitor  # takes progress; can cancel


@dataclass(frozen=True, eq=False)
class Solution:
    """What a method finds."""

    # (1, 3, D, H, W): fixed to moving, components (d, h, w) in voxels of the working grid.
    displacement_voxel: torch.Tensor
    # (1, 1, D, H, W) on the working grid: what else is known of each voxel, by the names of `assessment.maps`.
    maps: Mapping[str, torch.Tensor] = field(default_factory=dict)
    affine: bool = False  # whether the linear part of the result may scale and shear

    def cpu(self) -> Solution:
        """The same on the CPU."""
        maps = {name: values.cpu() for name, values in self.maps.items()}
        return Solution(self.displacement_voxel.cpu(), maps, self.affine)


def _never(settings: Any) -> None:  # noqa: ANN401
    return None


@dataclass(frozen=True)
class Method:
    """One registration method.

    A method's module imports torch and what needs it within ``solve``, so that help and forms need not wait for it.
    """

    name: str  # as settings, presets and the command line call it
    settings: type[Settings]
    solve: Callable[[Problem, Any], Solution]  # from a `Problem` and the settings to a `Solution`
    # From the settings to those of a second search where the first result would be rejected, and how many mm further
    # that looks; None where there is none.
    extended: Callable[[Any], tuple[Settings, float] | None] = _never
