"""Registration by LC²: rigid first, then a smooth deformation, both where the posterior is largest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from MMRegCore.methods.protocol import Method, Problem, Solution
from MMRegCore.search.settings import SearchSettings
from MMRegCore.settings import Settings, setting


@dataclass(frozen=True)
class Lc2Settings(Settings):
    """Registration by LC² with a prior on the motion (Wein et al. 2008, Fuerst et al. 2014)."""

    search: SearchSettings = SearchSettings()
    iterations: int = setting(30, help="Steps of the deformable refinement at most.", minimum=0, maximum=500)
    tolerance: float = setting(
        5e-5, help="The refinement ends when a step improves the similarity by less than this.", minimum=0, maximum=1
    )


def solve(problem: Problem, settings: Lc2Settings) -> Solution:
    """Maximise ``mean similarity(p) − |p|² / 2N`` over the parameters p of the motion model; N: effective sample size.

    First the rigid part alone, from many translations and from coarse to fine, then the rigid part and a smooth
    deformation together at the finest level.
    """
    from MMRegCore.optimisation.lbfgs import minimise
    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.rigid import find_rigid, posterior_cost

    search, monitor = settings.search, problem.monitor.part(0.35, 1.0)
    model = MotionModel.of(problem.prepared, search.prior)
    rigid = find_rigid(problem.levels, model, search, problem.monitor.part(0.0, 0.35))
    finest = problem.levels.all(search.similarity, search.sampling_spacing_mm, search.half_width)[-1]
    (best,) = minimise(
        posterior_cost(finest, model, search.effective_sample_size),
        [model.from_linear(rigid)],
        iterations=settings.iterations,
        first_step=0.5,
        tolerance=settings.tolerance,
        report=lambda share: monitor.report("deformation", share),
    )
    displacement = model.displacement(best.parameters, problem.prepared.grid.shape)
    return Solution(displacement, affine=search.prior.scale_shear_percent > 0)


def extended(settings: Lc2Settings) -> tuple[Lc2Settings, float] | None:
    """The same over the extended search range."""
    further_mm = settings.search.extended_range_mm - settings.search.range_mm
    if further_mm <= 0:
        return None
    return replace(settings, search=replace(settings.search, range_mm=settings.search.extended_range_mm)), further_mm


METHOD = Method("lc2", Lc2Settings, solve, extended)
