"""Any size: time and peak memory on synthetic volumes, a process each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks import record

CASES = (
    ("lc2", (64, 64, 64)),
    ("mcbo", (64, 64, 64)),
    ("lc2", (128, 128, 128)),
    ("mcbo", (128, 128, 128)),
    ("lc2", (256, 256, 256)),
    ("mcbo", (256, 256, 256)),
    ("mcbo-clem", (32, 256, 256)),
    ("lc2", (512, 512, 512)),
    ("mcbo", (512, 512, 512)),
)


def main() -> None:
    """Measure and write ``results/sizes``."""
    rows: list[dict[str, Any]] = []
    for preset, shape in CASES:
        words = [sys.executable, "-m", "benchmarks.sizes", preset, *map(str, shape)]
        printed = subprocess.run(words, cwd=record.ROOT, capture_output=True, text=True, check=True).stdout.split()
        seconds, peak_gb, before, after = (float(word) for word in printed[-4:])
        rows.append(
            {
                "preset": preset,
                "size (D, H, W)": " × ".join(map(str, shape)),
                "seconds": seconds,
                "peak GB": peak_gb,
                "mean error before, voxel": before,
                "mean error after, voxel": after,
            }
        )
        print(rows[-1], flush=True)
    record.write("sizes", rows, "Synthetic texture moved by (2, −1, 1) voxels; 1 mm voxels; QA included, no report.")


def measure(preset: str, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Seconds, peak GB, and the mean error before and after, in voxels."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from MMRegCore import Grid, Volume, register

    coarse = torch.rand(1, 1, *(max(n // 4, 6) for n in shape), generator=torch.Generator().manual_seed(0))
    wide = F.interpolate(coarse, size=tuple(n + 8 for n in shape), mode="trilinear")[0]
    depth, height, width = shape
    grid = Grid((depth, height, width), np.eye(4))
    fixed = wide[:, 4 + 2 : 4 + 2 + depth, 4 - 1 : 4 - 1 + height, 4 + 1 : 4 + 1 + width]
    moving = wide[:, 4 : 4 + depth, 4 : 4 + height, 4 : 4 + width]
    result = register(Volume(fixed, grid), Volume(moving, grid), settings=preset, device="cpu")
    truth = torch.tensor([1.0, -1.0, 2.0])
    middle = tuple(slice(n // 6, n - n // 6) for n in shape)
    found = result.transform.displacement_field(grid).displacement_mm[middle]
    provenance = result.provenance
    return (
        round(provenance.timings_s["total"], 1),
        round((provenance.peak_memory_bytes or 0) / 1e9, 2),
        round(float(truth.norm()), 2),
        round(float((found - truth).norm(dim=-1).mean()), 2),
    )


if __name__ == "__main__":
    print(*measure(sys.argv[1], tuple(int(word) for word in sys.argv[2:5])))
