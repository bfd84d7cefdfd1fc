"""What a registration method is: settings, and a function from a problem to a solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from MMRegCore.settings import Settings

if TYPE_CHECKING:
    import torch

    from MMRegCore.monitor import Monitor
    from MMRegCore.prepare import Prepared
    from MMRegCore.search.sampled import Levels


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method is given.

    Attributes
    ----------
    prepared : Prepared
        The images on the working grid, on the device where the work is to happen.
    levels : Levels
        Their sampled similarities, shared with model selection.
    memory_bytes : int
        What the run may use.
    monitor : Monitor
        Takes progress; can cancel.
    start : Tensor, optional
        Where to begin, as `Extension.scout` found it; otherwise that is searched for.
    """

    prepared: Prepared
    levels: Levels
    memory_bytes: int
    monitor: Monitor
    start: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Solution:
    """What a method finds.

    Attributes
    ----------
    displacement_voxel : Tensor, (1, 3, D, H, W)
        Fixed to moving, components (d, h, w) in voxels of the working grid.
    maps : mapping of str to Tensor, (1, 1, D, H, W)
        What else is known of each voxel, on the working grid, by the names of `MMRegCore.assessment.maps`.
    affine : bool
        Whether the linear part of the result may scale and shear.
    start : Tensor, optional
        Where it began, as `Extension.scout` tells it.
    """

    displacement_voxel: torch.Tensor
    maps: Mapping[str, torch.Tensor] = field(default_factory=dict)
    affine: bool = False
    start: torch.Tensor | None = None

    def cpu(self) -> Solution:
        """The same on the CPU."""
        maps = {name: values.cpu() for name, values in self.maps.items()}
        start = None if self.start is None else self.start.cpu()
        return replace(self, displacement_voxel=self.displacement_voxel.cpu(), maps=maps, start=start)


@dataclass(frozen=True)
class Extension:
    """A second search, which looks further, where the result of the first would be rejected.

    Attributes
    ----------
    settings : Settings
        Of the method.
    further_mm : float
        How much further it looks.
    spacing_mm : float
        Voxel size of the working grid that suffices for looking.
    scout : callable
        From the `Problem` on such a grid and the settings to where to begin.
    is_new : callable
        Whether a first such place is another one than a second.
    """

    settings: Settings
    further_mm: float
    spacing_mm: float
    scout: Callable[[Problem, Any], torch.Tensor]
    is_new: Callable[[torch.Tensor, torch.Tensor], bool]


def _never(settings: Any) -> None:  # noqa: ANN401
    return None


@dataclass(frozen=True)
class Method:
    """One registration method.

    A method's module imports torch and what needs it within ``solve``, so that help and forms need not wait for it.

    Attributes
    ----------
    name : str
        As settings, presets and the command line call it.
    settings : type of Settings
    solve : callable
        From a `Problem` and the settings to a `Solution`.
    extended : callable
        From the settings to the second search; None where there is none.
    """

    name: str
    settings: type[Settings]
    solve: Callable[[Problem, Any], Solution]
    extended: Callable[[Any], Extension | None] = _never
