"""Where a run happens: the device and its memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from MMRegCore.errors import DeviceError

GIB = 1024**3
# Enough that parts of a cost volume overlap little; more would not be faster on a CPU.
_CPU_DEFAULT_BYTES = 2 * GIB


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device; `DeviceError` says what is there instead."""
    cuda_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if cuda_count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdigit() or name == "cuda"):
        raise DeviceError(f"expected the device to be auto, cpu, cuda or cuda:N; got '{name}'")
    index = int(number) if number else 0
    if index >= cuda_count:
        found = f"{cuda_count} CUDA device(s)" if cuda_count else "no CUDA device (only cpu)"
        raise DeviceError(f"expected the device '{name}' to be there; PyTorch {torch.__version__} finds {found}")
    return torch.device("cuda", index)


def is_mixed(device: torch.device, precision: str) -> bool:
    """Whether networks compute in bfloat16 where that is safe.

    'mixed' does, 'float32' does not; 'auto' does on a GPU, and on a processor that has instructions for it.
    """
    # Older releases of PyTorch do not say what a processor can.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = device.type == "cuda" or capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return precision == "mixed" or (precision == "auto" and bool(fast))


def memory_budget_bytes(device: torch.device, memory_gb: float | None = None) -> int:
    """How much memory a run may plan with: what was asked for, else a careful share of what is free.

    Raises `DeviceError` when ``memory_gb`` is below 0.1 or not finite.
    """
    if memory_gb is not None:
        if not 0.1 <= memory_gb < float("inf"):
            raise DeviceError(f"expected the memory to be at least 0.1 GB; got {memory_gb}")
        return int(memory_gb * GIB)
    if device.type == "cuda":
        return int(0.6 * torch.cuda.mem_get_info(device)[0])
    return min(_CPU_DEFAULT_BYTES, max(available_memory_bytes() // 2, GIB // 4))


def available_memory_bytes() -> int:
    """Memory that this machine could still give, in bytes; total memory where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return total_memory_bytes() or 4 * GIB


def total_memory_bytes() -> int | None:
    """Memory of this machine in bytes; None where the system does not say, as Windows."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that this process (or, on a GPU, its tensors) held so far, in bytes; None where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        resource = import_module("resource")
    except ModuleNotFoundError:  # Windows has none
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def package_version(name: str) -> str | None:
    """The version of a package that can be imported; None when it is not there or does not tell.

    Packages that a program carries with it, such as Slicer's SimpleITK, may have come without pip's notes.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        if find_spec(name) is None:
            return None
        found = getattr(import_module(name), "__version__", None)
        return None if found is None else str(found)
