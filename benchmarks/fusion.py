"""Ways to make one field of those of several MR, with MCBO on simulated cases of the calibration's brain."""

from __future__ import annotations

import torch

from benchmarks import calibration, record
from MMRegCore import DisplacementField, SpatialTransform, load_preset
from MMRegCore.config import with_changes
from MMRegCore.methods import find_method
from MMRegCore.methods.protocol import Problem
from MMRegCore.monitor import Monitor
from MMRegCore.prepare import prepare
from MMRegCore.runtime import GIB
from MMRegCore.search.sampled import Levels

WAYS = ("mean", "confidence", "magnitude", "signed-max")
# Cases of the calibration with two MR and a shift that MCBO can find.
CASES = (1, 7, 19, 23, 25)


def main() -> None:
    """Measure and write ``results/fusion``."""
    rows = []
    for number in CASES:
        name, case = calibration.make_case(number)
        settings = load_preset("mcbo")
        pair = prepare(
            case.fixed.with_mask(None),
            case.moving,
            SpatialTransform.identity(),
            spacing_mm=settings.working_spacing_mm,
            masked=True,
            margin_mm=settings.margin_mm,
        )
        inside = pair.fixed.weight[0, 0] > 0
        truth = case.truth.on_grid(pair.grid).displacement_mm

        def error(found: torch.Tensor, truth: torch.Tensor = truth, inside: torch.Tensor = inside) -> float:
            return round(float((found - truth).norm(dim=-1)[inside].mean()), 2)

        row = {"case": name, "start mm": error(torch.zeros_like(truth))}
        for how in WAYS:
            options = with_changes(settings, {"mcbo.fusion": how}).options
            solved = find_method("mcbo").solve(Problem(pair, Levels(pair), 2 * GIB, Monitor()), options)
            row[how] = error(DisplacementField.from_voxel(solved.displacement_voxel, pair.grid).displacement_mm)
        rows.append(row)
        print(row, flush=True)
    mean = {key: round(sum(row[key] for row in rows) / len(rows), 2) for key in ("start mm", *WAYS)}
    rows.append({"case": "mean", **mean})
    record.write("fusion", rows, "Mean error in mm over the field of view, preset mcbo without model selection.")
