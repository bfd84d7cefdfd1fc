"""The cases of a cohort, each in a process of its own: one after the other, or through Dask."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MMRegCore.cohort.cases import Case
from MMRegCore.cohort.table import Row, failed_row, row_of
from MMRegCore.errors import InputError
from MMRegCore.monitor import Monitor

SCORES_FILE = "scores.json"
SUBMISSION = "learn2reg"
_CHILD = "MMRegCore.cli.child"
_POLL_S = 0.1
# A child that was told to end has so long to do it.
_ENDING_S = 30.0
# So often a worker may die with one and the same case before that counts as failed.
_LIVES = 10
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Options:
    """How every case is run.

    Attributes
    ----------
    register : tuple of str
        Options of ``mmreg register`` that decide the result, such as ``--preset``.
    computer : tuple of str
        Options that do not, such as ``--threads``.
    submission : bool
        Whether a displacement field is written as Learn2Reg takes it.
    """

    register: tuple[str, ...] = ()
    computer: tuple[str, ...] = ()
    submission: bool = False


def run_cases(
    cases: Sequence[Case],
    folder: Path,
    options: Options,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    monitor: Monitor | None = None,
    on_row: Callable[[Row], None] = lambda _: None,
) -> tuple[Row, ...]:
    """Run every case that is not done, and give one row for each, in the order of ``cases``.

    A case is done when its scores are there, and were made with the same options from files that did not change since.
    One that fails is a row too.

    Parameters
    ----------
    folder : path
        Gets one folder for each case.
    workers : int
        Cases at once; more than one needs Dask's ``distributed``.
    scheduler : str, optional
        Address of a Dask scheduler, in place of workers of our own.
    on_row : callable, optional
        Called with every row as soon as it is known, those of done cases first.

    Raises
    ------
    InputError
        When there are less than 1 workers, or Dask is needed and not there.
    Cancelled
        When the run was cancelled through the monitor; cases that are done stay.
    """
    if workers < 1:
        raise InputError(f"expected at least 1 worker; got {workers}")
    if (workers > 1 or scheduler) and find_spec("distributed") is None:
        raise InputError(
            "expected Dask for several workers: pip install 'mmreg[batch]'; got none (--workers 1 needs none)"
        )
    monitor = monitor or Monitor()
    rows: dict[str, Row] = {}

    def keep(row: Row) -> None:
        rows[row.case] = row
        on_row(row)

    for case in cases:
        if is_done(case, folder, options):
            keep(row_of(case.name, folder))
    left = [case for case in cases if case.name not in rows]
    monitor.report(f"{len(rows)} of {len(cases)} cases were done before" if rows else f"{len(cases)} cases", 0.0)

    def progress() -> None:
        monitor.report(f"{len(rows)} of {len(cases)} cases", 1 - (len(cases) - len(rows)) / max(1, len(left)))

    found = (
        _with_dask(left, folder, options, workers, scheduler, progress)
        if workers > 1 or scheduler
        else (run_case(case, folder, options, progress) for case in left)
    )
    for row in found:
        keep(row)
        progress()
    return tuple(rows[case.name] for case in cases)


def request_of(case: Case, options: Options) -> dict[str, Any]:
    """What decides the result of a case: the options, and its files with their sizes and dates."""
    given = asdict(case)
    texts = [value for entry in given.values() for value in (entry if isinstance(entry, tuple) else [entry])]
    files = {text: _stamp(Path(text)) for text in texts if isinstance(text, str) and Path(text).is_absolute()}
    request = {
        "case": given,
        "options": [*options.register, *(["learn2reg"] if options.submission else [])],
        "files": files,
    }
    plain: dict[str, Any] = json.loads(json.dumps(request))
    return plain


def _stamp(path: Path) -> list[int] | None:
    """Size and date of a file or of what a folder holds; None where it is not there."""
    try:
        stats = [each.stat() for each in (path.iterdir() if path.is_dir() else [path])]
    except OSError:
        return None
    return [sum(each.st_size for each in stats), max((each.st_mtime_ns for each in stats), default=0)]


def is_done(case: Case, folder: Path, options: Options) -> bool:
    """Whether a case was run and scored with these options and files."""
    with suppress(OSError, ValueError):
        content = json.loads((folder / case.name / SCORES_FILE).read_text(encoding="utf-8"))
        written = not options.submission or (folder / SUBMISSION / case.displacement).is_file()
        return bool(written and content["request"] == request_of(case, options) and row_of(case.name, folder))
    return False


def run_case(case: Case, folder: Path, options: Options, check: Callable[[], object] = lambda: None) -> Row:
    """Run one case in a process of its own, which ends when this one does; its row, also where it fails.

    ``check`` is called all the while; when it raises, the process is told to end.
    """
    request = {
        "arguments": [*_command(case, options), "--output", str(folder / case.name)],
        "request": request_of(case, options),
        "case": asdict(case),
        "folder": str(folder),
        "submission": options.submission,
    }
    with tempfile.TemporaryFile() as told:
        code = _run_child(json.dumps(request), told.fileno(), check)
        told.seek(0)
        lines = told.read().decode("utf-8", "replace").strip().splitlines()
    if code == 0:
        return row_of(case.name, folder)
    reason = next(
        (line for line in reversed(lines) if line.startswith("mmreg: ")), f"the process ended with code {code}"
    )
    return failed_row(case.name, reason.removeprefix("mmreg: ").removeprefix("error: ")[:_LONGEST_REASON])


def _command(case: Case, options: Options) -> list[str]:
    words = ["register", "--fixed", case.fixed, "--moving", *case.moving]
    words += ["--moving-mask", *case.moving_mask] if case.moving_mask else []
    words += ["--fixed-mask", case.fixed_mask] if case.fixed_mask else []
    words += ["--initial-transform", case.initial_transform] if case.initial_transform else []
    return [*words, *options.register, *options.computer]


def _run_child(request: str, output: int, check: Callable[[], object]) -> int:
    # Found as this process found it, installed or not.
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", _CHILD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=output, env=environment
    ) as child:
        try:
            # It stays open: the child ends when it is closed, however this process ends.
            if child.stdin is not None:
                with suppress(BrokenPipeError):
                    child.stdin.write(request.encode() + b"\n")
                    child.stdin.flush()
            while child.poll() is None:
                check()
                time.sleep(_POLL_S)
        except BaseException:
            _end(child)
            raise
        return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_ENDING_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _run_unless_done(case: Case, folder: Path, options: Options) -> Row:
    """Run a case; a worker that dies takes what it told of cases that are done with it, and Dask asks again."""
    return row_of(case.name, folder) if is_done(case, folder, options) else run_case(case, folder, options)


def _with_dask(
    cases: Sequence[Case],
    folder: Path,
    options: Options,
    workers: int,
    scheduler: str | None,
    progress: Callable[[], object],
) -> Iterator[Row]:
    with _client(min(workers, max(1, len(cases))), scheduler) as client:
        token = hashlib.sha256(f"{time.time_ns()}{os.getpid()}".encode()).hexdigest()[:12]
        pending = {
            client.submit(
                _run_unless_done, case, folder.absolute(), options, key=f"mmreg-{token}-{case.name}", pure=False
            ): case
            for case in cases
        }
        while pending:
            for future in [each for each in pending if each.done()]:
                case = pending.pop(future)
                # A worker may have died after its case was done.
                if future.status == "finished":
                    yield future.result()
                elif is_done(case, folder, options):
                    yield row_of(case.name, folder)
                else:
                    yield failed_row(case.name, f"its worker failed: {future.exception()}"[:_LONGEST_REASON])
            progress()
            time.sleep(_POLL_S)


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    if scheduler:
        with Client(scheduler) as client:
            yield client
        return
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": _LIVES}),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
