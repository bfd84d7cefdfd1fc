"""Brain extraction: label maps that were not trained on, in unseen contrasts; real heads; images stripped already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from benchmarks import record, subjects
from benchmarks.brain_peers import brain_peers
from MMRegCore import Volume, read_volume
from MMRegCore.evaluate.overlap import dice
from MMRegCore.geometry import Grid
from MMRegCore.ops import gaussian_blur
from MMRegCore.segmentation.brain import find_brain
from MMRegCore.simulate.noise import random_stream, smooth_noise, white_noise
from MMRegCore.training.data.heads import brain_distance

CONTRASTS = 6
THICK_MM = 5.5
# Farther than this outside of the given mask is no matter of definition.
FAR_MM = 5.0


def main() -> None:
    """Write ``results/brain``."""
    rows = [*_label_maps(), *_real_heads(), *_raw_patient(), *_stripped()]
    record.write("brain", rows, _NOTES)


_NOTES = (
    "Dice: label maps 13 to 16 (never trained on), six contrasts each whose means were drawn for this benchmark, "
    "against the brain as it was trained: tissue, ventricles, and fluid up to 4 mm around it. Real heads (Lesjak et "
    "al. 2017) against their given masks, which follow the sulci: share of the mask that is kept, and share of ours "
    "that lies more than 5 mm outside of it. Stripped images: share of their voxels that is kept. CPU seconds include "
    "reading the weights."
)


def _label_maps() -> Iterator[dict[str, Any]]:
    for number in subjects.SPLITS["test"]:
        head = subjects.label_map(number)
        labels = head.data[0].round().long()
        truth = brain_distance(labels.short()) < 0
        for thick in (False, True):
            scores = []
            for contrast in range(CONTRASTS):
                image = _rendered(labels, contrast + 100 * number)
                volume = _with_thick_slices(image, head.grid) if thick else Volume(image[None], head.grid)
                brain, seconds = _timed(volume)
                scores.append((dice(brain.mask(head.grid).int(), truth.int(), [1])[1], brain.sure, seconds))
            values, sure, seconds = zip(*scores, strict=True)
            yield {
                "image": f"label map {number}, {'5.5 mm slices' if thick else '1 mm'}",
                "Dice, mean": float(np.mean(values)),
                "Dice, least": min(values),
                "sure": min(sure),
                "CPU s": float(np.median(seconds)),
            }


def _real_heads() -> Iterator[dict[str, Any]]:
    for path in sorted(record.data_folder("heads").glob("*_brain.nii.gz")):
        image = read_volume(Path(str(path).replace("_brain.nii.gz", ".nii.gz")))
        given = read_volume(path).data[0] > 0.5
        name = path.name.removesuffix("_brain.nii.gz")
        yield {"image": name, **_against(image, given)}
        for peer, extract in brain_peers().items():
            if peer == "deepbet" and not name.endswith("T1W"):
                continue
            started = time.process_time()
            mask = extract(image)
            seconds = time.process_time() - started
            yield {"image": f"{name}, by {peer}", **_overlap(mask, image, given), "CPU s": seconds}


def _raw_patient() -> Iterator[dict[str, Any]]:
    """A patient whose stripped images, brought onto those with skull, say where the brain is."""
    for raw, stripped in (("t1", "t1"), ("t1c", "t1c"), ("t2", "t2"), ("flair", "fla")):
        image = read_volume(next(record.data_folder("tcga_fg6692_raw").glob(f"{raw}.nii*")))
        brain = read_volume(next(record.data_folder("tcga_fg6692").glob(f"{stripped}.nii*")))
        given = _brought_together(brain, image)
        yield {"image": f"tcga_fg6692_raw/{raw}", **_against(image, given)}


def _brought_together(stripped: Volume, image: Volume) -> torch.Tensor:
    """(D, H, W): where a stripped image shows brain, on the grid of the image with skull; rigid, mutual information."""
    inside = stripped.grid.to_itk((stripped.data[0] > 0).numpy().astype(np.uint8))
    fixed, moving = (volume.grid.to_itk(volume.data[0].numpy()) for volume in (stripped, image))
    # Two ways to begin, since the slabs differ: about the centres of mass, about the centres of the images.
    ways = sitk.CenteredTransformInitializerFilter.MOMENTS, sitk.CenteredTransformInitializerFilter.GEOMETRY
    found = min((_rigid(fixed, moving, inside, way) for way in ways), key=lambda each: each[0])[1]
    mask = sitk.Resample(sitk.BinaryFillhole(inside), image.grid.to_itk(), found.GetInverse(), sitk.sitkNearestNeighbor)
    return torch.from_numpy(sitk.GetArrayFromImage(mask) > 0)


def _rigid(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, way: int) -> tuple[float, sitk.Transform]:
    """The metric that was reached, lower is better, and the transform."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.05)
    method.SetMetricFixedMask(mask)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 300)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 0])
    method.SetInitialTransform(sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), way))
    found = method.Execute(fixed, moving)
    return method.GetMetricValue(), found


def _stripped() -> Iterator[dict[str, Any]]:
    images = [("open_ms", name) for name in ("patient07_T1", "patient07_FLAIR", "patient19_T2", "patient19_T1POST")]
    images += [("tcga_fg6692", name) for name in ("t1", "t1c", "t2", "fla")]
    images += [("resect", name) for name in ("Case24_T1_0.5mm", "Case24_FLAIR_0.5mm")]
    for folder, name in images:
        path = next(record.data_folder(folder).glob(f"{name}.nii*"))
        image = read_volume(path)
        # What is outside of a stripped brain has one value, which need not be the lowest.
        values, counts = image.data[0].unique(return_counts=True)
        background = values[counts.argmax()] if float(counts.max()) > 0.1 * image.data.numel() else values[0]
        inside = image.data[0] != background
        brain, seconds = _timed(image)
        kept = float((brain.mask(image.grid) & inside).sum() / inside.sum())
        yield {"image": f"{folder}/{name}, stripped", "kept %": 100 * kept, "sure": brain.sure, "CPU s": seconds}


def _against(image: Volume, given: torch.Tensor) -> dict[str, Any]:
    brain, seconds = _timed(image)
    return {**_overlap(brain.mask(image.grid), image, given), "sure": brain.sure, "CPU s": seconds}


def _overlap(ours: torch.Tensor, image: Volume, given: torch.Tensor) -> dict[str, Any]:
    truth = image.grid.to_itk(given.numpy().astype(np.uint8))
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(truth, squaredDistance=False, useImageSpacing=True))
    far = torch.from_numpy(distance) > FAR_MM
    return {
        "kept %": 100 * float((ours & given).sum() / given.sum()),
        "far outside %": 100 * float((ours & far).sum() / ours.sum().clamp(min=1)),
    }


def _timed(image: Volume) -> tuple[Any, float]:
    started = time.process_time()
    brain = find_brain(image)
    return brain, time.process_time() - started


def _rendered(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """(D, H, W): a mean for every label, partial volumes, bias, noise; nothing of it is the training's."""
    random = random_stream(seed, "unseen contrast")
    means = torch.from_numpy(random.gamma(2.0, 0.25, 1000)).float()
    means[0] = 0.0
    for right, left in subjects.RIGHT.items():
        means[right] = means[left]
    image = gaussian_blur(means[labels][None, None], 0.6)[0, 0]
    shape = tuple(labels.shape)
    image = image * torch.exp(0.15 * smooth_noise(shape, [n / 4 for n in shape], random))
    return (image + 0.03 * float(image.mean()) * white_noise(shape, random)).clamp(min=0)


def _with_thick_slices(image: torch.Tensor, grid: Grid) -> Volume:
    """Slices along the axis nearest to S."""
    axis = 2 - int(np.abs(grid.ras_from_ijk[2, :3]).argmax())
    spacing = [1.0, 1.0, 1.0]
    spacing[2 - axis] = THICK_MM
    thick = grid.with_spacing(spacing)
    return Volume(F.interpolate(image[None, None], size=thick.shape, mode="area")[0], thick)
