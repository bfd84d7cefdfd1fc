"""Registration from images to result: prepare → solve → compose → assess."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from MMRegCore.assessment.assess import assess
from MMRegCore.assessment.expected_error import expected_error_mm
from MMRegCore.assessment.landmarks import given_landmarks
from MMRegCore.assessment.quality import Verdict
from MMRegCore.assessment.verdict import REJECTED_MM
from MMRegCore.config import DEFAULT_PRESET, RegistrationSettings, load_preset
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import DeviceError, InputError
from MMRegCore.evaluate.landmarks import paired_points
from MMRegCore.geometry import Array
from MMRegCore.intensities import levelled_volume, without_outliers, without_padding
from MMRegCore.io.landmarks import Landmarks
from MMRegCore.methods import find_method
from MMRegCore.methods.protocol import Extension, Problem, Solution
from MMRegCore.monitor import Monitor
from MMRegCore.ops import positions_between, sample
from MMRegCore.prepare import Prepared, check_image, crop_to_foreground, prepare
from MMRegCore.provenance import (
    InitialTransformRecord,
    LandmarkRecord,
    Provenance,
    SecondSearch,
    WorkingGrid,
    image_record,
    versions,
)
from MMRegCore.result import RegistrationResult
from MMRegCore.runtime import memory_budget_bytes, peak_memory_bytes, resolve_device
from MMRegCore.search.landmarks import LandmarkPairs, LandmarkStart
from MMRegCore.search.model_selection import select_model
from MMRegCore.search.sampled import Levels
from MMRegCore.search.selection import ModelSelection
from MMRegCore.segmentation.brain import with_brain
from MMRegCore.segmentation.field_of_view import with_field_of_view
from MMRegCore.threads import at_most
from MMRegCore.transform import SpatialTransform, check_invertible, composite_from_field
from MMRegCore.volume import Volume, distinctly_named

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")

# How far around the field of view the deformation is kept as it was found, before it fades.
_KEPT_MARGIN_MM = 4.0


@dataclass(frozen=True, eq=False)
class _Attempt:
    """One search: the images as it saw them, what it found and selected, where it ran."""

    prepared: Prepared
    solution: Solution
    selection: ModelSelection | None
    device: torch.device

    @property
    def is_doubtful(self) -> bool:
        """Whether its expected error is one to be rejected; not where that was not estimated."""
        error = self.solution.maps.get("expected_error")
        return error is not None and bool(error[self.prepared.fixed.weight > 0].mean() > REJECTED_MM)


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same from search to search."""

    fixed: Volume
    moving: Sequence[Volume]
    initial: SpatialTransform
    device: torch.device
    memory_gb: float | None
    landmarks: LandmarkStart | None
    timings: dict[str, float]


def register(
    fixed: Volume,
    moving: Volume | Sequence[Volume],
    *,
    settings: RegistrationSettings | str = DEFAULT_PRESET,
    initial_transform: SpatialTransform | None = None,
    landmarks: tuple[Landmarks | Array, Landmarks | Array] | None = None,
    landmark_error_mm: float = 2.0,
    device: str = "auto",
    memory_gb: float | None = None,
    seed: int = 0,
    on_transform: Callable[[SpatialTransform, Verdict], None] = lambda *_: None,
    monitor: Monitor | None = None,
) -> RegistrationResult:
    """Register one or several moving images (MR) to a fixed image (ultrasound).

    Parameters
    ----------
    fixed : Volume
        Its mask is its foreground; without one the field of view is found automatically.
    moving : Volume or sequence of Volume
        Images of one patient space (several contrasts), each with an optional mask.
    settings : RegistrationSettings or str
        Settings, or the name of a preset.
    initial_transform : SpatialTransform, optional
        Fixed to moving, any kind; identity when None.
    landmarks : pair of Landmarks or of ndarray (N, 3), optional
        Corresponding points, fixed and moving, RAS mm, paired as by `target_registration_error`.  What brings them
        together best follows the initial transform: a rigid transform of three or more pairs, a translation of fewer
        or of pairs on one line.  Methods that search by a posterior (``lc2``, the rigid search of ``dns``) weigh them
        there as evidence, too.
    landmark_error_mm : float
        Standard deviation of a landmark along each axis.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    memory_gb : float, optional
        Memory that the search may plan with, in GiB.
    seed : int
        Makes methods with a random part repeatable.
    on_transform : callable, optional
        Called with the transform and its verdict as soon as they are known, before the rest of the quality is measured.
    monitor : Monitor, optional
        Takes progress; can cancel.

    Raises
    ------
    InputError, GeometryError
        When an image, a mask, the transform or a landmark cannot be used; says what was expected and what came.
    DeviceError
        When the device or the memory is not there.
    Cancelled
        When the run was cancelled through the monitor.
    """
    monitor, started = monitor or Monitor(), time.perf_counter()
    chosen = load_preset(settings) if isinstance(settings, str) else settings
    movings = distinctly_named([moving] if isinstance(moving, Volume) else moving)
    where = resolve_device(device)
    budget = memory_budget_bytes(where, memory_gb)
    initial = initial_transform or SpatialTransform.identity()
    monitor.report("preparing the images", 0.0)
    _check_inputs(fixed, movings, initial)
    start = None
    if landmarks is not None:
        start = _landmark_start(landmarks, landmark_error_mm, (fixed, movings), initial)
        initial = start.transform
    given = (fixed, *movings)
    fixed, movings = without_outliers(fixed), [without_padding(without_outliers(volume)) for volume in movings]
    _check_inputs(fixed, movings, initial)
    scanned, timings = movings, dict[str, float]()
    if chosen.masked and chosen.brain_mask:
        monitor.report("finding the brain", 0.0)
        with _timed(timings, "brain"):
            movings = with_brain(movings)
    run = _Run(with_field_of_view(fixed), movings, initial, where, memory_gb, start, timings)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        found, second_search = _search(run, chosen, monitor)
    monitor.report("composing the transform", 0.85)
    with _timed(run.timings, "transform"):
        transform = _compose(found, initial)
    with _timed(run.timings, "quality"):
        assessment = assess(
            run.fixed,
            movings,
            transform,
            initial=initial,
            maps={name: _on_fixed_grid(values, found.prepared, fixed) for name, values in found.solution.maps.items()},
            model_selection=found.selection,
            scanned=scanned,
            landmarks=None if start is None else given_landmarks(start, found.solution.landmark_use, transform),
            on_verdict=partial(on_transform, transform),
            monitor=monitor.part(0.88, 1.0),
        )
    run.timings["total"] = time.perf_counter() - started
    provenance = Provenance(
        versions=versions(),
        fixed=image_record(replace(given[0], reading=run.fixed.reading)),
        moving=tuple(
            image_record(replace(volume, reading=cleaned.reading))
            for volume, cleaned in zip(given[1:], movings, strict=True)
        ),
        initial_transform=None if initial_transform is None else InitialTransformRecord.of(initial_transform),
        preset=settings if isinstance(settings, str) else None,
        settings=chosen.to_dict(),
        second_search=second_search,
        seed=seed,
        device=str(found.device),
        threads=torch.get_num_threads(),
        memory_budget_bytes=budget,
        peak_memory_bytes=peak_memory_bytes(found.device),
        working_grid=WorkingGrid.of(found.prepared.grid),
        timings_s={name: round(seconds, 3) for name, seconds in run.timings.items()},
        landmarks=None if start is None else _landmark_record(start),
    )
    monitor.report("done", 1.0)
    return RegistrationResult(transform, assessment.after, assessment, provenance)


def _check_inputs(fixed: Volume, moving: Sequence[Volume], initial: SpatialTransform) -> None:
    if not moving:
        raise InputError("expected at least one moving image; got none")
    check_invertible(initial, "the initial transform")
    for volume in (fixed, *moving):
        check_image(volume)


def _landmark_start(
    landmarks: tuple[Landmarks | Array, Landmarks | Array],
    error_mm: float,
    images: tuple[Volume, Sequence[Volume]],
    initial: SpatialTransform,
) -> LandmarkStart:
    """Check landmarks, pair them, and fit what brings them together after the initial transform."""
    if len(landmarks) != 2:
        raise InputError(f"expected two lists of landmarks, fixed and moving; got {len(landmarks)}")
    fixed, moving = landmarks
    if isinstance(fixed, Landmarks) and isinstance(moving, Landmarks):
        (fixed_ras, moving_ras), labels = paired_points(fixed, moving), fixed.labels
    else:
        fixed_ras, moving_ras = (each.points_ras if isinstance(each, Landmarks) else each for each in landmarks)
        labels = ()
    pairs = LandmarkPairs(fixed_ras, moving_ras, error_mm, labels)
    pairs.check_inside(*images)
    return pairs.start(initial)


def _landmark_record(start: LandmarkStart) -> LandmarkRecord:
    pairs = start.pairs
    return LandmarkRecord.of(pairs.fixed_ras, pairs.moving_ras, pairs.error_mm, start.matrix_ras)


def _search(run: _Run, settings: RegistrationSettings, monitor: Monitor) -> tuple[_Attempt, SecondSearch | None]:
    """Search once, and once more over the extended range where the first result would be rejected."""
    first = _attempt(run, settings, monitor.part(0.0, 0.7))
    extension, extended = settings.extension(), settings.extended()
    if extension is None or extended is None or not first.is_doubtful:
        return first, None
    start = _scouted(run, extended, extension, monitor.part(0.7, 0.75, "extended search"))
    if first.solution.start is not None and not extension.is_new(start, first.solution.start):
        # It can only end where the first search did.
        return first, "in doubt"
    # What a wide search finds counts only if it is beyond doubt.
    second = _attempt(run, extended, monitor.part(0.75, 0.85, "extended search"), start)
    return (first, "in doubt") if second.is_doubtful else (second, "used")


def _scouted(run: _Run, settings: RegistrationSettings, extension: Extension, monitor: Monitor) -> torch.Tensor:
    """Where the second search begins, found on a coarse working grid."""
    prepared = _prepared(run, replace(settings, working_spacing_mm=extension.spacing_mm))
    with _timed(run.timings, "solve"):
        return _on_device(
            run, settings, prepared, lambda problem: extension.scout(problem, settings.options).cpu(), monitor
        )


def _attempt(
    run: _Run, settings: RegistrationSettings, monitor: Monitor, start: torch.Tensor | None = None
) -> _Attempt:
    """Prepare, solve, and select among what can be defended."""
    prepared = _prepared(run, settings)
    with _timed(run.timings, "solve"):
        solve = partial(_solve, settings=settings, start=start)
        return _on_device(run, settings, prepared, solve, monitor.part(0.06, 1.0))


def _prepared(run: _Run, settings: RegistrationSettings) -> Prepared:
    with _timed(run.timings, "prepare"):
        return prepare(
            levelled_volume(run.fixed),
            [levelled_volume(volume) for volume in run.moving],
            run.initial,
            spacing_mm=settings.working_spacing_mm,
            masked=settings.masked,
            margin_mm=settings.margin_mm,
        )


def _on_device(
    run: _Run, settings: RegistrationSettings, prepared: Prepared, work: Callable[[Problem], _Found], monitor: Monitor
) -> _Found:
    """Do what there is to do; where the GPU's memory does not suffice, do it on the CPU and say so."""

    def there(pair: Prepared) -> _Found:
        memory = memory_budget_bytes(pair.fixed.image.device, run.memory_gb)
        marks = None if run.landmarks is None else run.landmarks.on(pair)
        problem = Problem(pair, Levels(pair), memory, monitor, landmarks=marks)
        with at_most(find_method(settings.method).threads(problem)):
            return work(problem)

    try:
        return there(prepared.to(run.device))
    except (torch.OutOfMemoryError, DeviceError):
        if run.device.type == "cpu":
            raise
        _log.warning("the memory of %s did not suffice; going on with the CPU", run.device)
        return there(prepared)


def _solve(problem: Problem, settings: RegistrationSettings, start: torch.Tensor | None) -> _Attempt:
    """Run the method, select among what can be defended, and estimate the error."""
    prepared, options = problem.prepared, settings.model_selection
    device = prepared.fixed.image.device
    given = replace(problem, monitor=problem.monitor.part(0.0, 0.93), start=None if start is None else start.to(device))
    solution = find_method(settings.method).solve(given, settings.options)
    selection: ModelSelection | None = None
    if options.enabled:
        problem.monitor.report("model selection", 0.93)
        sampled = problem.levels.at(options.similarity, options.sampling_spacing_mm, options.half_width)
        found = solution.displacement_voxel
        displacement, selected = select_model(prepared, found, sampled, options)
        selection = replace(selected, rival_mm=solution.rival_mm)
        # What is selected is as uncertain as what was found, and as far from it as it is.
        apart_mm = (displacement - found).norm(dim=1, keepdim=True) * prepared.spacing_mm
        error = torch.hypot(expected_error_mm(prepared, found, sampled), apart_mm)
        maps = {**solution.maps, "expected_error": error}
        solution = replace(solution, displacement_voxel=displacement, maps=maps)
    return _Attempt(prepared.to(torch.device("cpu")), solution.cpu(), selection, device)


def _compose(found: _Attempt, initial: SpatialTransform) -> SpatialTransform:
    field = DisplacementField.from_voxel(found.solution.displacement_voxel, found.prepared.grid)
    field, weight = crop_to_foreground(field, found.prepared.fixed.weight[0, 0], _KEPT_MARGIN_MM)
    return composite_from_field(field, weight, affine=found.solution.affine).then(initial)


def _on_fixed_grid(values: torch.Tensor, prepared: Prepared, fixed: Volume) -> torch.Tensor:
    """(D, H, W): a map (1, 1, …) on the working grid brought onto the fixed image's own."""
    return sample(values, positions_between(prepared.grid, fixed.grid))[0, 0]


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - start
