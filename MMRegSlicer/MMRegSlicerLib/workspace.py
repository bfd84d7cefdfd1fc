"""The temporary folder in which the application and a process exchange files; always removed, even after a crash."""

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
# Between creating a folder and locking it there is a moment; a folder without a lock is stale only after this time.
_GRACE_S = 60.0


class Workspace:
    """A temporary folder that exists until `close`; after a crash of the application the next one removes it.

    Notes
    -----
    The application holds a lock on a file inside. The system releases it however the application ends, so a folder
    whose lock can be acquired is stale. Process numbers would be reused.
    """

    def __init__(self) -> None:
        remove_stale()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (self.folder / _LOCK).open("w")
        _try_lock(lock)
        # Also when the application quits, or when this object is deleted.
        self._finish = weakref.finalize(self, _close, lock, self.folder)

    def close(self) -> None:
        """Remove the folder and its contents. May be called again."""
        self._finish()


def remove_stale() -> None:
    """Remove the folders of applications that crashed or were killed before `Workspace.close`."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Folders of other users, and those that another application is removing, are skipped.
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _GRACE_S and _is_stale(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _close(lock: IO[str], folder: Path) -> None:
    lock.close()
    shutil.rmtree(folder, ignore_errors=True)


def _is_stale(path: Path) -> bool:
    # A folder without a lock file is not one of ours; opening the file would create it.
    if not path.is_file():
        return False
    with path.open("a") as file:
        return _try_lock(file)


def _try_lock(file: IO[str]) -> bool:
    """Lock a file until it is closed; False when another process holds the lock."""
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
