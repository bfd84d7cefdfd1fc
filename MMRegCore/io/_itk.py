"""Keeping ITK's voice out of ours: its warnings, its error texts, and what the C libraries below it print."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

logger = logging.getLogger(__name__)

_LOCK = threading.RLock()
# What a reader of ITK raises; what it says may hold bytes of the file, which are no text.
ITK_ERRORS = (RuntimeError, UnicodeDecodeError)


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Hold back what ITK, HDF5, GDCM and the NIfTI library print; it goes to the log at debug level."""
    # One at a time: the stderr of the process is swapped, and must be put back in order.
    with _LOCK, tempfile.TemporaryFile() as spool:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _stderr_to(spool.fileno()):
                yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
            spool.seek(0)
            printed = spool.read().decode(errors="replace").strip()
            if printed:
                logger.debug("ITK printed: %s", printed)


@contextmanager
def _stderr_to(descriptor: int) -> Iterator[None]:
    """Send the process's stderr to a file, also that of C code, which Python's own redirection does not reach."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # a windowed application may have no stderr
        yield
        return
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def last_line(error: Exception) -> str:
    """The end of an ITK error text, where ITK says what was wrong, without addresses and source paths."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\(0x[0-9a-f]+\)", "", lines[-1].rsplit("ERROR: ", 1)[-1]) if lines else "no reason given"


def write_failure(path: Path, size_bytes: int) -> OSError:
    """The likely reason why ITK, which does not say, could not write ``size_bytes`` to ``path``."""
    code = errno.EIO
    if shutil.disk_usage(path.parent).free < size_bytes:
        code = errno.ENOSPC
    elif not os.access(path.parent, os.W_OK):
        code = errno.EACCES
    return OSError(code, os.strerror(code))
