"""From a prepared pair to the result that can be defended: method, choice, expected error."""

from __future__ import annotations

from MMRegCore.config import RegistrationSettings
from MMRegCore.methods.choice import choose
from MMRegCore.methods.confidence import expected_error_mm
from MMRegCore.methods.dns import dns
from MMRegCore.methods.lc2 import agreement_levels, lc2
from MMRegCore.methods.learned import LEARNED, learned
from MMRegCore.methods.mcbo import mcbo
from MMRegCore.methods.solution import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.preprocess import Prepared
from MMRegCore.qa.verdict import REJECTED_MM


def solve(prepared: Prepared, settings: RegistrationSettings, memory_bytes: int, monitor: Monitor) -> Solution:
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
        return found
    monitor.report("comparing with the start", 0.93)
    finest = agreement_levels(prepared, settings.lc2)[-1]
    choice = choose(prepared, found.displacement_voxel, finest, settings.choice)
    displacement = choice.chosen.displacement_voxel
    error = expected_error_mm(prepared, displacement, finest)
    return Solution(displacement, {**found.maps, "expected_error_mm": error}, choice)


def is_doubtful(solution: Solution, prepared: Prepared) -> bool:
    """Whether the verdict on a solution's expected error would be to reject it; not where that was not estimated."""
    error = solution.maps.get("expected_error_mm")
    return error is not None and bool(error[prepared.fixed_weight > 0].mean() > REJECTED_MM)


def _found(prepared: Prepared, settings: RegistrationSettings, memory_bytes: int, monitor: Monitor) -> Solution:
    if settings.method == "lc2":
        return lc2(prepared, settings.lc2, monitor)
    if settings.method == "dns":
        return dns(prepared, settings.dns, settings.lc2, monitor)
    if settings.method in LEARNED:
        return learned(prepared, settings.method, settings.learned, settings.fusion, monitor)
    return mcbo(prepared, settings.mcbo, settings.fusion, memory_bytes, monitor)
