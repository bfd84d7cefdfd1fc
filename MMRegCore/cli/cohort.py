"""The verbs ``mmreg batch``, ``mmreg evaluate`` and ``mmreg replay``."""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from MMRegCore.cli.inputs import changes_from, check_output_folder
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.errors import Cancelled, InputError
from MMRegCore.monitor import Monitor

if TYPE_CHECKING:
    from MMRegCore.cohort.run import Options

_DIFFERENT, _SOME_FAILED, _CANCELLED = 1, 1, 3
# Of the memory that is free, shared by the workers; what one registration plans with by itself.
_SHARE, _PLANNED_GB, _LEAST_GB = 0.5, 2.0, 0.25


def batch(arguments: argparse.Namespace, screen: Screen) -> int:
    """Register every case of a table or of Learn2Reg's dataset.json: a folder for each, and one table of all.

    Cases that are done are kept, so that the same command goes on where it was stopped; one that fails does not stop
    the rest (exit code 1).
    """
    from MMRegCore.cohort.cases import read_cases
    from MMRegCore.cohort.run import run_cases
    from MMRegCore.cohort.table import PAGE_FILE, TABLE_FILE, Row, write_csv, write_html
    from MMRegCore.config import load_preset, with_changes

    check_output_folder(arguments.output)
    with_changes(load_preset(arguments.preset), changes_from(arguments.set))
    cases = read_cases(arguments.cases)
    options = _options(arguments)
    folder = arguments.output.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}") from error
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        write_csv(rows, folder / TABLE_FILE)
        screen.note(f"mmreg: {row.case}: {row.verdict}{f' ({row.reason})' if row.verdict == 'failed' else ''}")

    try:
        with cancel_on_signals(Monitor(screen)) as monitor:
            where = {"workers": arguments.workers, "scheduler": arguments.scheduler}
            run_cases(cases, folder, options, monitor=monitor, on_row=keep, **where)
    except Cancelled:
        screen.fail("cancelled; the same command goes on", kind="Cancelled", code=_CANCELLED)
        return _CANCELLED
    finally:
        if rows:
            write_html(rows, folder / PAGE_FILE, title=f"Cohort {arguments.cases.stem}")
    screen.done(arguments.output)
    return _SOME_FAILED if any(row.verdict == "failed" for row in rows) else 0


def _options(arguments: argparse.Namespace) -> Options:
    from MMRegCore.cohort.run import Options

    register = ["--preset", arguments.preset, "--seed", str(arguments.seed), "--device", arguments.device]
    register += ["--set", *arguments.set] if arguments.set else []
    register += ["--transform-only"] if arguments.transform_only else []
    threads, memory_gb = arguments.threads, arguments.memory_gb
    if arguments.scheduler is None and arguments.workers > 1:
        threads = threads or max(1, _cores() // arguments.workers)
        memory_gb = memory_gb or _memory_gb(arguments.workers)
    computer = [] if threads is None else ["--threads", str(threads)]
    computer += [] if memory_gb is None else ["--memory-gb", f"{memory_gb:.3f}"]
    return Options(tuple(register), tuple(computer), arguments.format == "learn2reg")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb(workers: int) -> float:
    from MMRegCore.runtime import GIB, available_memory_bytes

    return min(_PLANNED_GB, max(_LEAST_GB, _SHARE * available_memory_bytes() / GIB / workers))


def evaluate(arguments: argparse.Namespace, screen: Screen) -> int:
    """Score a folder of transforms or displacement fields, ours or another tool's, by Learn2Reg's definitions.

    For every case it takes CASE/transform.h5, Learn2Reg's disp_*.nii.gz or CASE.* (a transform that ITK reads).
    """
    from MMRegCore.cohort.cases import read_cases
    from MMRegCore.cohort.scoring import find_result, score
    from MMRegCore.cohort.table import (
        PAGE_FILE,
        TABLE_FILE,
        Row,
        failed_row,
        summary,
        worst_first,
        write_csv,
        write_html,
    )
    from MMRegCore.errors import MMRegError

    if not arguments.folder.is_dir():
        raise InputError(f"expected a folder of transforms or fields; got {arguments.folder}, which is none")
    cases = read_cases(arguments.cases)
    if arguments.output is not None:
        check_output_folder(arguments.output)
    rows: list[Row] = []
    with cancel_on_signals(Monitor(screen)) as monitor:
        for number, case in enumerate(cases):
            monitor.report(f"case {number + 1} of {len(cases)}", number / len(cases))
            path = find_result(arguments.folder, case)
            try:
                if path is None:
                    raise InputError(f"expected a transform or field in {arguments.folder}; got none")
                rows.append(Row(case.name, "", **asdict(score(case, path))))
            except MMRegError as error:
                rows.append(failed_row(case.name, " ".join(str(error).split())))
    content = {"cases": [asdict(row) for row in worst_first(rows)], "summary": summary(rows)}
    print(json.dumps(_finite(content), indent=2, allow_nan=False))
    if arguments.output is not None:
        from MMRegCore.io.files import staged_folder

        with staged_folder(arguments.output) as folder:
            write_csv(rows, folder / TABLE_FILE)
            write_html(rows, folder / PAGE_FILE, title=f"Scores of {arguments.folder.name}")
    return _SOME_FAILED if any(row.verdict == "failed" for row in rows) else 0


def _finite(value: Any) -> Any:  # noqa: ANN401 - anything that JSON holds
    """With null for numbers that JSON has not: infinite distances, deviations of one case."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replay(arguments: argparse.Namespace, screen: Screen) -> int:
    """Do a registration again from its result.json, and say whether the transform is the same; exit code 1 if not.

    The inputs are found by their checksums, whatever they are called now.
    """
    if arguments.output is not None:
        check_output_folder(arguments.output)
    from MMRegCore.records import to_json
    from MMRegCore.replay import read_provenance
    from MMRegCore.replay import replay as repeat
    from MMRegCore.threads import use_threads

    if arguments.threads is None:
        use_threads(read_provenance(arguments.result).threads)
    folder = arguments.result.absolute().parent
    with cancel_on_signals(Monitor(screen)) as monitor:
        found, inputs, result = repeat(
            arguments.result, arguments.inputs or [folder.parent], device=arguments.device, monitor=monitor
        )
        if arguments.output is not None:
            monitor.report("writing the result", 1.0)
            result.save(arguments.output, fixed=inputs.fixed)
    print(json.dumps(to_json(found), indent=2))
    return 0 if found.same else _DIFFERENT
