"""One case of a cohort in a process of its own: ``python -m MMRegCore.cli.child`` with a request on stdin.

It registers, writes the field that Learn2Reg takes where that is asked for, scores, and says last of all that it is
done.  It ends when stdin is closed, which the system does when the process that started it is gone.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from MMRegCore.cli.main import BAD_INPUT, DONE, main
from MMRegCore.errors import MMRegError

_PATIENCE_S = 20.0
_PICTURE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def run() -> int:
    """Do what the first line of stdin asks for; exit codes as of ``mmreg``."""
    # Unbuffered: Python cannot end while a thread that still waits holds the lock of a buffer.
    stream = FileIO(0, closefd=False)
    request = json.loads(stream.readline())
    threading.Thread(target=_end_with_parent, args=(stream,), daemon=True).start()
    code = main(request["arguments"])
    if code != DONE:
        return code
    try:
        _finish(request)
    except MMRegError as error:
        print(f"mmreg: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    return DONE


def _end_with_parent(stream: FileIO) -> None:
    stream.read(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_S)
    os._exit(BAD_INPUT)


def _finish(request: dict[str, Any]) -> None:
    from MMRegCore.cohort.cases import Case
    from MMRegCore.cohort.run import SCORES_FILE, SUBMISSION
    from MMRegCore.cohort.scoring import score
    from MMRegCore.cohort.table import PICTURE_FILE
    from MMRegCore.io.files import atomic_path
    from MMRegCore.records import from_json, to_json
    from MMRegCore.result import TRANSFORM_FILE

    case = from_json(Case, request["case"])
    folder = Path(request["folder"])
    own = folder / case.name
    if request["submission"]:
        _write_submission(case, own / TRANSFORM_FILE, folder / SUBMISSION)
    with suppress(OSError):
        found = _PICTURE.search((own / "report.html").read_text(encoding="utf-8"))
        if found:
            with atomic_path(own / PICTURE_FILE) as temporary:
                temporary.write_bytes(base64.b64decode(found[1]))
    content: dict[str, Any] = {"request": request["request"], "scores": None, "problem": ""}
    try:
        content["scores"] = to_json(score(case, own / TRANSFORM_FILE))
    except MMRegError as error:
        content["problem"] = f"not scored: {' '.join(str(error).split())}"
    with atomic_path(own / SCORES_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _write_submission(case: Any, transform: Path, folder: Path) -> None:  # noqa: ANN401 - a Case
    from MMRegCore.cohort.scoring import grid_of
    from MMRegCore.io.learn2reg import write_displacement
    from MMRegCore.io.transforms import read_transform

    folder.mkdir(exist_ok=True)
    fixed, moving = grid_of(case.fixed), grid_of(case.moving[0])
    write_displacement(read_transform(transform), folder / case.displacement, fixed=fixed, moving=moving)


if __name__ == "__main__":
    sys.exit(run())
