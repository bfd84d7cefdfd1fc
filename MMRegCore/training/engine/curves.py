"""The curves of a training: losses and validation scores, step by step."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from MMRegCore.errors import InputError
from MMRegCore.io.files import atomic_path

COLUMNS = ("step", "phase", "name", "value")


class Curves:
    """Mean training losses between two validations, and the scores of each validation."""

    def __init__(self) -> None:
        self._rows: list[list[Any]] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, step: int, losses: dict[str, float]) -> None:
        """Accumulate the losses of one step; `InputError` when one of them is not finite."""
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if wrong:
            value = losses[wrong[0]]
            raise InputError(
                f"expected finite losses; got {value} as '{wrong[0]}' at step {step}: lower the learning rate"
            )
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def close(self, step: int, scores: dict[str, float]) -> None:
        """End an interval: one row for the mean of each loss over it, one for each score."""
        self._rows += [[step, "training", name, total / self._count] for name, total in self._sums.items()]
        self._rows += [[step, "validation", name, value] for name, value in scores.items()]
        self._sums, self._count = {}, 0

    def write(self, path: Path) -> None:
        """Write all rows as CSV, atomically; numbers in full, so that equal curves are equal files."""
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """Rows, and the sums since the last of them."""
        return {"rows": [list(row) for row in self._rows], "sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`."""
        self._rows = [list(row) for row in state["rows"]]
        self._sums, self._count = dict(state["sums"]), int(state["count"])


def read_curves(path: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Curves by (phase, name), each a list of (step, value), as `Curves.write` wrote them."""
    curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves.setdefault((row["phase"], row["name"]), []).append((int(row["step"]), float(row["value"])))
    return curves
