"""Registration by LC²: rigid first, then a smooth deformation, both where the posterior is largest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from MMRegCore.methods.protocol import Extension, Method, Problem, Solution
from MMRegCore.search.settings import SearchSettings
from MMRegCore.settings import Settings, setting

if TYPE_CHECKING:
    import torch

# In expected sizes of the motion, 3 to 4 mm.
_APART = 0.7
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
    """Maximise ``mean similarity(p) − |p|² / 2N`` over the parameters p of the motion model; N: effective sample size.

    First the rigid part alone, from many translations and from coarse to fine, then the rigid part and a smooth
    deformation together at the finest level.  Landmarks count in both.
    """
    from MMRegCore.optimisation.lbfgs import minimise
    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.rigid import find_rigid, posterior_cost

    search, monitor = settings.search, problem.monitor.part(0.35, 1.0)
    model = MotionModel.of(problem.prepared, search.prior)
    rigid = problem.start
    if rigid is None:
        rigid = find_rigid(problem.levels, model, search, problem.monitor.part(0.0, 0.35), problem.landmarks)
    finest = problem.levels.all(search.similarity, search.sampling_spacing_mm, search.half_width)[-1]
    (best,) = minimise(
        posterior_cost(finest, model, search.effective_sample_size, problem.landmarks),
        [model.from_linear(rigid)],
        iterations=settings.iterations,
        first_step=0.5,
        tolerance=settings.tolerance,
        report=lambda share: monitor.report("deformation", share),
    )
    displacement = model.displacement(best.parameters, problem.prepared.grid.shape)
    affine = search.prior.scale_shear_percent > 0
    return Solution(displacement, affine=affine, start=rigid, landmark_use="search")


def scout(problem: Problem, settings: Lc2Settings) -> torch.Tensor:
    """(12,): the rigid part that the search finds without its finest level."""
    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.rigid import find_rigid

    search = settings.search
    spacing = search.sampling_spacing_mm
    # The finest level only chooses among what the others found; on a grid for scouting the one before it does that.
    coarse = replace(search, sampling_spacing_mm=(*spacing[:-1], *spacing[-2:-1])) if len(spacing) > 1 else search
    model = MotionModel.of(problem.prepared, search.prior)
    return find_rigid(problem.levels, model, coarse, problem.monitor, problem.landmarks)


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
    return Extension(wide, further_mm, search.sampling_spacing_mm[0] / 2, scout, is_new)


def threads(problem: Problem) -> int | None:
    """One, but for large fields of view.

    Tens of thousands of samples are little work for each of many operations: a second thread gains nothing on idle
    cores and loses much on busy ones. And with one thread results do not depend on how many there are.
    """
    weight = problem.prepared.fixed.weight
    return 1 if weight.device.type == "cpu" and int((weight > 0).sum()) < _LARGE_VOXELS else None


METHOD = Method("lc2", Lc2Settings, solve, extended, threads)
