"""Ways to make one field of those of several MR, with MCBO on simulated cases of the calibration's brain."""

from __future__ import annotations

import torch

from benchmarks import calibration, record
from MMRegCore import DisplacementField, Monitor, SpatialTransform, load_preset
from MMRegCore.config import with_changes
from MMRegCore.methods.solve import solve
from MMRegCore.preprocess import prepare
from MMRegCore.runtime import GIB

WAYS = ("mean", "confidence", "magnitude", "signed-max")
# Cases of the calibration with two MR and a shift that MCBO can find.
CASES = (1, 7, 19, 23, 25)


def main() -> None:
    """Measure and write ``results/fusion``."""
    rows = []
    for number in CASES:
        name, case = calibration.make_case(number)
        # What is judged is the method's own result, without the choice.
        settings = with_changes(load_preset("mcbo"), {"choice.compete": False})
        pair = prepare(
            case.fixed.with_mask(None),
            case.moving,
            SpatialTransform.identity(),
            spacing_mm=settings.working_spacing_mm,
            masked=True,
            margin_mm=settings.margin_mm,
        )
        inside = pair.fixed_weight[0, 0] > 0
        truth = case.truth.on_grid(pair.grid).displacement_mm

        def error(found: torch.Tensor, truth: torch.Tensor = truth, inside: torch.Tensor = inside) -> float:
            return round(float((found - truth).norm(dim=-1)[inside].mean()), 2)

        row = {"case": name, "start mm": error(torch.zeros_like(truth))}
        for how in WAYS:
            solved = solve(pair, with_changes(settings, {"fusion": how}), 2 * GIB, Monitor())
            row[how] = error(DisplacementField.from_voxel(solved.displacement_voxel, pair.grid).displacement_mm)
        rows.append(row)
        print(row, flush=True)
    mean = {key: round(sum(row[key] for row in rows) / len(rows), 2) for key in ("start mm", *WAYS)}
    rows.append({"case": "mean", **mean})
    record.write("fusion", rows, "Mean error in mm over the field of view, preset mcbo without the choice.")
