"""What a registration method is: settings, and a function from a problem to a solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from MMRegCore.search.selection import LandmarkUse
from MMRegCore.settings import Settings

if TYPE_CHECKING:
    import torch

    from MMRegCore.monitor import Monitor
    from MMRegCore.prepare import Prepared
    from MMRegCore.search.landmarks import LandmarkTerm
    from MMRegCore.search.sampled import Levels


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method is given."""

    prepared: Prepared  # the images on the working grid, on the device where the work is to happen
    levels: Levels  # their sampled similarities, shared with model selection
    memory_bytes: int  # what the run may use
    monitor: Monitor  # takes progress; can cancel
    start: torch.Tensor | None = None  # where to begin, as `Extension.scout` found it; else that is searched for
    landmarks: LandmarkTerm | None = None  # further evidence, for methods that can weigh it


@dataclass(frozen=True, eq=False)
class Solution:
    """What a method finds."""

    # (1, 3, D, H, W): fixed to moving, components (d, h, w) in voxels of the working grid.
    displacement_voxel: torch.Tensor
    # (1, 1, D, H, W) on the working grid: what else is known of each voxel, by the names of `assessment.maps`.
    maps: Mapping[str, torch.Tensor] = field(default_factory=dict)
    affine: bool = False  # whether the linear part of the result may scale and shear
    start: torch.Tensor | None = None  # where it began, as `Extension.scout` tells it
    rival_mm: float | None = None  # how far away another result is that fits about as well
    landmark_use: LandmarkUse = "start"  # what the method did with landmarks, where there are any

    def cpu(self) -> Solution:
        """The same on the CPU."""
        maps = {name: values.cpu() for name, values in self.maps.items()}
        start = None if self.start is None else self.start.cpu()
        return replace(self, displacement_voxel=self.displacement_voxel.cpu(), maps=maps, start=start)


@dataclass(frozen=True)
class Extension:
    """A second search, which looks further, where the result of the first would be rejected."""

    settings: Settings  # of the method
    further_mm: float  # how much further it looks
    spacing_mm: float  # voxel size of the working grid that suffices for looking
    scout: Callable[[Problem, Any], torch.Tensor]  # from the `Problem` on such a grid and the settings to a beginning
    is_new: Callable[[torch.Tensor, torch.Tensor], bool]  # whether a first beginning is another one than a second


def _never(settings: Any) -> None:  # noqa: ANN401
    return None


def _all(problem: Problem) -> None:
    return None


@dataclass(frozen=True)
class Method:
    """One registration method.

    A method's module imports torch and what needs it within ``solve``, so that help and forms need not wait for it.
    """

    name: str  # as settings, presets and the command line call it
    settings: type[Settings]
    solve: Callable[[Problem, Any], Solution]  # from a `Problem` and the settings to a `Solution`
    # From the settings to the second search; None where there is none.
    extended: Callable[[Any], Extension | None] = _never
    # How many threads are worth their trouble on a CPU; None for all that there are.
    threads: Callable[[Problem], int | None] = _all
