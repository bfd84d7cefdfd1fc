"""Simulated cases as hard as patients: whole heads with skull and scalp, echo that the MR does not explain, far starts.

How hard is drawn for every case, within the range in which the standing of the true pose among false ones is that of
the real pairs (``python -m benchmarks discriminability``).  Label maps 1 to 8 are for setting constants, 9 to 16 for
judging them; each gives three cases.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from benchmarks import record
from benchmarks.problem import Problem
from MMRegCore import DisplacementField, Volume, read_volume
from MMRegCore.geometry import Array, Grid
from MMRegCore.ops import rotation_matrix
from MMRegCore.simulate import (
    Anatomy,
    BrainShiftSettings,
    ConeSettings,
    ConfoundSettings,
    HeadSettings,
    SimulatedCase,
    UltrasoundSettings,
    anatomy_from_labels,
    render_head,
    simulate,
    with_glioma,
    with_thin_sulci,
)
from MMRegCore.simulate.craniotomy import place_probe

SPACING_MM = 0.5
MAPS = {"setting": range(1, 9), "judging": range(9, 17)}
CASES_OF_A_MAP = 3
FIRST_SEED = {"setting": 2000, "judging": 3000}
# Largest error of the start; both are spread evenly from none to that over the cases.
START_MM, START_DEG = 20.0, 15.0
CONTRASTS = ("t1", "flair", "t1+flair", "t1", "t2", "t1")
# Labels of `synthseg_labels` by tissue; those of vessels and lesions count as grey matter.
NUMBERS = {
    "white": (2, 7, 16, 28, 41, 46, 60, 85),
    "grey": (3, 8, 10, 11, 12, 13, 17, 18, 25, 26, 30, 42, 47, 49, 50, 51, 52, 53, 54, 57, 58, 62, 136, 137, 163, 164),
    "csf": (24,),
    "ventricles": (4, 5, 14, 15, 43, 44, 72),
}


def recipes(kind: str) -> list[dict[str, Any]]:
    """What the 24 cases for 'setting' or 'judging' are made from; the order of sizes of the start is drawn once."""
    maps = [number for number in MAPS[kind] for _ in range(CASES_OF_A_MAP)]
    random = np.random.default_rng(FIRST_SEED[kind])
    shares = (np.arange(len(maps)) + 0.5) / len(maps)
    return [
        {
            "label_map": label_map,
            "contrast": CONTRASTS[number % len(CONTRASTS)],
            "start_mm": round(START_MM * float(shift), 2),
            "start_deg": round(START_DEG * float(turn), 2),
            "seed": FIRST_SEED[kind] + number,
        }
        for number, (label_map, shift, turn) in enumerate(
            zip(maps, random.permutation(shares), random.permutation(shares), strict=True)
        )
    ]


def name_of(recipe: dict[str, Any]) -> str:
    """Of one case."""
    start = f"start {recipe['start_mm']:.0f} mm {recipe['start_deg']:.0f}°"
    return f"head {recipe['label_map']:02d}, {recipe['contrast']}, {start}"


def hard_problem(label_map: int, contrast: str, start_mm: float, start_deg: float, seed: int) -> Problem:
    """A case whose ultrasound lies ``start_mm`` and ``start_deg`` off where it belongs, as tracking would have it."""
    return moved_off(hard_case(label_map, contrast, seed), start_mm, start_deg, np.random.default_rng([seed, 1]))


def moved_off(case: SimulatedCase, shift_mm: float, degrees: float, random: np.random.Generator) -> Problem:
    """The problem that a case becomes when its ultrasound is shifted and turned about its middle by so much."""
    middle = case.fixed.grid.points_ras()[case.evaluated.numpy()].mean(axis=0)
    placed = Grid(case.fixed.grid.shape, _off(middle, shift_mm, degrees, random) @ case.fixed.grid.ras_from_ijk)
    # The same points of the MR, from where the ultrasound now lies.
    there = case.fixed.grid.points_ras() + case.truth.displacement_mm.double().numpy()
    truth = DisplacementField(torch.from_numpy(there - placed.points_ras()), placed)
    fixed = Volume(case.fixed.data, placed, mask=case.fixed.mask, name="ultrasound")
    return Problem(fixed, case.moving, case.evaluated, truth, None, None, np.eye(4))


def hard_case(label_map: int, contrast: str, seed: int, *, confounds: ConfoundSettings | None = None) -> SimulatedCase:
    """The case before its start is moved away; what is not given is drawn."""
    random = np.random.default_rng(seed)
    labels, anatomy = _head(label_map)
    direction = _entry(random)
    anatomy = with_thin_sulci(anatomy, random.uniform(0.5, 0.9), apart_mm=random.uniform(4.0, 7.0), seed=seed)
    anatomy = _with_tumour(anatomy, direction, random, seed)
    drawn, scanner = draw_confounds(random), draw_ultrasound(random)
    cone = ConeSettings(
        depth_mm=random.uniform(38, 50), half_angle_deg=random.uniform(15, 20), sweep_mm=random.uniform(28, 40)
    )
    head = _draw_head(random)
    images = tuple(render_head(labels, anatomy, name, head, seed=seed) for name in contrast.split("+"))
    shift = BrainShiftSettings(
        translation_mm=0.5,
        translation_log_std=0.3,
        rotation_deg=0.5,
        residual_mm=random.uniform(0.2, 0.6),
        sinking_mm=random.uniform(0.0, 1.0),
    )
    return simulate(
        replace(anatomy, images=images),
        entry_direction_ras=direction,
        spacing_mm=SPACING_MM,
        shift=shift,
        cone=cone,
        confounds=confounds or drawn,
        ultrasound=scanner,
        landmarks=0,
        seed=seed,
    )


def draw_confounds(random: np.random.Generator) -> ConfoundSettings:
    """How hard a case is."""
    return ConfoundSettings(
        unmatched=random.uniform(0.5, 0.75),
        region_mm=random.uniform(4, 8),
        trend_db=random.uniform(0.5, 2.5),
        trend_mm=random.uniform(10, 18),
        depth_trend_db=random.uniform(1, 4),
        contact=random.uniform(0.5, 4.0),
        contact_mm=random.uniform(0.7, 1.2),
        gel_mm=random.uniform(0, 2.5),
        vessels=random.uniform(2, 6),
    )


def draw_ultrasound(random: np.random.Generator) -> UltrasoundSettings:
    """The scanner of a case: sulci are seen more often than by default, and fine echo is stronger."""
    return UltrasoundSettings(
        invisible_sulci=random.uniform(0.5, 0.8),
        tissue_echo=random.uniform(2.0, 3.0),
        number_of_looks=2,
        noise=random.uniform(0.4, 0.8),
        attenuation_db_per_mm=random.uniform(0.05, 0.15),
        gain=random.uniform(18.0, 26.0),
    )


@lru_cache(maxsize=1)
def _head(label_map: int) -> tuple[Volume, Anatomy]:
    path = record.data_folder("synthseg_labels") / f"training_seg_{label_map:02d}.nii.gz"
    labels = read_volume(path, name="labels")
    return labels, anatomy_from_labels([], labels, NUMBERS)


def _draw_head(random: np.random.Generator) -> HeadSettings:
    # One in three is of thick slices.
    thick = random.uniform() < 1 / 3
    return HeadSettings(
        blur_mm=random.uniform(0.3, 0.6),
        slice_mm=random.uniform(2.5, 5.0) if thick else 1.0,
        slice_axis=int(random.integers(3)),
        bias=random.uniform(0.05, 0.2),
        texture=0.03,
        noise=random.uniform(0.01, 0.025),
    )


def _entry(random: np.random.Generator) -> list[float]:
    """From the middle of the brain to a craniotomy: to either side, not near the midline or the base."""
    side = 1.0 if random.uniform() < 0.5 else -1.0
    return [side * random.uniform(0.5, 1.0), random.uniform(-0.7, 0.7), random.uniform(0.0, 0.8)]


def _with_tumour(anatomy: Anatomy, direction: list[float], random: np.random.Generator, seed: int) -> Anatomy:
    probe = place_probe(anatomy, direction)
    radius_mm = random.uniform(7, 15)
    depth_mm = radius_mm + random.uniform(4, 14)
    centre: Array = probe.origin_ras + depth_mm * probe.beam_ras
    return with_glioma(anatomy, centre.tolist(), radius_mm, edge_mm=random.uniform(2, 5), seed=seed)


def _off(middle: Array, shift_mm: float, degrees: float, random: np.random.Generator) -> Array:
    """(4, 4): a shift and a turn about ``middle`` of these sizes, any way."""
    shift, axis = (v / np.linalg.norm(v) for v in random.standard_normal((2, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(axis * np.radians(degrees))
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + shift * shift_mm
    return matrix
