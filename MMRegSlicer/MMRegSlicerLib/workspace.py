"""The private folder through which the application and a process exchange files; never left behind for long."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

_PREFIX = "mmreg-"
_LOCK = "lock"
# A folder is a moment old before its lock is held; nobody else must take that for a crash.
_YOUNG_S = 60.0


class Workspace:
    """A folder that is there until `close`, and that the next one removes when the application crashed before.

    Notes
    -----
    The application holds a lock on a file inside. The system lets go of it however the application ends, so that a
    folder whose lock can be had belongs to nobody any more; process numbers would come again.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (self.folder / _LOCK).open("w")
        _try_lock(lock)
        # Also when the application quits, or nobody holds this any more.
        self._finish = weakref.finalize(self, _close, lock, self.folder)

    def close(self) -> None:
        """Remove the folder with everything in it. May be called again."""
        self._finish()


def remove_abandoned() -> None:
    """Remove the folders of applications that ended without `Workspace.close`: by a crash, or killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # What belongs to another user, or is being removed by another application, is left to them.
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _YOUNG_S and _is_abandoned(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _close(lock: IO[str], folder: Path) -> None:
    lock.close()
    shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    # Opened for appending it is not made where it is not: without a lock, the folder is somebody else's.
    if not path.is_file():
        return False
    with path.open("a") as file:
        return _try_lock(file)


def _try_lock(file: IO[str]) -> bool:
    """Take the lock of a file until it is closed; False when another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
