"""The registration networks on subjects that no training saw: Dice, surface distance, folds, time.

Trained beforehand, on one CPU thread each, with `mmreg train` and the configurations beside this file; the commands are
in docs/learned.md.  What is measured here reads the weights and curves that these left in ``build/learned``.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks import record
from benchmarks.accuracy import read_rows, write_rows
from benchmarks.dns_descriptors import foreground_around
from benchmarks.dns_descriptors import methods as descriptors
from benchmarks.subjects import Subject, dice_of, subjects, template
from MMRegCore import Monitor
from MMRegCore.methods import network as method
from MMRegCore.methods.protocol import Problem
from MMRegCore.networks import find_network
from MMRegCore.networks.weights import channels_last, load_network, read_card
from MMRegCore.ops import avg_pool, jacobian_determinant, warp
from MMRegCore.optimisation.instance import refine_field
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.prepare import Prepared
from MMRegCore.runtime import GIB
from MMRegCore.search.sampled import Levels
from MMRegCore.similarity.descriptors.mind import mind_ssc
from MMRegCore.training.engine.loop import LAST
from MMRegCore.volume import Channel, Volume

TRAINED = record.ROOT / "build" / "learned"
CURVES = record.RESULTS / "learned"
_ROWS = CURVES / "rows.jsonl"
# Structures whose surfaces are compared, left and right together.
_SURFACES = {
    "cortex": (3, 42),
    "ventricle": (4, 43),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "hippocampus": (17, 53),
}
# What follows a network, and what registers alone, on MIND.
_INSTANCE = InstanceSettings(iterations=60, learning_rate=0.3, regularisation=1.5, final_smoothing_passes=1)
_FULL_SIZE = (160, 192, 160)

Field = Callable[[Prepared], torch.Tensor]


def main() -> None:
    """Measure what was trained, and write ``results/learned*``."""
    keep_curves()
    accuracy()
    speed()


def accuracy() -> None:
    """Dice, surface distance and folds of every method on the test subjects: ``results/learned``.

    Trainings take hours: a method whose weights are not here keeps the row that it had.
    """
    methods: dict[str, Field] = {"affine only": lambda pair: torch.zeros(1, 3, *pair.grid.shape)}
    for name, path, architecture in _weights():
        methods[name] = network_of(path, architecture)
    for name in [name for name in methods if name in ("multiprop", "gradient-guided gated", "lapirn-descriptors")]:
        methods[f"{name}, then instance optimisation"] = _refined(methods[name])
    methods["instance optimisation alone"] = _refined(methods["affine only"])
    methods["instance optimisation on DNS"] = _on_dns
    if "multiprop" in methods:
        methods["multiprop without the constraint"] = _unconstrained(TRAINED / "multiprop" / LAST)
    pairs, judging = list(pairs_with_template()), list(pairs_with_template("validation"))
    rows = read_rows(_ROWS)
    for name, field in methods.items():
        scores = {"Dice, validation": measured(field, judging)["Dice"], **measured(field, pairs)}
        rows[name] = {"case": name, **scores, "measured": record.when()}
        write_rows(_ROWS, rows)
        print(rows[name], flush=True)
    record.write(
        "learned",
        [{"method": row["case"], **{key: row[key] for key in row if key != "case"}} for row in rows.values()],
        "Subjects 13 to 16 (T2, never trained on) to the atlas, subject 2 (T1), 2 mm, aligned beforehand by the affine "
        "registration of antspyx; means over the four. Validation: the same of subjects 11 and 12. Dice over 13 "
        "structures; ASD: average symmetric surface "
        "distance of 6; folds: voxels with a Jacobian determinant of at most 0, of 614400; seconds on the CPU, both "
        "directions of a network, on a machine that was busy with other work.",
    )


def speed() -> None:
    """Seconds for one pair of 160×192×160 on this CPU, in both precisions: ``results/learned-speed``."""
    classes = [find_network(name) for name in ("multiprop", "gradient-guided", "lapirn")]
    networks = {f"{network.name}, default": network(network.settings_class()) for network in classes}
    apart_mm = {}
    first, second = next(pairs_with_template())
    prepared = _prepared(first.t1, second.t2)
    for name, path, architecture in _weights():
        networks[f"{name}, as trained"] = load_network(path, find_network(architecture))
        fields = [network_of(path, architecture, precision)(prepared) for precision in ("float32", "mixed")]
        away_mm = (fields[0] - fields[1]).norm(dim=1) * float(prepared.grid.spacing_mm[0])
        apart_mm[f"{name}, as trained"] = round(float(away_mm.mean()), 3)
    random = torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand((1, 1, *_FULL_SIZE), generator=random) for _ in range(2))
    rows = []
    for name, built in networks.items():
        row: dict[str, Any] = {"network": name, "parameters": sum(p.numel() for p in built.parameters())}
        network = channels_last(built.eval())
        for precision in ("float32", "mixed"):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "mixed"):
                network(fixed[..., :32, :32, :32], moving[..., :32, :32, :32])
                start = time.perf_counter()
                network(fixed, moving)
            row[f"{precision}, seconds"] = round(time.perf_counter() - start, 1)
        rows.append({**row, "apart [mm]": apart_mm.get(name, ""), "threads": torch.get_num_threads()})
        print(rows[-1], flush=True)
    for name, seconds in _subject_seconds(prepared).items():
        rows.append({"network": f"{name}, a subject's {prepared.grid.shape}", "mixed, seconds": seconds})
        print(rows[-1], flush=True)
    record.write(
        "learned-speed",
        rows,
        "One pass over a pair of 160×192×160 voxels, in float32 and with bfloat16 where that is safe, which is the "
        "default on a processor that has instructions for it; wall time. Apart: mean distance of the two displacements "
        "of the first test pair. A subject's: one direction of a pair at 2 mm, descriptors made, the median of five.",
        command="learned",
    )


def _subject_seconds(pair: Prepared, repeats: int = 5) -> dict[str, float]:
    """Seconds for one direction of a subject's pair: what LapIRN does in one pass on descriptors, and what it learned.

    The median of ``repeats``.
    """
    kinds: dict[str, Field] = {"instance optimisation on DNS": _on_dns}
    path = TRAINED / "lapirn-descriptors" / LAST
    if path.exists():
        network = load_network(path, find_network("lapirn"))

        def once(pair: Prepared) -> torch.Tensor:
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                displacement: torch.Tensor = network(pair.fixed.image, pair.moving[0].image)
            return displacement

        kinds["lapirn-descriptors"] = once
    found = {}
    for name, field in kinds.items():
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            field(pair)
            seconds.append(time.perf_counter() - start)
        found[name] = round(float(np.median(seconds)), 2)
    return found


def keep_curves() -> None:
    """Store the curves of all trainings beside the results."""
    CURVES.mkdir(parents=True, exist_ok=True)
    for path in sorted(TRAINED.glob("*/curves.csv")):
        shutil.copyfile(path, CURVES / f"{path.parent.name}.csv")


def _weights() -> Iterator[tuple[str, Path, str]]:
    """Name, final weights and architecture of each training that was done."""
    trainings = {"multiprop": "multiprop"}
    trainings |= {f"lapirn{form}": "lapirn" for form in ("", "-dns", "-blended", "-dns-blended", "-descriptors")}
    trainings |= {f"gradient-guided-{form}": "gradient-guided" for form in ("image", "average", "gated", "blended")}
    for folder, architecture in trainings.items():
        path = TRAINED / folder / LAST
        if path.exists():
            yield folder.replace("guided-", "guided "), path, architecture


def pairs_with_template(split: Literal["validation", "test"] = "test") -> Iterator[tuple[Subject, Subject]]:
    """The atlas that was trained on, and subjects that were not."""
    for moving in subjects(split):
        yield template(), moving


def _prepared(fixed: Volume, moving: Volume) -> Prepared:
    """On the subjects' own grid, everything is foreground: what is around the brain is empty in both."""
    one, two = (Channel(volume.data[None], torch.ones_like(volume.data)[None]) for volume in (fixed, moving))
    return Prepared(fixed.grid, one, (two,))


def measured(field: Field, pairs: list[tuple[Subject, Subject]]) -> dict[str, Any]:
    """Means of Dice, surface distance, folds and seconds over pairs."""
    scores: dict[str, list[float]] = {"Dice": [], "ASD mm": [], "folds": [], "seconds": []}
    for fixed, moving in pairs:
        prepared = _prepared(fixed.t1, moving.t2)
        start = time.perf_counter()
        displacement = field(prepared).detach()
        scores["seconds"].append(time.perf_counter() - start)
        warped = warp(moving.labels.data[None], displacement, mode="nearest")[0, 0].round()
        scores["Dice"].append(float(np.nanmean(list(dice_of(warped, fixed.labels.data[0]).values()))))
        scores["folds"].append(float((jacobian_determinant(displacement, "forward") <= 0).sum()))
        spacing_mm = float(fixed.labels.grid.spacing_mm[0])
        scores["ASD mm"].append(surface_distance_mm(warped, fixed.labels.data[0], spacing_mm))
    digits = {"Dice": 4, "ASD mm": 3, "folds": 1, "seconds": 2}
    return {name: round(float(np.mean(values)), digits[name]) for name, values in scores.items()}


def surface_distance_mm(one: torch.Tensor, two: torch.Tensor, spacing_mm: float) -> float:
    """Average symmetric distance of the surfaces of `_SURFACES` in label maps (D, H, W) of isotropic voxels."""
    distances = []
    for numbers in _SURFACES.values():
        masks = [torch.isin(labels.round().long(), torch.tensor(numbers)) for labels in (one, two)]
        index = (masks[0] | masks[1]).nonzero()
        low, high = (index.amin(dim=0) - 2).clamp(min=0), index.amax(dim=0) + 3
        part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        images = [sitk.GetImageFromArray(mask[part].numpy().astype(np.uint8)) for mask in masks]
        surfaces = [sitk.GetArrayFromImage(sitk.BinaryContour(image)) > 0 for image in images]
        away = [np.abs(sitk.GetArrayFromImage(_distance_map(surface))) for surface in surfaces]
        distances.append(np.concatenate([away[1][surfaces[0]], away[0][surfaces[1]]]).mean())
    return float(np.mean(distances)) * spacing_mm


def _distance_map(surface: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(surface.astype(np.uint8))
    return sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=False)


def network_of(path: Path, architecture: str, precision: Literal["auto", "float32", "mixed"] = "auto") -> Field:
    """A trained network as a method."""
    settings = method.NetworkSettings(architecture=architecture, weights=str(path), precision=precision)
    return lambda pair: method.solve(Problem(pair, Levels(pair), 2 * GIB, Monitor()), settings).displacement_voxel


def _refined(field: Field) -> Field:
    def refined(pair: Prepared) -> torch.Tensor:
        channels = (pair.fixed, pair.moving[0])
        fixed, moving = (avg_pool(mind_ssc(channel.image, radius=1, dilation=1), 2) for channel in channels)
        return refine_field(fixed, [moving], field(pair).detach(), _INSTANCE)

    return refined


def _on_dns(pair: Prepared) -> torch.Tensor:
    """The preset dns-mr, the foreground being the brain and a rim around it."""
    fixed = replace(pair.fixed, weight=foreground_around(pair.fixed.image > 0))
    return descriptors()["DNS"].displacement(replace(pair, fixed=fixed))


def _unconstrained(path: Path) -> Field:
    """The same weights, velocities taken for displacements: what integration is good for."""
    card = read_card(path)
    card["settings"]["diffeomorphic"] = False
    copy = path.parent / "unconstrained" / path.name
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, copy)
    copy.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
    return network_of(copy, "multiprop")
