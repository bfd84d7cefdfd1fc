"""Each stage of a registration by LC² against the floor of its bytes and operations.

The floor of a stage is what it must read and write once at this machine's bandwidth, or what it must compute at its
rate, whichever takes longer; both rates are measured here, on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks import record
from MMRegCore import SpatialTransform, Volume, load_preset, read_volume
from MMRegCore.assessment.expected_error import expected_error_mm
from MMRegCore.geometry import Grid
from MMRegCore.monitor import Monitor
from MMRegCore.ops import resize
from MMRegCore.prepare import Prepared, prepare
from MMRegCore.search.model_selection import select_model
from MMRegCore.search.motion_model import MotionModel
from MMRegCore.search.rigid import find_rigid, posterior_cost
from MMRegCore.search.sampled import Levels, SampledSimilarity
from MMRegCore.segmentation.field_of_view import with_field_of_view

ROUNDS = 3
_FLOAT = 4
# A search over more would take minutes.
_MOST_SAMPLES = 500_000


@dataclass(frozen=True)
class Floor:
    """What a stage must do at least."""

    megabytes: float
    million_operations: float

    def milliseconds(self, machine: Floor) -> float:
        """On a machine that does so much a second."""
        seconds = (self.megabytes / machine.megabytes, self.million_operations / machine.million_operations)
        return 1e3 * max(seconds)


def main() -> None:
    """Measure and write ``results/stages``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        machine = _machine()
        rows = [row for name, pair in _pairs() for row in _measured(name, *pair, machine)]
    finally:
        torch.set_num_threads(threads)
    record.write(
        "stages",
        rows,
        f"One thread, CPU milliseconds, medians of {ROUNDS} (the search once). This machine: "
        f"{machine.megabytes / 1e3:.1f} GB/s copied, {machine.million_operations / 1e3:.1f} GFLOP/s. An evaluation is "
        "a value with its gradient; its floor: eight voxels of every channel a sample, twice (value, slopes), products "
        "of all pairs of channels written, summed along three axes, and back.",
    )


def _machine() -> Floor:
    data, target = torch.rand(1 << 25), torch.empty(1 << 25)
    copied = _milliseconds(lambda: target.copy_(data))
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    multiplied = _milliseconds(lambda: a @ b)
    return Floor(2 * _FLOAT * len(data) / 1e6 / (copied / 1e3), 2 * 1024**3 / 1e6 / (multiplied / 1e3))


def _pairs() -> list[tuple[str, tuple[Volume, list[Volume]]]]:
    folder = record.data_folder("resect")
    fixed = read_volume(folder / "Case24_US_0.5mm.nii.gz", name="US")
    moving = [read_volume(folder / f"Case24_{name}_0.5mm.nii.gz", name=name) for name in ("T1", "FLAIR")]
    return [("Case 24, T1 + FLAIR", (fixed, moving)), ("256³ at 1 mm", (_texture(0), [_texture(1)]))]


def _texture(seed: int) -> Volume:
    coarse = torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(seed))
    return Volume(
        resize(coarse, (256, 256, 256))[0], Grid((256, 256, 256), torch.eye(4).double().numpy()), name="texture"
    )


def _measured(name: str, fixed: Volume, moving: list[Volume], machine: Floor) -> list[dict[str, Any]]:
    settings = load_preset("lc2")
    search, options = settings.options.search, settings.model_selection
    voxels = fixed.data.numel()
    rows: list[dict[str, Any]] = []

    def add(stage: str, milliseconds: float, floor: Floor) -> None:
        least = floor.milliseconds(machine)
        rows.append(
            {
                "case": name,
                "stage": stage,
                "ms": round(milliseconds, 1),
                "MB": round(floor.megabytes, 1),
                "Mflop": round(floor.million_operations, 1),
                "floor ms": round(least, 2),
                "times the floor": round(milliseconds / least, 1),
            }
        )
        print(rows[-1], flush=True)

    with_mask = with_field_of_view(fixed.with_mask(None))
    add("field of view", _milliseconds(lambda: with_field_of_view(fixed.with_mask(None))), _pass_over(voxels, 2, 10))

    def prepared() -> Prepared:
        return prepare(
            with_mask,
            moving,
            SpatialTransform.identity(),
            spacing_mm=settings.working_spacing_mm,
            masked=True,
            margin_mm=settings.margin_mm,
        )

    pair = prepared()
    size = pair.fixed.image.numel()
    # Read, resample image and weight of each, replicate the edge of one.
    add("prepare", _milliseconds(prepared), _pass_over(size, 4 * (1 + len(moving)) + 2, 60 * (1 + len(moving))))

    def levels() -> list[SampledSimilarity]:
        return Levels(pair).all(search.similarity, search.sampling_spacing_mm, search.half_width)

    made = Levels(pair)
    sampled = made.all(search.similarity, search.sampling_spacing_mm, search.half_width)
    add("levels", _milliseconds(levels), _pass_over(size, 6 * (1 + len(moving)), 30 * (1 + len(moving))))
    model = MotionModel.of(pair, search.prior)
    whole = model.identity()
    for level, at, half_width in zip(sampled, search.sampling_spacing_mm, search.half_width, strict=True):
        parameters = whole if level is sampled[-1] else whole[:12]
        cost = posterior_cost(level, model, search.effective_sample_size)
        floor = _evaluation(len(level.points), len(moving), half_width)
        label = f"evaluation at {at} mm, {len(level.points)} samples"
        add(label, _milliseconds(lambda cost=cost, start=parameters: _gradient(cost, start)), floor)
    if len(sampled[-1].points) > _MOST_SAMPLES:
        return rows
    start = time.process_time()
    rigid = find_rigid(made, model, search, Monitor())
    add("rigid search", 1e3 * (time.process_time() - start), _evaluation(300 * len(sampled[0].points), len(moving), 2))
    found = model.displacement(model.from_linear(rigid), pair.grid.shape)
    finest = made.at(options.similarity, options.sampling_spacing_mm, options.half_width)
    select = _milliseconds(lambda: select_model(pair, found, finest, options))
    add("model selection", select, _pass_over(size, 12, 60))
    error = _milliseconds(lambda: expected_error_mm(pair, found, finest))
    add("expected error", error, _evaluation(3.5 * len(finest.points), len(moving), 2))
    return rows


def _pass_over(voxels: int, volumes: int, operations: int) -> Floor:
    """So many volumes read or written once, so many operations a voxel."""
    return Floor(volumes * voxels * _FLOAT / 1e6, operations * voxels / 1e6)


def _evaluation(samples: float, moving: int, half_width: int) -> Floor:
    """Value and gradient of LC² at so many samples."""
    channels = 3 * moving  # intensity, gradient magnitude, weight
    regressors = 2 + 2 * moving
    products = regressors * (regressors + 1) / 2
    width = 2 * half_width + 1
    # A sum over a box: width additions along each axis, of which the second and third have half and a quarter of rows.
    sums = products * width * (0.5 + 0.25 + 0.125)
    floats = 2 * 8 * channels + 2 * 2 * products + 2 * 1.75 * products + 2 * 3
    operations = 4 * 8 * channels * 2 + 6 * products + 2 * sums + 100
    return Floor(samples * floats * _FLOAT / 1e6, samples * operations / 1e6)


def _gradient(cost: Callable[[torch.Tensor], torch.Tensor], parameters: torch.Tensor) -> torch.Tensor:
    variable = parameters[None].clone().requires_grad_(True)
    return torch.autograd.grad(cost(variable).sum(), variable)[0]


def _milliseconds(work: Callable[[], object]) -> float:
    """CPU time, the first call left out."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - start))
    return median(taken)
