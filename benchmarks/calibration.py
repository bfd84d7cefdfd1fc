"""What do-no-harm and the expected error were set on: simulated cases of brains that no benchmark judges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import record
from MMRegCore import DisplacementField, Monitor, SpatialTransform, Volume, load_preset, read_volume
from MMRegCore.methods.choice import choose
from MMRegCore.methods.confidence import share_lost
from MMRegCore.methods.lc2 import agreement_levels, lc2
from MMRegCore.preprocess import prepare
from MMRegCore.simulate import (
    BrainShiftSettings,
    CavitySettings,
    SimulatedCase,
    anatomy_from_labels,
    load_template,
    simulate,
    with_contrasts,
)

IMAGES = (("t1",), ("t1", "t2"), ("flair",), ("t1", "flair"))
SHIFTS_MM = (0.3, 2, 4, 6, 9, 0.3, 3, 5, 8, 14, 1, 2.5, 4.5, 7, 11, 20)
SITES = ((0.95, 0.2, 0.1), (-0.9, 0.3, 0.4), (0.6, 0.5, 0.75), (-0.8, -0.5, 0.4))
FIRST_SEED = 1300
SAMPLES = 1500
# Added to lost share and to error before their logarithms are taken.
FLOOR, SMALLEST_MM = 0.02, 0.05


@dataclass(frozen=True, eq=False)
class Example:
    """One case, and what the method made of it; lost share and error at the same voxels."""

    row: dict[str, Any]
    lost: np.ndarray
    error_mm: np.ndarray


def main() -> None:
    """Measure and write ``results/calibration``."""
    examples = []
    for number, (case, brain) in enumerate(_cases()):
        examples.append(_measured(case, f"{brain}, {' + '.join(IMAGES[number % 4])}"))
        print(examples[-1].row, flush=True)
    lost = np.log(np.concatenate([example.lost for example in examples]).clip(0) + FLOOR)
    error = np.log(np.concatenate([example.error_mm for example in examples]) + SMALLEST_MM)
    slope, offset = np.polyfit(lost, error, 1)
    spread = float(np.std(error - slope * lost - offset))
    record.write(
        "calibration",
        [example.row for example in examples],
        f"Expected error: log(error + {SMALLEST_MM}) = {offset:.2f} {slope:+.2f} · log(share lost + {FLOOR}), standard "
        f"deviation {spread:.2f}, over {SAMPLES} voxels of each case. Improvement: of the agreement, by the "
        "deformation; where the shift is 0.3 mm it is what chance gives.",
    )


def _cases() -> Iterator[tuple[SimulatedCase, str]]:
    folder = record.data_folder("synthseg_labels")
    for number, shift_mm in enumerate(SHIFTS_MM):
        wanted = IMAGES[number % 4]
        if number % 3 == 2:
            name = f"training_seg_{number + 1:02d}"
            bare = anatomy_from_labels([], read_volume(folder / f"{name}.nii.gz", name="labels"))
            anatomy, skipped = with_contrasts(bare, wanted, seed=number), 0
        else:
            name, template = "MNI152", load_template()
            extra = [contrast for contrast in wanted if contrast != "t1"]
            anatomy = with_contrasts(template, extra, seed=number) if extra else template
            skipped = 0 if "t1" in wanted else 1
        case = simulate(
            anatomy,
            entry_direction_ras=SITES[(number * 7) % 4],
            shift=BrainShiftSettings(mean_mm=shift_mm),
            cavity=CavitySettings() if number % 5 == 3 else None,
            spacing_mm=0.7,
            seed=FIRST_SEED + number,
        )
        yield SimulatedCase(**{**vars(case), "moving": case.moving[skipped:]}), name


def _measured(case: SimulatedCase, name: str) -> Example:
    settings = load_preset("lc2")
    fixed = case.fixed.with_mask(None)
    pair = prepare(
        fixed,
        case.moving,
        SpatialTransform.identity(),
        spacing_mm=settings.working_spacing_mm,
        masked=True,
        margin_mm=settings.margin_mm,
    )
    found = lc2(pair, settings.lc2, Monitor()).displacement_voxel
    finest = agreement_levels(pair, settings.lc2)[-1]
    deformable = choose(pair, found, finest, settings.choice).candidates[2]
    lost = share_lost(finest, found, float(pair.grid.spacing_mm.mean()))[0, 0]
    difference = DisplacementField.from_voxel(found, pair.grid).displacement_mm
    difference = difference - case.truth.on_grid(pair.grid).displacement_mm
    error_mm = Volume(difference.norm(dim=-1)[None], pair.grid)
    places = finest.patch_centres().round().long().reshape(-1, 3)
    top = torch.tensor(pair.grid.itk_size) - 1
    w, h, d = places.clamp(min=torch.zeros(3, dtype=torch.long), max=top).T
    at_patches = error_mm.data[0, d, h, w].numpy()
    weight = finest.shares().flatten()
    random = np.random.default_rng(0)
    chosen = random.choice(np.flatnonzero((weight > 0.3 * weight.max()).numpy()), SAMPLES)
    inside = pair.fixed_weight[0, 0] > 0
    row = {
        "case": name,
        "shift mm": round(float(case.truth.on_grid(pair.grid).magnitude_mm()[inside].mean()), 2),
        "error mm": round(float(error_mm.data[0][inside].mean()), 2),
        "improvement": round(deformable.improvement, 4),
        "standard errors": round(deformable.significance, 1),
        "share lost": round(float(lost.flatten()[chosen].mean()), 3),
    }
    return Example(row, lost.flatten().numpy()[chosen], at_patches[chosen])
