"""Files that are whole or not there: written under another name, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from MMRegCore.errors import InputError

PathLike = str | os.PathLike[str]

try:
    import fcntl
except ModuleNotFoundError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

_PARTIAL, _LOCK = "-partial", ".lock"
_DOUBLE_SUFFIXES = (".nii.gz", ".mrk.json")


def suffix_of(path: PathLike) -> str:
    """The suffix in lower case, with both parts of ``.nii.gz`` and ``.mrk.json``."""
    name = Path(path).name.lower()
    return next((suffix for suffix in _DOUBLE_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


def stem_of(path: PathLike) -> str:
    """The file name without :func:`suffix_of`."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


def itk_name(path: str | os.PathLike[str]) -> str:
    """A path as ITK takes it; raises `InputError` where it cannot be written in UTF-8, on which ITK aborts."""
    name = os.fspath(path)
    if "\0" in name:
        raise InputError(f"expected a path; got {name!r}, which holds a null byte")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise InputError(f"expected a path in UTF-8; got '{shown}': rename the file or its folder") from error
    return name


def check_readable(path: Path, what: str) -> None:
    """Raise `InputError` unless ``path`` is a file that can be opened and holds something."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise InputError(f"expected {what}; got {path}, which does not exist") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"expected {what}; got {path}, which cannot be opened: {reason}") from error
    if empty:
        raise InputError(f"expected {what}; got {path}, which is empty")


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes the place of ``path`` once it is complete.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist.

    Yields
    ------
    Path
        In the same folder with the same suffixes.  The body must write this file, and nothing else.

    Raises
    ------
    InputError
        When the file cannot be written (no such folder, no permission, disk full).  After this or any
        other exception the temporary file is gone and ``path`` is as it was before.
    """
    path = Path(itk_name(path))
    # Not longer than it must be: names that are as long as they may be are taken too.
    temporary = path.with_name(f".{secrets.token_hex(4)}{suffix_of(path)}")
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(folder: PathLike) -> Iterator[Path]:
    """Give a new temporary folder; on success what it holds is moved into ``folder``.

    Parameters
    ----------
    folder : path
        Made, with its parents, where it does not exist; files of the same name in it are replaced.  Temporary folders
        in it that a killed process left behind are removed.

    Raises
    ------
    InputError
        When ``folder`` cannot be written to.  After this or any other exception nothing of the temporary
        folder is left, nor are folders that did not exist before.
    """
    folder = Path(folder)
    made: list[Path] = []
    staging: Path | None = None
    try:
        made = _make_folders(folder)
        remove_abandoned(folder)
        # Inside the folder, so that moving out of it is a rename even where the folder is a mount point.
        staging = folder / f".{secrets.token_hex(4)}{_PARTIAL}"
        staging.mkdir()
        with _held(staging):
            yield staging
            _move_contents(staging, folder)
        made = []
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders in ``folder`` that no living process holds."""
    for path in folder.glob(f".*{_PARTIAL}"):
        if path.is_dir() and not _is_held(path):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _held(staging: Path) -> Iterator[None]:
    """Mark a temporary folder as in use, in a way that ends with the process, however that ends."""
    with (staging / _LOCK).open("wb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_held(staging: Path) -> bool:
    lock = staging / _LOCK
    try:
        if fcntl is None:  # on Windows an open file cannot be removed
            lock.unlink(missing_ok=True)
            return False
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _make_folders(folder: Path) -> list[Path]:
    """Make ``folder`` and its parents; the new ones, outermost first.  Leaves none behind when one cannot be made."""
    missing = [path for path in [folder, *folder.parents] if not path.exists()][::-1]
    made: list[Path] = []
    try:
        for path in missing:
            path.mkdir()
            made.append(path)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
    except OSError:
        for path in reversed(made):
            path.rmdir()
        raise
    return made


def _move_contents(staging: Path, folder: Path) -> None:
    files = [path for path in sorted(staging.rglob("*")) if path.is_file() and path.name != _LOCK]
    targets = [folder / path.relative_to(staging) for path in files]
    # Looked at before the first move, so that a clash leaves the folder as it was.
    for target in targets:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{target.name} is a folder there")
    for path in files:
        _flush_to_disk(path)
    for path, target in zip(files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _flush_to_disk(path: Path) -> None:
    """Some file systems tell only here that the disk is full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}")
