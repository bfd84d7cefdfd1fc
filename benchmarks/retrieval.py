"""How well descriptors tell places apart across modalities: MIND, and MASR-Net before and after its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import record
from benchmarks.subjects import SPLITS, label_map, subjects
from MMRegCore import Volume, read_volume
from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network
from MMRegCore.simulate import BrainShiftSettings, anatomy_from_labels, simulate, with_contrasts
from MMRegCore.training.contrastive import at_places, foreground_places, retrieval
from MMRegCore.warp import resample

PLACES = 2048
# Cubes cut out of every pair, and their size.
CUBES, CUBE_VOXEL = 2, 64
# No training uses seeds from here on.
_FIRST_SEED = 90_000


@dataclass(frozen=True, eq=False)
class Pair:
    """Two aligned images (1, 1, D, H, W) in [0, 1], and where both show something (D, H, W)."""

    kind: str
    first: torch.Tensor
    second: torch.Tensor
    foreground: torch.Tensor


def main() -> None:
    """Write ``results/retrieval``."""
    torch.manual_seed(0)
    untrained = MasrNet().eval()
    trained = load_network("masrnet")
    methods: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "MIND-SSC": mind_ssc,
        "MASR-Net, untrained": untrained,
        "MASR-Net": trained,
    }
    scores: dict[str, dict[str, list[float]]] = {}
    for number, pair in enumerate(_pairs()):
        of_kind = scores.setdefault(pair.kind, {name: [] for name in methods})
        for name, method in methods.items():
            of_kind[name] += _scores(pair, method, "distance" if name == "MIND-SSC" else "angle", number)
    rows = [
        {"pairs": kind, "cubes": len(found["MASR-Net"])}
        | {f"{name} [%]": round(100 * float(np.mean(values)), 1) for name, values in found.items()}
        for kind, found in scores.items()
    ]
    notes = (
        f"Share of {PLACES} places in the foreground of a cube of {CUBE_VOXEL}³ voxels whose most similar place in the "
        f"other image is the right one; {100 / PLACES:.2f} % by chance. None of these subjects was trained on."
    )
    record.write("retrieval", rows, notes)


def _scores(pair: Pair, method: Callable[[torch.Tensor], torch.Tensor], compare: str, seed: int) -> list[float]:
    stream = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(CUBES):
        box = _cube(pair.foreground, stream)
        places = foreground_places(pair.foreground[box], PLACES, stream)
        with torch.no_grad():
            one, two = (at_places(method(image[(..., *box)]), places) for image in (pair.first, pair.second))
        found.append(retrieval(one, two, compare="distance" if compare == "distance" else "angle"))
    return found


def _cube(foreground: torch.Tensor, stream: torch.Generator) -> tuple[slice, ...]:
    """A cube about a place of the foreground, moved into the image."""
    inside = foreground.nonzero()
    middle = inside[int(torch.randint(len(inside), (), generator=stream))].tolist()
    starts = [
        min(max(m - CUBE_VOXEL // 2, 0), max(n - CUBE_VOXEL, 0)) for m, n in zip(middle, foreground.shape, strict=True)
    ]
    return tuple(slice(start, start + CUBE_VOXEL) for start in starts)


def _pairs() -> Iterator[Pair]:
    yield from _rendered()
    yield from _ultrasound()
    yield from _real()


def _rendered() -> Iterator[Pair]:
    for subject in subjects("test"):
        yield _pair("T1-T2 rendered, 2 mm", subject.t1, subject.t2)


def _ultrasound() -> Iterator[Pair]:
    for number in SPLITS["test"]:
        anatomy = with_contrasts(anatomy_from_labels([], label_map(number)), ["t1", "t2"], seed=_FIRST_SEED + number)
        shift = BrainShiftSettings(mean_mm=0.01)
        case = simulate(anatomy, spacing_mm=1.0, shift=shift, landmarks=0, seed=_FIRST_SEED + number)
        for image in case.moving:
            on_grid = case.fixed.with_data(resample(image, case.fixed.grid, padding_mode="zeros"))
            yield _pair(f"{image.name}-simulated ultrasound, 1 mm", on_grid, case.fixed)


def _real() -> Iterator[Pair]:
    folder = record.data_folder("open_ms")
    for patient in ("patient07", "patient19"):
        t1, t2, flair = (read_volume(folder / f"{patient}_{name}.nii.gz") for name in ("T1", "T2", "FLAIR"))
        yield _pair("T1-T2 real, 1 mm", t1, t2)
        yield _pair("T1-FLAIR real, 1 mm", t1, flair)


def _pair(kind: str, first: Volume, second: Volume) -> Pair:
    one, two = (unit_range(volume.data[None]) for volume in (first, second))
    return Pair(kind, one, two, ((one > 0.02) & (two > 0))[0, 0])
