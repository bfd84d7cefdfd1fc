"""How well descriptors distinguish points across modalities: MIND, and MASR-Net before and after its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import record
from benchmarks.subjects import SPLITS, label_map, subjects
from MMRegCore import Volume, read_volume
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.weights import load_network
from MMRegCore.resampling import resample
from MMRegCore.similarity.descriptors.mind import mind_ssc
from MMRegCore.simulate import BrainShiftSettings, anatomy_from_labels, simulate, with_contrasts
from MMRegCore.training.recipes.contrastive import at_points, foreground_points, retrieval

POINTS = 2048
# Cubes cut out of every pair, and their size.
CUBES, CUBE_VOXEL = 2, 56
# The cube of the second image lies elsewhere, or a network could find its way by the distance from the border.
OFFSET_VOXEL = (5, 7, 6)
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
    untrained = MasrNet(MasrNetSettings()).eval()
    trained = load_network("masrnet", MasrNet)
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
        f"Fraction of {POINTS} points in the foreground of a cube of {CUBE_VOXEL}³ voxels whose most similar point in "
        f"the other image is the right one; {100 / POINTS:.2f} % by chance. The cubes of the two images are cut out 5 "
        "to 7 voxels apart, so that their borders tell nothing. None of these subjects was trained on."
    )
    record.write("retrieval", rows, notes)


def _scores(pair: Pair, method: Callable[[torch.Tensor], torch.Tensor], compare: str, seed: int) -> list[float]:
    stream = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(CUBES):
        start = _start(pair.foreground, stream)
        moved = [s + o for s, o in zip(start, OFFSET_VOXEL, strict=True)]
        common = _box(moved, [CUBE_VOXEL - o for o in OFFSET_VOXEL])
        points = foreground_points(pair.foreground[common], POINTS, stream)
        with torch.no_grad():
            one = method(pair.first[(..., *_box(start))])[(..., *(slice(o, None) for o in OFFSET_VOXEL))]
            two = method(pair.second[(..., *_box(moved))])[(..., *(slice(CUBE_VOXEL - o) for o in OFFSET_VOXEL))]
        descriptors = (at_points(one, points), at_points(two, points))
        found.append(retrieval(*descriptors, compare="distance" if compare == "distance" else "angle"))
    return found


def _start(foreground: torch.Tensor, stream: torch.Generator) -> list[int]:
    """The corner of a cube about a voxel of the foreground, moved so far that it and its neighbour fit."""
    inside = foreground.nonzero()
    middle = inside[int(torch.randint(len(inside), (), generator=stream))].tolist()
    room = [n - CUBE_VOXEL - o for n, o in zip(foreground.shape, OFFSET_VOXEL, strict=True)]
    return [min(max(m - CUBE_VOXEL // 2, 0), r) for m, r in zip(middle, room, strict=True)]


def _box(start: Sequence[int], size: Sequence[int] = (CUBE_VOXEL,) * 3) -> tuple[slice, ...]:
    return tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))


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
