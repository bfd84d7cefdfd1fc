"""From a prepared pair to the result that can be defended: method, choice, expected error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from MMRegCore.config import RegistrationSettings
from MMRegCore.methods.choice import Choice, choose
from MMRegCore.methods.confidence import expected_error_mm
from MMRegCore.methods.lc2 import agreement_levels, lc2
from MMRegCore.methods.mcbo import mcbo
from MMRegCore.methods.solution import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.preprocess import Prepared


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a registration comes to on the working grid.

    Attributes
    ----------
    displacement_voxel : Tensor, (1, 3, D, H, W)
        Fixed to moving, components (d, h, w) in voxels of the working grid.
    maps : mapping of str to Tensor, (1, 1, D, H, W)
        What is known of each voxel, on the working grid; the name says the unit.
    choice : Choice, optional
        What competed; None where the settings want the method's result as it is.
    """

    displacement_voxel: torch.Tensor
    maps: Mapping[str, torch.Tensor]
    choice: Choice | None

    def cpu(self) -> Outcome:
        """The same, field and maps on the CPU."""
        maps = {name: values.cpu() for name, values in self.maps.items()}
        return Outcome(self.displacement_voxel.cpu(), maps, self.choice)


def solve(prepared: Prepared, settings: RegistrationSettings, memory_bytes: int, monitor: Monitor) -> Outcome:
    """Run the method of the settings and let its result compete with the start and with its rigid part.

    Parameters
    ----------
    prepared : Prepared
        On the device where the work is to happen.
    settings : RegistrationSettings
    memory_bytes : int
        What the run may use.
    monitor : Monitor
    """
    found = _found(prepared, settings, memory_bytes, monitor.part(0.0, 0.93))
    if not settings.choice.compete:
        return Outcome(found.displacement_voxel, found.maps, None)
    monitor.report("comparing with the start", 0.93)
    finest = agreement_levels(prepared, settings.lc2)[-1]
    choice = choose(prepared, found.displacement_voxel, finest, settings.choice)
    displacement = choice.chosen.displacement_voxel
    error = expected_error_mm(prepared, displacement, finest)
    return Outcome(displacement, {**found.maps, "expected_error_mm": error}, choice)


def _found(prepared: Prepared, settings: RegistrationSettings, memory_bytes: int, monitor: Monitor) -> Solution:
    if settings.method == "lc2":
        return lc2(prepared, settings.lc2, monitor)
    return mcbo(prepared, settings.mcbo, settings.fusion, memory_bytes, monitor)
