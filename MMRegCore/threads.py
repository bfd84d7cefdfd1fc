"""How many threads compute, and how they wait; needs no torch, because it must be settled before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from MMRegCore.errors import InputError

# What a user may have said about it already.
_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def wait_briefly() -> None:
    """Let threads that wait for each other give way soon; must be called before torch is imported.

    By default OpenMP's threads spin while they wait, for up to milliseconds. On a machine where something else works
    too, such as Slicer drawing, they then take the core from the very thread that they wait for, and a registration
    takes several times as long. Nothing is changed where the user has set any of it.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = "1000"  # GNU (Linux)
        os.environ["KMP_BLOCKTIME"] = "0"  # Intel and LLVM (Windows, macOS), ms


def use_threads(count: int | None) -> None:
    """Compute with so many threads; None leaves the number to torch.

    Raises
    ------
    InputError
        When it is not positive.
    """
    if count is None:
        return
    if count < 1:
        raise InputError(f"expected at least 1 thread; got {count}")
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(count)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


@contextmanager
def at_most(count: int | None) -> Iterator[None]:
    """Let torch compute with no more threads than so many meanwhile; None leaves the number as it is."""
    import torch

    before = torch.get_num_threads()
    if count is None or count >= before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_kept() -> Iterator[None]:
    """Compute afterwards with as many threads as before, whatever `use_threads` was told meanwhile."""
    import SimpleITK as sitk
    import torch

    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])
