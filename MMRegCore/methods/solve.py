"""From a prepared pair to the result that can be defended: method, choice, expected error."""

from __future__ import annotations

from dataclasses import replace

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
    wide = settings.lc2.wide_reach_mm
    if not settings.choice.compete or settings.method != "lc2" or wide <= settings.lc2.reach_mm:
        return _attempt(prepared, settings, memory_bytes, monitor)
    solution = _attempt(prepared, settings, memory_bytes, monitor.part(0.0, 0.5))
    if not _doubtful(solution, prepared):
        return solution
    # The start may be further off than expected: look further, and take what is found only if it is beyond doubt.
    further = replace(settings, lc2=replace(settings.lc2, reach_mm=wide))
    again = _attempt(prepared, further, memory_bytes, monitor.part(0.5, 1.0, "wider"))
    return solution if _doubtful(again, prepared) else again


def _attempt(prepared: Prepared, settings: RegistrationSettings, memory_bytes: int, monitor: Monitor) -> Solution:
    found = _found(prepared, settings, memory_bytes, monitor.part(0.0, 0.93))
    if not settings.choice.compete:
        return found
    monitor.report("comparing with the start", 0.93)
    finest = agreement_levels(prepared, settings.lc2)[-1]
    choice = choose(prepared, found.displacement_voxel, finest, settings.choice)
    displacement = choice.chosen.displacement_voxel
    error = expected_error_mm(prepared, displacement, finest)
    return Solution(displacement, {**found.maps, "expected_error_mm": error}, choice)


def _doubtful(solution: Solution, prepared: Prepared) -> bool:
    inside = prepared.fixed_weight > 0
    return bool(solution.maps["expected_error_mm"][inside].mean() > REJECTED_MM)


def _found(prepared: Prepared, settings: RegistrationSettings, memory_bytes: int, monitor: Monitor) -> Solution:
    if settings.method == "lc2":
        return lc2(prepared, settings.lc2, monitor)
    if settings.method == "dns":
        return dns(prepared, settings.dns, settings.lc2, monitor)
    if settings.method in LEARNED:
        return learned(prepared, settings.method, settings.learned, settings.fusion, monitor)
    return mcbo(prepared, settings.mcbo, settings.fusion, memory_bytes, monitor)
