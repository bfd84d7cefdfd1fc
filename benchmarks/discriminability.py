"""How far the true pose stands above false ones: ``python -m benchmarks discriminability [--pairs …] [--bias] …``.

A test bed is worth what this number is: z, the similarity at the true pose minus its mean at false ones, over their
spread.  The true pose is the best rigid fit of the landmarks of a real pair, and of the known displacement of a
simulated one; the false ones are 4 to 12 mm and some 4° about each axis away from it.  All are compared by what the
search maximises, `SampledSimilarity` and `MotionModel`, level by level.

A high z is necessary, not sufficient, since the optimum near the truth may be elsewhere: ``--bias`` registers from the
true pose and says how far from the landmarks, or the displacement, that ends.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks import record
from benchmarks.cases import SETS
from benchmarks.problem import Problem
from MMRegCore import RegistrationSettings, SpatialTransform, load_preset, read_volume, register
from MMRegCore.config import DEFAULT_PRESET
from MMRegCore.geometry import Array
from MMRegCore.intensities import levelled_volume
from MMRegCore.io.landmarks import read_landmark_pairs
from MMRegCore.ops import gaussian_blur
from MMRegCore.prepare import Prepared, prepare
from MMRegCore.search.motion_model import LINEAR, MotionModel
from MMRegCore.search.sampled import Levels, SampledSimilarity
from MMRegCore.search.settings import MotionPriorSettings
from MMRegCore.similarity import similarity_names
from MMRegCore.volume import Channel

FALSE_POSES = 60
NEAREST_MM, FARTHEST_MM, TURN_DEG = 4.0, 12.0, 4.0
# The level that decides in the search of ``lc2``, its finest one, and larger patches, in which trends explain more.
LEVELS = ((1.5, 3), (1.5, 5), (1.5, 8), (0.75, 2))
# Motions that are compared in one call.
_AT_ONCE = 12
# One case of each brain and the first, second or third size of shift.
EVERY = {"simulated": 5}
REAL = ("Case 24, T1", "Case 24, FLAIR", "Case 23, T1")


@dataclass(frozen=True)
class Standing:
    """How the true pose stands among false ones: the similarity of all of them."""

    true: float
    false: tuple[float, ...]

    @property
    def z(self) -> float:
        """Distance of the true one from the mean of the others, in their standard deviations."""
        return float((self.true - np.mean(self.false)) / max(np.std(self.false), 1e-12))

    @property
    def above(self) -> float:
        """Share of false poses that are at least as similar as the true one."""
        return float(np.mean(np.asarray(self.false) >= self.true))


def main(words: Sequence[str] = ()) -> None:
    """Measure and write ``results/discriminability``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks discriminability")
    parser.add_argument("--pairs", nargs="+", choices=["real", *SETS], default=["real", "simulated", "hard"])
    parser.add_argument("--similarity", nargs="+", choices=similarity_names(), default=["lc2"])
    parser.add_argument("--level", nargs="+", type=_level, default=LEVELS, help="spacing in mm and half-width: 1.5/3")
    parser.add_argument("--highpass-mm", type=float, help="standard deviation of the Gaussian that is subtracted")
    parser.add_argument("--bias", action="store_true", help="also where a registration from the true pose ends")
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="of that registration")
    parser.add_argument("--case", type=int, nargs="+", help="numbers of cases, for a part of the simulated sets")
    options = parser.parse_args(words)
    rows: list[dict[str, Any]] = []
    for kind in options.pairs:
        first = len(rows)
        for name, problem in pairs(kind, options.case):
            found = standings(problem, options.similarity, options.level, options.highpass_mm)
            also = bias(problem, options.preset) if options.bias else {}
            for number, (what, standing) in enumerate(found):
                rows.append({"pair": name, **what, **_row(standing), **(also if number == 0 else {})})
                print(rows[-1], flush=True)
        rows += _summary(kind, rows[first:])
    record.write(
        "discriminability",
        rows,
        f"The true pose against {FALSE_POSES} false ones, {NEAREST_MM:g} to {FARTHEST_MM:g} mm and {TURN_DEG:g}° per "
        "axis away; the similarity is relative to that of unrelated images. z: true minus mean of the false, over "
        "their standard deviation; above: share of false poses that are at least as similar. With the bias: mean "
        "error in mm of the true pose and of what a registration from it ends at. Medians, smallest and largest z of "
        "all pairs of a kind in the last rows of each.",
        " ".join(["discriminability", *words]),
    )


def pairs(kind: str, numbers: Sequence[int] | None = None) -> Iterator[tuple[str, Problem]]:
    """Name and problem of the real pairs, or of the cases of a set."""
    if kind == "real":
        for name in REAL:
            yield name, real_pair(name)
        return
    cases = SETS[kind]()
    chosen = cases[:: EVERY.get(kind, 1)] if numbers is None else [cases[n] for n in numbers if n < len(cases)]
    for case in chosen:
        yield f"{kind}: {case.name}", Problem.read(case.folder())


def real_pair(name: str) -> Problem:
    """One of `REAL`, with its landmarks; the MR of Case 23 counts where it is image at all."""
    patient, _, contrast = name.partition(", ")
    number, folder = patient.removeprefix("Case "), record.data_folder("resect")
    fixed = read_volume(folder / f"Case{number}_US_0.5mm.nii.gz", name="US")
    if patient == "Case 23":
        moving = read_volume(
            folder / "Case23_T1_approx.nii.gz", name="T1", mask_path=folder / "Case23_T1_approx_valid.nii.gz"
        )
    else:
        moving = read_volume(folder / f"Case{number}_{contrast}_0.5mm.nii.gz", name=contrast)
    at_fixed, at_moving = read_landmark_pairs(folder / f"Case{number}_landmarks_ras.csv")
    cone = fixed.data[0] > 0
    points = (at_fixed.points_ras, at_moving.points_ras)
    return Problem(fixed.with_mask(cone), (moving,), cone, None, *points, np.eye(4))


def true_pose(problem: Problem) -> Array:
    """(4, 4), RAS mm, fixed to moving: the best rigid fit of the landmarks or of the known displacement."""
    if problem.truth is not None:
        return problem.truth.nearest_rigid(problem.region)
    source, target = (points - points.mean(axis=0) for points in (problem.points_fixed, problem.points_moving))
    u, _, vt = np.linalg.svd(source.T @ target)
    matrix = np.eye(4)
    matrix[:3, :3] = vt.T @ np.diag([1, 1, np.linalg.det(vt.T @ u.T)]) @ u.T
    matrix[:3, 3] = problem.points_moving.mean(axis=0) - matrix[:3, :3] @ problem.points_fixed.mean(axis=0)
    return matrix


def standings(
    problem: Problem,
    similarities: Sequence[str] = ("lc2",),
    levels: Sequence[tuple[float, int]] = LEVELS,
    highpass_mm: float | None = None,
) -> list[tuple[dict[str, Any], Standing]]:
    """What was measured, and the standing of the true pose, for every similarity at every level (spacing, half-width).

    With ``highpass_mm`` a Gaussian of this standard deviation is subtracted from both images first.
    """
    prepared = prepared_at(problem, true_pose(problem))
    if highpass_mm is not None:
        moving = tuple(_highpassed(channel, highpass_mm / prepared.spacing_mm) for channel in prepared.moving)
        fixed = _highpassed(prepared.fixed, highpass_mm / prepared.spacing_mm)
        prepared = replace(prepared, fixed=fixed, moving=moving)
    made = Levels(prepared)
    return [
        (
            {"similarity": name, "mm": spacing_mm, "half-width": half_width},
            standing(prepared, made.at(name, spacing_mm, half_width)),
        )
        for name in similarities
        for spacing_mm, half_width in levels
    ]


def prepared_at(problem: Problem, pose_ras: Array, preset: str = DEFAULT_PRESET) -> Prepared:
    """The pair on the working grid of a preset, with a pose (4, 4), RAS mm, as its initial transform."""
    settings = load_preset(preset)
    return prepare(
        levelled_volume(problem.fixed),
        [levelled_volume(volume) for volume in problem.moving],
        SpatialTransform.from_matrix(pose_ras),
        spacing_mm=settings.working_spacing_mm,
        masked=settings.masked,
        margin_mm=settings.margin_mm,
    )


@torch.no_grad()
def standing(prepared: Prepared, sampled: SampledSimilarity) -> Standing:
    """The similarity at the initial transform of a pair, and at false poses about it; the same ones for every pair."""
    model = MotionModel.of(prepared, MotionPriorSettings(translation_mm=1.0, rotation_deg=1.0))
    motion = model.at(sampled.points)
    parameters = torch.cat([torch.zeros(1, LINEAR), false_poses()]).to(model.centre.device)
    values = torch.cat([sampled.means(motion(some)) for some in parameters.split(_AT_ONCE)]).tolist()
    return Standing(values[0], tuple(values[1:]))


def false_poses(count: int = FALSE_POSES, seed: int = 0) -> torch.Tensor:
    """(count, 12): translation (mm) and rotation vector (degrees) of false poses, for a prior of 1 mm and 1°."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    poses = np.zeros((count, LINEAR))
    # Evenly over the space between both spheres.
    poses[:, :3] = directions * np.cbrt(random.uniform(NEAREST_MM**3, FARTHEST_MM**3, size=(count, 1)))
    poses[:, 3:6] = TURN_DEG * random.standard_normal((count, 3))
    return torch.from_numpy(poses).float()


def bias(problem: Problem, preset: str = DEFAULT_PRESET) -> dict[str, Any]:
    """Mean errors in mm of the true pose, and of what a registration that starts there ends at, and its verdict."""
    start = SpatialTransform.from_matrix(true_pose(problem))
    settings: RegistrationSettings = load_preset(preset)
    result = register(
        problem.fixed.with_mask(None), problem.moving, settings=settings, initial_transform=start, device="cpu"
    )
    verdict = result.assessment.quality.verdict
    return {
        "best rigid mm": round(float(problem.errors_mm(start).mean()), 2),
        "ends mm": round(float(problem.errors_mm(result.transform).mean()), 2),
        "verdict": verdict.level,
    }


def _highpassed(channel: Channel, sigma_voxel: float) -> Channel:
    """The image minus its Gaussian mean over where it counts."""
    weight = channel.weight
    around = gaussian_blur(channel.image * weight, sigma_voxel) / gaussian_blur(weight, sigma_voxel).clamp(min=1e-3)
    return replace(channel, image=(channel.image - around) * (weight > 0))


def _row(found: Standing) -> dict[str, Any]:
    return {
        "at truth": round(found.true, 3),
        "at false": round(float(np.mean(found.false)), 3),
        "highest false": round(max(found.false), 3),
        "z": round(found.z, 1),
        "above %": round(100 * found.above),
    }


def _summary(kind: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each similarity and level: medians over the pairs, and the range of z."""
    if not rows:
        return []
    keys = list(dict.fromkeys((row["similarity"], row["mm"], row["half-width"]) for row in rows))
    found = []
    for key in keys:
        chosen = [row for row in rows if (row["similarity"], row["mm"], row["half-width"]) == key]
        columns = ("at truth", "at false", "highest false", "z", "above %")
        z = [row["z"] for row in chosen]
        found.append(
            {
                "pair": f"median of {len(chosen)} {kind}",
                **dict(zip(("similarity", "mm", "half-width"), key, strict=True)),
                **{name: round(float(np.median([row[name] for row in chosen])), 3) for name in columns},
                "z from": min(z),
                "z to": max(z),
            }
        )
    return found


def _level(text: str) -> tuple[float, int]:
    spacing, _, half_width = text.partition("/")
    return float(spacing), int(half_width)
