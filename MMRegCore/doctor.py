"""What this computer offers, and whether a small registration comes out right on it."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import numpy as np
import torch

from MMRegCore.config import DEFAULT_PRESET, load_preset, with_changes
from MMRegCore.errors import Cancelled, DeviceError, MMRegError
from MMRegCore.geometry import Array, Grid
from MMRegCore.monitor import Monitor
from MMRegCore.pipeline import register
from MMRegCore.runtime import GIB, package_version, total_memory_bytes
from MMRegCore.version import __version__
from MMRegCore.volume import Volume

_NEEDED = ("torch", "numpy", "SimpleITK", "safetensors")
_OPTIONAL = {"matplotlib": "pictures in reports: pip install 'mmreg[report]'", "nilearn": "pip install 'mmreg[demo]'"}

# The self-test: the second image shows the same blobs in other brightness, moved by this much (RAS mm).
SHIFT_MM = (2.0, -1.5, 1.0)
_SIZE = 48
_BLOBS = 60
# The default preset, model selection and expected error included, on samples as coarse as the blobs allow.
_CHANGES = {"lc2.search.sampling_spacing_mm": "3,2,1.5", "lc2.search.range_mm": "6", "lc2.iterations": "10"}
# A quarter of the way left to go is a failure of the installation, not a question of tuning.
_LARGEST_SHARE_LEFT = 0.25


def examine(*, device: str = "auto", monitor: Monitor | None = None) -> dict[str, Any]:
    """Look at the installation and try it, with the self-test on ``device``: 'auto', 'cpu', 'cuda' or 'cuda:N'.

    JSON-able: ``versions``, ``optional``, ``computer``, ``cuda_devices``, ``self_test`` (of `self_test`).
    """
    memory = total_memory_bytes()
    return {
        "versions": {"mmreg": __version__, "python": platform.python_version(), **_versions(_NEEDED)},
        "optional": _versions(tuple(_OPTIONAL)),
        "computer": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "memory_gb": None if memory is None else memory / GIB,
        },
        "cuda_devices": [_cuda_device(index) for index in range(torch.cuda.device_count())],
        "self_test": self_test(device=device, monitor=monitor),
    }


def self_test(*, device: str = "auto", monitor: Monitor | None = None) -> dict[str, Any]:
    """Register two small made-up images whose shift is known.

    ``passed``, ``elapsed_s``, ``error_before_mm`` and ``error_after_mm`` (mean over the middle of the image), or
    ``problem`` in place of the errors when no result came.  Raises `DeviceError` when the device is not there.
    """
    start_s = time.perf_counter()
    fixed, moving = _blobs("fixed", np.zeros(3), False), _blobs("moving", np.array(SHIFT_MM), True)
    try:
        result = register(
            fixed, moving, settings=with_changes(load_preset(DEFAULT_PRESET), _CHANGES), device=device, monitor=monitor
        )
    except (Cancelled, DeviceError):
        raise
    except (MMRegError, RuntimeError) as error:
        return {"passed": False, "elapsed_s": time.perf_counter() - start_s, "problem": str(error)}
    points = fixed.grid.points_ras()[8:-8:4, 8:-8:4, 8:-8:4].reshape(-1, 3)
    error_mm = np.linalg.norm(result.transform.apply(points) - points - SHIFT_MM, axis=1).mean()
    before_mm = float(np.linalg.norm(SHIFT_MM))
    return {
        "passed": bool(error_mm <= _LARGEST_SHARE_LEFT * before_mm),
        "elapsed_s": time.perf_counter() - start_s,
        "error_before_mm": before_mm,
        "error_after_mm": float(error_mm),
    }


def as_text(findings: dict[str, Any]) -> str:
    """Write what `examine` found for a person."""
    versions, computer, test = findings["versions"], findings["computer"], findings["self_test"]
    memory = "unknown" if computer["memory_gb"] is None else f"{computer['memory_gb']:.1f} GB"
    devices = [f"{gpu['device']} {gpu['name']}, {gpu['memory_gb']:.1f} GB" for gpu in findings["cuda_devices"]]
    outcome = test.get("problem") or f"{test['error_before_mm']:.2f} mm before, {test['error_after_mm']:.2f} mm after"
    verdict = "passed" if test["passed"] else "FAILED"
    rows = {
        **{name: value or "missing" for name, value in versions.items()},
        **{name: value or f"not installed ({_OPTIONAL[name]})" for name, value in findings["optional"].items()},
        "system": computer["system"],
        "processors": f"{computer['processors']}, {computer['torch_threads']} used by torch",
        "memory": memory,
        "GPU": "; ".join(devices) or "none that torch can use; the processor does the work",
        "self-test": f"{verdict} in {test['elapsed_s']:.1f} s: {outcome}",
    }
    return "\n".join(f"{name:13} {value}" for name, value in rows.items())


def _versions(names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: package_version(name) for name in names}


def _cuda_device(index: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(index)
    return {"device": f"cuda:{index}", "name": about.name, "memory_gb": about.total_memory / GIB}


def _blobs(name: str, shift_mm: Array, inverted: bool) -> Volume:
    """Blobs of two to four mm at random places, 1 mm voxels; exact, no resampling is involved."""
    grid = Grid((_SIZE, _SIZE, _SIZE), np.eye(4))
    random = np.random.default_rng(0)
    values = np.zeros(grid.shape)
    points = grid.points_ras() - shift_mm
    for _ in range(_BLOBS):
        middle, width, height = random.uniform(0, _SIZE, 3), random.uniform(2, 4), random.uniform(0.3, 1)
        values += height * np.exp(-((points - middle) ** 2).sum(axis=-1) / (2 * width**2))
    brightness = np.exp(-values) if inverted else values
    return Volume(torch.from_numpy(100 * brightness)[None], grid, name=name)
