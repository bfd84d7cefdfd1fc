"""Registration by LC²: rigid first, then a smooth deformation, both where the posterior is largest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from MMRegCore.methods.protocol import Extension, Method, Problem, Solution
from MMRegCore.search.settings import SearchSettings
from MMRegCore.settings import Settings, setting

if TYPE_CHECKING:
    import torch

    from MMRegCore.monitor import Monitor
    from MMRegCore.optimisation.lbfgs import Objective
    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.sampled import SampledSimilarity

# In expected sizes of the motion: 3 mm.
_APART = 1.5
# A hypothesis whose posterior at the finest level is that much worse than the best one's is dropped; the others are
# deformed by so many steps before they are compared.
_PLAUSIBLE = 0.02
_BRIEF = 8
# Two places further apart than this, of which neither is better by so many standard errors, are told.
_FAR_MM = 3.0
_SIGNIFICANT = 2.0
# A field of view of so many voxels of the working grid is worth several threads.
_LARGE_VOXELS = 1_000_000


@dataclass(frozen=True)
class Lc2Settings(Settings):
    """Registration by LC² with a prior on the motion (Wein et al. 2008, Fuerst et al. 2014)."""

    search: SearchSettings = SearchSettings()
    iterations: int = setting(30, help="Steps of the deformable refinement at most.", minimum=0, maximum=500)
    tolerance: float = setting(
        5e-5, help="The refinement ends when a step improves the similarity by less than this.", minimum=0, maximum=1
    )


def solve(problem: Problem, settings: Lc2Settings) -> Solution:
    """Maximise ``similarity(p) + log prior(p) / N`` over the parameters p of the motion model; N the effective size.

    First the rigid part alone, from many motions and from coarse to fine, then the rigid part and a smooth deformation
    together at the finest level.  Several rigid parts that are about as good are deformed briefly; the best goes on.
    Landmarks count in all of it.
    """
    from MMRegCore.optimisation.lbfgs import Minimum, minimise
    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.rigid import find_rigid, posterior_cost

    search, monitor = settings.search, problem.monitor
    model = MotionModel.of(problem.prepared, search.prior)
    finest = problem.levels.all(search)[-1]
    cost = posterior_cost(finest, model, search.effective_sample_size, problem.landmarks)

    def deformed(starts: list[torch.Tensor], iterations: int, monitor: Monitor) -> list[Minimum]:
        return minimise(
            cost,
            starts,
            iterations=iterations,
            first_step=0.5,
            tolerance=settings.tolerance,
            at_once=1,
            report=lambda share: monitor.report("deformation", share),
        )

    if problem.start is None:
        hypotheses = find_rigid(problem.levels, model, search, monitor.part(0.0, 0.35), problem.landmarks)
    else:
        hypotheses = [problem.start]
    starts, brief, rival_mm = _plausible(hypotheses, cost), 0, None
    pool = [model.from_linear(start) for start in starts]
    if len(pool) > 1:
        brief = min(_BRIEF, settings.iterations)
        tried = deformed(pool, brief, monitor.part(0.35, 0.6))
        order = sorted(range(len(tried)), key=lambda number: tried[number].value)
        starts, pool = [starts[number] for number in order], [tried[number].parameters for number in order]
        rival_mm = _rival_mm(pool, finest.parts[0][1], model, problem.prepared.spacing_mm)
    (best,) = deformed(pool[:1], settings.iterations - brief, monitor.part(0.6, 1.0))
    displacement = model.displacement(best.parameters, problem.prepared.grid.shape)
    affine = search.prior.scale_shear_percent > 0
    return Solution(displacement, affine=affine, start=starts[0], rival_mm=rival_mm, landmark_use="search")


def _plausible(hypotheses: list[torch.Tensor], cost: Objective) -> list[torch.Tensor]:
    """The hypotheses (12,) whose cost is near the least."""
    import torch

    if len(hypotheses) == 1:
        return hypotheses
    with torch.no_grad():
        costs = torch.cat([cost(hypothesis[None]) for hypothesis in hypotheses]).tolist()
    return [one for one, value in zip(hypotheses, costs, strict=True) if value < min(costs) + _PLAUSIBLE]


def _rival_mm(pool: list[torch.Tensor], finest: SampledSimilarity, model: MotionModel, voxel_mm: float) -> float | None:
    """Mean distance of the best of the motions to the next that is far from it and not significantly worse."""
    from MMRegCore.search.model_selection import improvement_of, local_values

    motion = model.at(finest.points)
    best, *others = (motion(parameters[None])[:, 0] for parameters in pool)
    values = local_values(finest, best)
    for other in others:
        apart_mm = voxel_mm * float((other - best).norm(dim=1).mean())
        better, error = improvement_of(values, local_values(finest, other), finest)
        if apart_mm > _FAR_MM and better < _SIGNIFICANT * error:
            return apart_mm
    return None


def scout(problem: Problem, settings: Lc2Settings) -> torch.Tensor:
    """(12,): the rigid part that the search finds without its finest level."""
    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.rigid import find_rigid

    search = settings.search
    spacing = search.sampling_spacing_mm
    # The finest level only chooses among what the others found; on a grid for scouting the one before it does that.
    coarse = replace(search, sampling_spacing_mm=(*spacing[:-1], *spacing[-2:-1])) if len(spacing) > 1 else search
    model = MotionModel.of(problem.prepared, search.prior)
    best, *_ = find_rigid(problem.levels, model, coarse, problem.monitor, problem.landmarks)
    return best


def is_new(found: torch.Tensor, known: torch.Tensor) -> bool:
    """Whether two rigid parts (12,) are so far apart that a rejected result would not span both."""
    return float((found - known).norm()) > _APART


def extended(settings: Lc2Settings) -> Extension | None:
    """The same over the extended search range."""
    search = settings.search
    further_mm = search.extended_range_mm - search.range_mm
    if further_mm <= 0:
        return None
    wide = replace(settings, search=replace(search, range_mm=search.extended_range_mm))
    return Extension(wide, further_mm, search.sampling_spacing_mm[0] / 3, scout, is_new)


def threads(problem: Problem) -> int | None:
    """One, but for large fields of view.

    Tens of thousands of samples are little work for each of many operations: a second thread gains nothing on idle
    cores and loses much on busy ones. And with one thread results do not depend on how many there are.
    """
    weight = problem.prepared.fixed.weight
    return 1 if weight.device.type == "cpu" and int((weight > 0).sum()) < _LARGE_VOXELS else None


METHOD = Method("lc2", Lc2Settings, solve, extended, threads)
