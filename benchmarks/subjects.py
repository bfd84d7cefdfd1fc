"""Subjects for inter-subject registration: 16 label maps, affinely aligned, with T1-like and T2-like contrasts.

The split is fixed here and nowhere else: what is trained or chosen on the test subjects could not be judged by them.
The affine alignment is that of antspyx, of T1 to the T1 of the template, as a user would come by it: no label is asked.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from benchmarks import record
from MMRegCore import Grid, Volume, read_volume, write_volume
from MMRegCore.evaluate.overlap import dice
from MMRegCore.io.volumes import itk_image, volume_from_itk
from MMRegCore.ops import gaussian_blur
from MMRegCore.resampling import resample
from MMRegCore.simulate.mr import FREESURFER_LABELS
from MMRegCore.simulate.noise import random_stream, smooth_noise, white_noise
from MMRegCore.training.data.synthesis import synthetic_contrast

CACHE = record.ROOT / "build" / "subjects"
# Changes with what the subjects are made of.
SUBJECTS_KEY = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
SPLITS: dict[str, tuple[int, ...]] = {
    "train": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    "validation": (11, 12),
    "test": (13, 14, 15, 16),
}
# The training subject that all are brought to; its head is axis-aligned.
TEMPLATE = 2
SPACING_MM = 2.0
SHAPE = (80, 96, 80)

BRAIN = tuple(sorted({number for numbers in FREESURFER_LABELS.values() for number in numbers}))
# Structures that Dice is taken of: left and right, and the brain stem.
STRUCTURES: dict[str, tuple[int, ...]] = {
    "cerebral white matter": (2, 41),
    "cerebral cortex": (3, 42),
    "lateral ventricle": (4, 43),
    "cerebellum white matter": (7, 46),
    "cerebellum cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "ventral diencephalon": (28, 60),
    "brain stem": (16,),
}
# Intensity by structure in each contrast; what is not named is fluid within the brain.
_LEVELS: dict[str, dict[str, float]] = {
    "t1": {
        "cerebral white matter": 1.0,
        "cerebral cortex": 0.68,
        "cerebellum white matter": 0.96,
        "cerebellum cortex": 0.66,
        "thalamus": 0.82,
        "caudate": 0.72,
        "putamen": 0.76,
        "pallidum": 0.9,
        "hippocampus": 0.68,
        "amygdala": 0.66,
        "ventral diencephalon": 0.88,
        "brain stem": 0.9,
        "fluid": 0.22,
    },
    "t2": {
        "cerebral white matter": 0.4,
        "cerebral cortex": 0.6,
        "cerebellum white matter": 0.42,
        "cerebellum cortex": 0.62,
        "thalamus": 0.5,
        "caudate": 0.56,
        "putamen": 0.5,
        "pallidum": 0.36,
        "hippocampus": 0.62,
        "amygdala": 0.6,
        "ventral diencephalon": 0.44,
        "brain stem": 0.46,
        "fluid": 1.0,
    },
}
# FreeSurfer's numbers of the right side, and how far they are from those of the left.
RIGHT = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 58: 26, 60: 28}


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject on the common grid of 80 × 96 × 80 voxels (D, H, W) of 2 mm, axes along RAS.

    Attributes
    ----------
    name : str
    labels : Volume, (1, D, H, W)
        FreeSurfer's numbers of the brain, 0 outside.
    t1, t2 : Volume, (1, D, H, W)
        Rendered from the labels at 1 mm: partial volumes, texture, bias, noise; 0 outside the brain.
    """

    name: str
    labels: Volume
    t1: Volume
    t2: Volume


def subjects(split: Literal["train", "validation", "test"]) -> list[Subject]:
    """The subjects of a split, from ``build/subjects``; made there when they are asked for the first time."""
    return [_subject(number) for number in SPLITS[split]]


def template() -> Subject:
    """The training subject that all are brought to."""
    return _subject(TEMPLATE)


def one_sided(labels: torch.Tensor) -> torch.Tensor:
    """Labels of the right as those of the left: both sides look alike in every real contrast."""
    found = labels.clone()
    for right, left in RIGHT.items():
        found[labels == right] = left
    return found


def in_contrasts(subject: Subject, seed: int) -> Subject:
    """The subject with two random contrasts in place of T1 and T2, drawn as trainings draw them."""
    stream = torch.Generator().manual_seed(seed)
    labels = one_sided(subject.labels.data[0].round().long())
    one, two = (subject.t1.with_data(synthetic_contrast(labels, stream)) for _ in range(2))
    return replace(subject, t1=one, t2=two)


def label_map(number: int) -> Volume:
    """The whole-head label map of a subject as it comes, 1 mm."""
    return read_volume(record.data_folder("synthseg_labels") / f"training_seg_{number:02d}.nii.gz")


@lru_cache(maxsize=len(SPLITS) * 16)
def _subject(number: int) -> Subject:
    folder = CACHE / f"{number:02d}-{SUBJECTS_KEY}"
    names = ("labels", "t1", "t2")
    if not (folder / "t2.nii.gz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, volume in zip(names, _made(number), strict=True):
            write_volume(volume, folder / f"{name}.nii.gz")
    return Subject(f"subject {number:02d}", *(read_volume(folder / f"{name}.nii.gz", name=name) for name in names))


def _made(number: int) -> tuple[Volume, Volume, Volume]:
    fine = _common_grid(1.0, tuple(2 * n for n in SHAPE))
    coarse = _common_grid(SPACING_MM, SHAPE)
    source = _brain_only(label_map(number))
    transform = _affine(number, source)
    labels = _resampled(source, coarse, transform)
    # Rendered fine and averaged: voxels at borders are mixtures, as a scanner's are.
    detailed = _resampled(source, fine, transform).data[0].long()
    images = []
    for contrast in ("t1", "t2"):
        image = F.avg_pool3d(rendered(detailed, contrast, seed=number)[None], 2)[0]
        images.append(Volume(image, coarse, name=contrast))
    return labels, images[0], images[1]


def rendered(labels: torch.Tensor, contrast: Literal["t1", "t2"], *, seed: int) -> torch.Tensor:
    """(1, D, H, W): a label map (D, H, W) of 1 mm as MR shows it; levels vary by 5 % between subjects."""
    random = random_stream(seed, f"subject {contrast}")
    table = torch.zeros(int(max(BRAIN)) + 1)
    table[list(BRAIN)] = _LEVELS[contrast]["fluid"]
    for name, numbers in STRUCTURES.items():
        if name in _LEVELS[contrast]:
            table[list(numbers)] = _LEVELS[contrast][name] * (1 + 0.05 * float(random.standard_normal()))
    shape = tuple(labels.shape)
    image = gaussian_blur(table[labels][None, None], 0.6)[0]
    texture, bias = (smooth_noise(shape, sigma, random) for sigma in ((1.5,) * 3, [0.25 * n for n in shape]))
    image = image * torch.exp(0.04 * texture + 0.1 * bias)
    image = image + 0.04 * white_noise(shape, random)
    return image.clamp(min=0) * (labels > 0)


def _brain_only(head: Volume) -> Volume:
    return head.with_data(head.data * torch.isin(head.data, torch.tensor(BRAIN, dtype=torch.float32)))


def _common_grid(spacing_mm: float, shape: tuple[int, int, int]) -> Grid:
    """Axes along RAS, about the middle of the template's brain."""
    matrix = np.diag([spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = _middle() - (np.array(shape[::-1]) - 1) / 2 * spacing_mm
    return Grid(shape, matrix)


@lru_cache(maxsize=1)
def _middle() -> np.ndarray:
    template = _brain_only(label_map(TEMPLATE))
    points = template.grid.points_ras()[(template.data[0] > 0).numpy()]
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)


def _affine(number: int, source: Volume) -> sitk.Transform:
    """Template to subject, LPS mm: antspyx, Mattes MI of the T1 of both, at the subjects' resolution."""
    if number == TEMPLATE:
        return sitk.AffineTransform(3)
    import ants

    with tempfile.TemporaryDirectory() as scratch:
        paths = [str(Path(scratch) / name) for name in ("fixed.nii.gz", "moving.nii.gz")]
        heads = ((_brain_only(label_map(TEMPLATE)), TEMPLATE), (source, number))
        for path, (labels, seed) in zip(paths, heads, strict=True):
            grid = labels.grid.with_spacing([SPACING_MM] * 3)
            coarse = resample(labels, grid, mode="nearest", padding_mode="zeros")[0].long()
            write_volume(Volume(rendered(coarse, "t1", seed=seed), grid), path)
        fixed, moving = (ants.image_read(path) for path in paths)
        found = ants.registration(
            fixed, moving, type_of_transform="Affine", random_seed=1, outprefix=str(Path(scratch) / "found")
        )
        return sitk.ReadTransform(next(path for path in found["fwdtransforms"] if path.endswith(".mat")))


def _resampled(labels: Volume, grid: Grid, transform: sitk.Transform) -> Volume:
    reference = itk_image(Volume(torch.zeros(1, *grid.shape), grid))
    image = sitk.Resample(itk_image(labels), reference, transform, sitk.sitkNearestNeighbor)
    return volume_from_itk(image, "labels")


def dice_of(warped: torch.Tensor, fixed: torch.Tensor) -> Mapping[str, float]:
    """Dice of each of `STRUCTURES` between label maps (D, H, W), left and right each on its own and then averaged."""
    by_number = dice(warped, fixed, [number for numbers in STRUCTURES.values() for number in numbers])
    return {name: float(np.mean([by_number[n] for n in numbers])) for name, numbers in STRUCTURES.items()}
