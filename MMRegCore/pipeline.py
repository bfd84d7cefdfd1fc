"""Registration from images to result, the whole way on one page."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from MMRegCore import __version__
from MMRegCore.config import DEFAULT_PRESET, RegistrationSettings, load_preset
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import DeviceError, InputError
from MMRegCore.io import staged_folder, write_transform, write_volume
from MMRegCore.methods.solution import Solution
from MMRegCore.methods.solve import is_doubtful, solve
from MMRegCore.monitor import Monitor
from MMRegCore.preprocess import Prepared, around_evidence, check_image, prepare, with_field_of_view
from MMRegCore.qa import Assessment, assess, write_maps, write_report
from MMRegCore.runtime import memory_budget_bytes, package_version, peak_memory_bytes, resolve_device
from MMRegCore.transform import SpatialTransform, check_invertible, composite_from_field
from MMRegCore.volume import Volume, distinctly_named
from MMRegCore.warp import resampling_coordinates, sample

_log = logging.getLogger(__name__)

# How far around the field of view the deformation is kept as it was found, before it fades.
_KEPT_MARGIN_MM = 4.0


@dataclass(frozen=True, eq=False)
class RegistrationResult:
    """What a registration gives.

    Attributes
    ----------
    transform : SpatialTransform
        Fixed to moving, the initial transform included: a linear part that holds everywhere, after a residual that
        fades to zero around the fixed image.
    warped : tuple of Volume
        Each moving image on the fixed grid.
    assessment : Assessment
        Numbers and maps that tell how far to believe the result.
    provenance : dict
        Inputs, settings, versions, device, timings; JSON-able.
    """

    transform: SpatialTransform
    warped: tuple[Volume, ...]
    assessment: Assessment
    provenance: dict[str, Any]

    def save(self, folder: Path, *, fixed: Volume, transform_only: bool = False) -> None:
        """Write ``transform.h5`` and ``result.json``, and unless ``transform_only`` the warped images, maps and report.

        All files appear together or, when one cannot be written, none does.

        Raises
        ------
        InputError
            When the folder cannot be written to.
        """
        with staged_folder(Path(folder)) as staging:
            write_transform(self.transform, staging / "transform.h5")
            content = {"provenance": self.provenance, "qa": self.assessment.numbers}
            (staging / "result.json").write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")
            if transform_only:
                return
            for volume in self.warped:
                write_volume(volume, staging / f"warped_{volume.name}.nii.gz")
            write_maps(self.assessment, staging)
            names = ", ".join(volume.name for volume in self.warped)
            write_report(
                staging / "report.html", fixed, self.assessment, self.provenance, title=f"{names} to {fixed.name}"
            )


def register(
    fixed: Volume,
    moving: Volume | Sequence[Volume],
    *,
    settings: RegistrationSettings | str = DEFAULT_PRESET,
    initial_transform: SpatialTransform | None = None,
    device: str = "auto",
    memory_gb: float | None = None,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> RegistrationResult:
    """Bring one or several moving images (MR) onto a fixed image (ultrasound).

    Parameters
    ----------
    fixed : Volume
        Its mask says where it is evidence; without one the field of view is found automatically.
    moving : Volume or sequence of Volume
        Images of one patient space (several contrasts), each with an optional mask.
    settings : RegistrationSettings or str
        Settings, or the name of a preset.
    initial_transform : SpatialTransform, optional
        Fixed to moving, where to start; any kind.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    memory_gb : float, optional
        Memory that the search may plan with, in GiB.
    seed : int
        Makes methods with a random part repeatable.
    monitor : Monitor, optional
        Told of progress; can cancel.

    Raises
    ------
    InputError, GeometryError
        When an image, a mask or the transform cannot be used; says what was expected and what came.
    DeviceError
        When the device or the memory is not there.
    Cancelled
        When the monitor was told to cancel.
    """
    monitor = monitor or Monitor()
    started = time.perf_counter()
    timings: dict[str, float] = {}
    movings = distinctly_named([moving] if isinstance(moving, Volume) else moving)
    if not movings:
        raise InputError("expected at least one moving image; got none")
    preset = settings if isinstance(settings, str) else None
    chosen = load_preset(settings) if isinstance(settings, str) else settings
    where = resolve_device(device)
    budget = memory_budget_bytes(where, memory_gb)
    initial = initial_transform or SpatialTransform.identity()
    check_invertible(initial, "the initial transform")

    monitor.report("preparing the images", 0.0)
    check_image(fixed)
    seen = with_field_of_view(fixed)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        attempt = partial(_attempt, seen, movings, initial, device=where, memory_gb=memory_gb, timings=timings)
        prepared, solution, used = attempt(chosen, monitor.part(0.0, 0.7))
        further, second_search = chosen.widened(), None
        if further is not None and is_doubtful(solution, prepared):
            # The start may be further off than expected.  What a wide search finds counts only if it is beyond doubt.
            again = attempt(further, monitor.part(0.7, 0.85, "further off"))
            second_search = "in doubt" if is_doubtful(again[1], again[0]) else "used"
            if second_search == "used":
                prepared, solution, used = again
    monitor.report("composing the transform", 0.85)
    with _timed(timings, "transform_s"):
        field = DisplacementField.from_voxel(solution.displacement_voxel, prepared.grid)
        field, weight = around_evidence(field, prepared.fixed_weight[0, 0], _KEPT_MARGIN_MM)
        transform = composite_from_field(field, weight, affine=chosen.affine).then(initial)
    with _timed(timings, "qa_s"):
        assessment = assess(
            seen,
            movings,
            transform,
            initial=initial,
            extra_maps={name: _on_fixed_grid(values, prepared, fixed) for name, values in solution.maps.items()},
            choice=None if solution.choice is None else solution.choice.to_dict(),
            monitor=monitor.part(0.88, 1.0),
        )
    timings["total_s"] = time.perf_counter() - started
    provenance = {
        "mmreg": _versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "fixed": _described(fixed),
        "moving": [_described(volume) for volume in movings],
        "initial_transform": "identity" if initial_transform is None else _described_transform(initial),
        "preset": preset,
        "settings": chosen.to_dict(),
        "second_search": second_search,
        "seed": seed,
        "device": str(used),
        "threads": torch.get_num_threads(),
        "memory_budget_bytes": budget,
        "peak_memory_bytes": peak_memory_bytes(used),
        "working_grid": {
            "shape": list(prepared.grid.shape),
            "spacing_mm": [round(float(v), 4) for v in prepared.grid.spacing_mm],
        },
        "timings_s": {name.removesuffix("_s"): round(value, 3) for name, value in timings.items()},
    }
    monitor.report("done", 1.0)
    return RegistrationResult(transform, assessment.after, assessment, provenance)


def _attempt(
    fixed: Volume,
    moving: Sequence[Volume],
    initial: SpatialTransform,
    settings: RegistrationSettings,
    monitor: Monitor,
    *,
    device: torch.device,
    memory_gb: float | None,
    timings: dict[str, float],
) -> tuple[Prepared, Solution, torch.device]:
    """Prepare the images and solve."""
    with _timed(timings, "prepare_s"):
        prepared = prepare(
            fixed,
            moving,
            initial,
            spacing_mm=settings.working_spacing_mm,
            masked=settings.masked,
            margin_mm=settings.margin_mm,
        )
    with _timed(timings, "method_s"):
        solution, used = _solve(prepared, settings, device, memory_gb, monitor.part(0.06, 1.0))
    return prepared, solution, used


def _solve(
    prepared: Prepared, settings: RegistrationSettings, device: torch.device, memory_gb: float | None, monitor: Monitor
) -> tuple[Solution, torch.device]:
    """Run the method; where the GPU's memory does not suffice, run it on the CPU and say so."""
    try:
        solution = solve(prepared.to(device), settings, memory_budget_bytes(device, memory_gb), monitor)
    except (torch.OutOfMemoryError, DeviceError):
        if device.type == "cpu":
            raise
        _log.warning("the memory of %s did not suffice; going on with the CPU", device)
        cpu = torch.device("cpu")
        return solve(prepared, settings, memory_budget_bytes(cpu, memory_gb), monitor), cpu
    return solution.cpu(), device


def _on_fixed_grid(values: torch.Tensor, prepared: Prepared, fixed: Volume) -> torch.Tensor:
    """(D, H, W): a map (1, 1, …) on the working grid brought onto the fixed image's own."""
    return sample(values, resampling_coordinates(prepared.grid, fixed.grid))[0, 0]


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - start


def _described(volume: Volume) -> dict[str, Any]:
    digest = hashlib.sha256(volume.data.contiguous().cpu().numpy().tobytes()).hexdigest()
    return {
        "name": volume.name,
        "shape": list(volume.grid.shape),
        "spacing_mm": [round(float(v), 6) for v in volume.grid.spacing_mm],
        "ras_from_ijk": volume.grid.ras_from_ijk.tolist(),
        "mask_voxels": None if volume.mask is None else int(volume.mask.sum()),
        "sha256_of_voxels": digest,
    }


def _described_transform(transform: SpatialTransform) -> dict[str, Any]:
    return {"linear_ras": transform.linear_ras.tolist(), "is_linear": transform.is_linear}


def _versions() -> dict[str, str | None]:
    return {
        "mmreg": __version__,
        "torch": torch.__version__,
        "SimpleITK": package_version("SimpleITK"),
        "numpy": package_version("numpy"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
