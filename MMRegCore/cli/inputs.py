"""What the verbs make of their options."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from MMRegCore.errors import InputError
from MMRegCore.io.files import itk_name, remove_abandoned

if TYPE_CHECKING:
    from MMRegCore.io.landmarks import Landmarks
    from MMRegCore.volume import Volume

NO_MASK = "none"


def changes_from(texts: Sequence[str]) -> dict[str, str]:
    """Read ``key=value`` texts; raises `InputError` for a text without ``=`` or a key given twice."""
    changes: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"expected --set KEY=VALUE; got '{text}'")
        if key.strip() in changes:
            raise InputError(f"expected every setting once; got {key.strip()} twice")
        changes[key.strip()] = value
    return changes


def check_output_folder(folder: Path) -> None:
    """Raise `InputError` unless files can be made in ``folder``, or in the folder that it will be made in.

    A run of minutes must not end in a folder that cannot be written; nothing stays behind.
    """
    itk_name(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # Only trying tells: rights, mounts and quotas all have their say.
        with tempfile.TemporaryFile(dir=existing):
            pass
        remove_abandoned(folder)
    except OSError as error:
        raise InputError(
            f"expected --output to be a folder that can be written; got {folder}: {error.strerror}"
        ) from error


def read_moving(paths: Sequence[Path], masks: Sequence[str]) -> tuple[Volume, ...]:
    """Read the moving images, each with its mask, under names that differ.

    ``masks`` are paths in the same order, ``'none'`` for an image without; those not given are none.  Raises
    `InputError` when there are more masks than images, and as `read_volume`.
    """
    from MMRegCore.io.volumes import read_volume
    from MMRegCore.volume import distinctly_named

    if len(masks) > len(paths):
        raise InputError(f"expected at most one --moving-mask per --moving; got {len(masks)} for {len(paths)}")
    volumes = []
    for path, mask in zip_longest(paths, masks, fillvalue=NO_MASK):
        volumes.append(read_volume(path, mask_path=None if mask == NO_MASK else mask))
    return tuple(distinctly_named(volumes))


def read_landmarks_given(arguments: argparse.Namespace) -> tuple[Landmarks, Landmarks] | None:
    """Read the fixed and the moving landmarks of ``--landmarks``, or of one option for each; None without any of them.

    Raises `InputError` for half of a pair, for both ways at once, and as the readers.
    """
    from MMRegCore.io.landmarks import read_landmark_pairs, read_landmarks

    lists = [arguments.fixed_landmarks, arguments.moving_landmarks]
    if arguments.landmarks is None and not any(lists):
        return None
    if (arguments.landmarks is None) == (None in lists) or (arguments.landmarks and any(lists)):
        raise InputError("expected --landmarks PAIRS, or --fixed-landmarks A and --moving-landmarks B")
    if arguments.landmarks:
        return read_landmark_pairs(arguments.landmarks)
    fixed, moving = (read_landmarks(path) for path in lists)
    return fixed, moving
