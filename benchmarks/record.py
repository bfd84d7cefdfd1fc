"""Where results go, and what is written beside them: machine, date, commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHARED_DATA = ROOT.parent / "shared" / "data"


def data_folder(name: str) -> Path:
    """A folder of the evaluation data beside the checkout; ends the program with one line where it is absent."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        raise SystemExit(f"expected the evaluation data in ../shared/data/{name} beside the checkout; it is not there")
    return folder


def write(name: str, rows: Sequence[dict[str, Any]], notes: str, command: str | None = None) -> None:
    """Write ``rows`` as JSON and as a Markdown table, with where and when and by which command they were measured."""
    RESULTS.mkdir(exist_ok=True)
    circumstances = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "torch": torch.__version__,
        "command": f"python -m benchmarks {command or name}",
    }
    content = {"circumstances": circumstances, "notes": notes, "rows": list(rows)}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [f"# {name}", "", notes, "", *(f"- {key}: {value}" for key, value in circumstances.items()), ""]
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, *table(rows), ""]), encoding="utf-8")
    print("\n".join(table(rows)), flush=True)


def when() -> str:
    """Date and commit of what is measured now, for rows that are kept while others are measured again."""
    return f"{datetime.now(timezone.utc).date()} {_commit()}"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table, with a column for every key that a row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(line) + " |" for line in cells),
    ]


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1 else str(value)


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
