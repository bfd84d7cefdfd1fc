"""One table of a cohort: a row for each case, the worst verdict first, as CSV and as HTML."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from MMRegCore.errors import InputError
from MMRegCore.io.files import atomic_path

TABLE_FILE, PAGE_FILE, PICTURE_FILE = "cohort.csv", "cohort.html", "picture.png"
_ORDER = ("failed", "reject", "review", "accept", "")
_GIB = 1024**3


@dataclass(frozen=True)
class Row:
    """What is said of one case; None where it was not measured.

    ``verdict`` is 'accept', 'review', 'reject' or 'failed', and empty for another tool's transform; ``reason`` the
    gravest one of it.
    """

    case: str
    verdict: str
    expected_error_mm: float | None = None
    landmarks: int | None = None
    tre_before_mm: float | None = None
    tre_mean_mm: float | None = None
    tre_sd_mm: float | None = None
    tre_30_mm: float | None = None
    dice: float | None = None
    hd95_voxel: float | None = None
    folding_share: float | None = None
    sd_log_j: float | None = None
    seconds: float | None = None
    peak_memory_gb: float | None = None
    reason: str = ""


_NUMBERS = tuple(field.name for field in fields(Row) if field.name not in ("case", "verdict", "reason", "landmarks"))


def failed_row(case: str, reason: str) -> Row:
    """The row of a case without a result."""
    return Row(case, "failed", reason=reason)


def row_of(case: str, folder: Path) -> Row:
    """The row of a case, from ``result.json`` and ``scores.json`` in its folder; `InputError` where one is broken."""
    try:
        result = json.loads((folder / case / "result.json").read_text(encoding="utf-8"))
        content = json.loads((folder / case / "scores.json").read_text(encoding="utf-8"))
        verdict, made = result["quality"]["verdict"], result["provenance"]
        peak = made["peak_memory_bytes"]
        return Row(
            case,
            verdict["level"],
            verdict["expected_error_mm"],
            **(content["scores"] or {}),
            seconds=made["timings_s"]["total"],
            peak_memory_gb=None if peak is None else round(peak / _GIB, 3),
            reason=content["problem"] or next(iter(verdict["reasons"]), ""),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"expected the result of '{case}' in {folder}; got none that can be read: {error}") from error


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """By verdict, then by expected error, then by target registration error, the largest first."""
    return sorted(
        rows,
        key=lambda row: (_ORDER.index(row.verdict), -(row.expected_error_mm or 0), -(row.tre_mean_mm or 0), row.case),
    )


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (of a sample) and 30 % quantile over the cases, as Learn2Reg aggregates them."""
    found: dict[str, dict[str, float]] = {}
    for name in _NUMBERS:
        values = sorted(value for row in rows if (value := getattr(row, name)) is not None)
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 and values[-1] != float("inf") else float("nan")
            found[name] = {"mean": statistics.fmean(values), "sd": deviation, "quantile_30": _quantile(values, 0.3)}
    return found


def _quantile(values: Sequence[float], share: float) -> float:
    place = share * (len(values) - 1)
    low = int(place)
    upper = values[min(low + 1, len(values) - 1)]
    return values[low] if place == low else values[low] + (place - low) * (upper - values[low])


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the table, the worst first; `InputError` when it cannot be written."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)])
        table.writeheader()
        table.writerows(asdict(row) for row in worst_first(rows))


def write_html(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Write a page that shows the table, with the picture of every case in the same folder; as `write_csv` raises."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("MMRegCore.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    ordered = worst_first(rows)
    page = environment.get_template("cohort.html.j2").render(
        title=title,
        names=[name for name in _NUMBERS if any(getattr(row, name) is not None for row in rows)],
        rows=[asdict(row) for row in ordered],
        pictures={row.case for row in rows if (path.parent / row.case / PICTURE_FILE).is_file()},
        reports={row.case for row in rows if (path.parent / row.case / "report.html").is_file()},
        counts={level: sum(row.verdict == level for row in rows) for level in _ORDER if level},
        summary=summary(rows),
        shown=_shown,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shown(value: Any) -> str:  # noqa: ANN401 - of a cell
    return "–" if value is None or value != value else f"{value:.3g}"
