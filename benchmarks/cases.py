"""The cases of ``accuracy``: simulated ultrasound, also from far off, the real patient, real ultrasound with itself.

None of the brains here is used to set a constant of MMReg (that is done on the MNI152 brain and the label maps), nor
is any of these seeds, which are all below 1000; of the hard cases, those of ``hard-setting`` are.  Case 24's own MR
cannot be simulated from: it is cut to the grid of its ultrasound, so that it holds no brain that a probe could stand
on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import hard, record
from benchmarks.alignment import aligned
from benchmarks.problem import MARGIN_VOXEL, Problem
from MMRegCore import Volume, read_volume
from MMRegCore.io.landmarks import read_landmark_pairs
from MMRegCore.ops import rotation_matrix, warp
from MMRegCore.resampling import resample
from MMRegCore.simulate import (
    Anatomy,
    BrainShiftSettings,
    CavitySettings,
    anatomy_from_maps,
    anatomy_from_mr,
    simulate,
    smooth_random_field,
)

CACHE = record.ROOT / "build" / "accuracy"
SPACING_MM = 0.8
SHIFTS_MM = (2.0, 5.0, 9.0)
ENTRIES_RAS = {"right": (0.95, 0.2, 0.1), "left front": (-0.9, 0.3, 0.4), "left": (-0.95, -0.2, 0.25)}
# Contrasts of the six cases of each brain: three sizes of shift, without and with a cavity.
BRAINS: dict[str, tuple[str, ...]] = {
    "open_ms 07": ("T1", "T2", "FLAIR", "T1POST", "T1+FLAIR", "T2+FLAIR"),
    "open_ms 19": ("T1+FLAIR", "FLAIR", "T1POST", "T2", "T1", "T1+T2"),
    "tcga": ("t1c+fla", "t1c", "t2", "fla", "t1+t2", "t1c+fla"),
    "subject 4": ("T1", "T1+T2", "T2", "T1+T2", "T2", "T1"),
}
STARTS, START_MM, START_DEG = 20, 10.0, 5.0
# Beyond what the search reaches: these must be told as failures where they are.
FAR_MM, FAR_DEG, FAR_MARGIN_VOXEL = (10.0, 16.0, 24.0, 36.0), 8.0, 60
SELF_SHIFT_MM, SELF_WAVELENGTH_MM = 6.0, 60.0


@dataclass(frozen=True)
class Case:
    """One case: its name, what it is made from, and how."""

    name: str
    recipe: dict[str, Any]
    make: Callable[[], Problem]
    sources: tuple[Path, ...] = ()  # what it depends on besides the simulator and this file

    def folder(self) -> Path:
        """Where its files lie; made where they are not there or the simulator has changed since."""
        sources = [
            Path(__file__),
            Path(__file__).with_name("alignment.py"),
            *self.sources,
            *(path for room in ("ops", "simulate") for path in sorted((record.ROOT / "MMRegCore" / room).glob("*.py"))),
        ]
        key = hashlib.sha256(json.dumps(self.recipe).encode())
        for path in sources:
            key.update(path.read_bytes())
        folder = CACHE / "cases" / f"{self.name.replace(' ', '_').replace(',', '')}-{key.hexdigest()[:12]}"
        if not (folder / "case.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self.make().write(folder)
        return folder


def simulated() -> list[Case]:
    """24 cases: four brains, three sizes of shift, without and with a cavity, contrasts and craniotomies in turn."""
    cases = []
    for brain, contrasts in BRAINS.items():
        for index, contrast in enumerate(contrasts):
            mean_mm, cavity = SHIFTS_MM[index % 3], index >= 3
            entry = list(ENTRIES_RAS)[(index + len(cases) // 6) % 3]
            recipe = {
                "brain": brain,
                "contrast": contrast,
                "mean_mm": mean_mm,
                "cavity": cavity,
                # A tumour says where the craniotomy is.
                "entry": None if brain == "tcga" else entry,
                "seed": 100 + len(cases),
            }
            name = f"{brain}, {contrast}, {mean_mm:g} mm{', cavity' if cavity else ''}"
            cases.append(Case(name, recipe, partial(_simulated, **recipe)))
    return cases


def far() -> list[Case]:
    """16 of the simulated cases, from starts that are off by much more than is expected."""
    cases = []
    for number, case in enumerate(case for index, case in enumerate(simulated()) if index % 3 < 2):
        recipe = case.recipe | {"far_mm": FAR_MM[number % len(FAR_MM)]}
        name = f"{case.name}, start {recipe['far_mm']:g} mm off"
        cases.append(Case(name, recipe, partial(_simulated, **recipe)))
    return cases


def case24() -> list[Case]:
    """RESECT Case 24, T1 and FLAIR, from 20 random rigid starts about the middle of the cone."""
    return [Case(f"start {n:02d}", {"case24 start": n}, partial(_case24, n)) for n in range(STARTS)]


def itself() -> list[Case]:
    """The 14 real ultrasound volumes that come without MR, each brought back onto a deformed copy of itself."""
    paths = sorted(record.data_folder("resect").glob("*_US_0.5mm.nii.gz"))
    names = [path.name.partition("_")[0] for path in paths if not path.name.startswith("Case24")]
    return [Case(name, {"self": name, "seed": n}, partial(_itself, name, n)) for n, name in enumerate(names)]


def hard_heads(kind: str) -> list[Case]:
    """24 whole heads, as hard as patients, for 'setting' constants or for 'judging' them; see `benchmarks.hard`."""
    return [
        Case(
            f"{number:02d} {hard.name_of(recipe)}", recipe, partial(hard.hard_problem, **recipe), (Path(hard.__file__),)
        )
        for number, recipe in enumerate(hard.recipes(kind))
    ]


SETS: dict[str, Callable[[], list[Case]]] = {
    "simulated": simulated,
    "far": far,
    "case24": case24,
    "self": itself,
    "hard-setting": partial(hard_heads, "setting"),
    "hard": partial(hard_heads, "judging"),
}


def _simulated(
    brain: str, contrast: str, mean_mm: float, cavity: bool, entry: str | None, seed: int, far_mm: float = 0.0
) -> Problem:
    anatomy, images = _brain(brain)
    shown = tuple(images[name] for name in contrast.split("+"))
    case = simulate(
        replace(anatomy, images=shown),
        entry_direction_ras=None if entry is None else ENTRIES_RAS[entry],
        spacing_mm=SPACING_MM,
        shift=BrainShiftSettings(mean_mm=mean_mm),
        cavity=CavitySettings() if cavity else None,
        seed=seed,
    )
    around = case.fixed.grid.padded(FAR_MARGIN_VOXEL if far_mm else MARGIN_VOXEL)
    moving = tuple(Volume(resample(v, around, padding_mode="zeros"), around, name=v.name) for v in shown)
    start = np.eye(4)
    if far_mm:
        start = _rigid(_middle(case.fixed, case.evaluated), far_mm, FAR_DEG, np.random.default_rng(seed))
    return Problem(case.fixed, moving, case.evaluated, case.truth, None, None, start)


@cache
def _brain(name: str) -> tuple[Anatomy, dict[str, Volume]]:
    """Tissues, always of the contrast that tells them apart best, and all images by name."""
    folder_name, _, patient = name.partition(" ")
    if folder_name == "open_ms":
        folder = record.data_folder("open_ms")
        images = _images({key: folder / f"patient{patient}_{key}.nii.gz" for key in ("T1", "T1POST", "T2", "FLAIR")})
        return anatomy_from_mr([images["T1"]]), images
    if folder_name == "tcga":
        folder = record.data_folder("tcga_fg6692")
        images = _images({key: folder / f"{key}.nii.gz" for key in ("t1", "t1c", "t2", "fla")})
        return anatomy_from_mr([images["t1"]], tumour=read_volume(folder / "tumour_auto.nii.gz")), images
    folder = record.data_folder("subject4_t1t2")
    images = _images({key: folder / f"subject-4-{key}.nii.gz" for key in ("T1", "T2")})
    # As it comes, the T2 lies 1.1 mm and 1.3° off the T1 and the labels.
    images["T2"] = aligned(images["T2"], images["T1"])
    labels = read_volume(folder / "subject-4-label.nii.gz")
    csf, grey, white = (labels.with_data((labels.data == n).float()) for n in (1, 2, 3))
    return anatomy_from_maps([images["T1"]], white, grey, csf), images


def _images(paths: dict[str, Path]) -> dict[str, Volume]:
    return {name: read_volume(path, name=name) for name, path in paths.items()}


def _case24(number: int) -> Problem:
    folder = record.data_folder("resect")
    fixed = read_volume(folder / "Case24_US_0.5mm.nii.gz")
    moving = tuple(read_volume(folder / f"Case24_{name}_0.5mm.nii.gz", name=name) for name in ("T1", "FLAIR"))
    at_fixed, at_moving = read_landmark_pairs(folder / "Case24_landmarks_ras.csv")
    cone = fixed.data[0] > 0
    random = np.random.default_rng(number)
    start = _rigid(_middle(fixed, cone), START_MM, START_DEG, random, evenly=True)
    points = (at_fixed.points_ras, at_moving.points_ras)
    return Problem(fixed.with_mask(cone), moving, cone, None, *points, start)


def _middle(volume: Volume, cone: torch.Tensor) -> np.ndarray:
    return np.asarray(volume.grid.points_ras()[cone.numpy()].mean(axis=0))


def _rigid(
    middle: np.ndarray, shift_mm: float, degrees: float, random: np.random.Generator, *, evenly: bool = False
) -> np.ndarray:
    """(4, 4): a shift and a turn about ``middle``, any way; of that size, or ``evenly`` from none to that size."""
    shift, axis = (v / np.linalg.norm(v) for v in random.standard_normal((2, 3)))
    turn_share, shift_share = random.uniform(size=2) if evenly else (1.0, 1.0)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(axis * np.radians(degrees * turn_share))
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + shift * shift_mm * shift_share
    return matrix


def _itself(name: str, seed: int) -> Problem:
    original = read_volume(record.data_folder("resect") / f"{name}_US_0.5mm.nii.gz", name="US")
    volume, cone = _coarser(original)
    truth = smooth_random_field(volume.grid, SELF_SHIFT_MM, SELF_WAVELENGTH_MM, seed=seed)
    seen = warp(cone[None].float(), truth.to_voxel(), padding_mode="zeros")[0, 0] > 0.5
    fixed = warp(volume.data[None], truth.to_voxel(), padding_mode="zeros")[0] * seen
    around = _padded(volume)
    return Problem(volume.with_data(fixed).with_mask(seen), (around,), seen, truth, None, None, np.eye(4))


def _coarser(volume: Volume) -> tuple[Volume, torch.Tensor]:
    """The ultrasound at `SPACING_MM`, and its cone (1, D, H, W)."""
    grid = volume.grid.with_spacing([SPACING_MM] * 3)
    # Averaged over a voxel of the new size, or speckle would alias.
    smooth = F.avg_pool3d(volume.data[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    cone = resample(volume.with_data((volume.data > 0).float()), grid) > 0.5
    return Volume(resample(volume.with_data(smooth), grid) * cone, grid, name=volume.name), cone


def _padded(volume: Volume) -> Volume:
    data = F.pad(volume.data, [MARGIN_VOXEL] * 6)
    return Volume(data, volume.grid.padded(MARGIN_VOXEL), name=volume.name)
