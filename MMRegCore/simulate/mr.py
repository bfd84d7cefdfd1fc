"""An anatomy from a patient's MR images, skull-stripped or not, or from a label map."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import SimpleITK as sitk
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.ops import gaussian_blur
from MMRegCore.resampling import resample
from MMRegCore.simulate.anatomy import Anatomy, anatomy_from_maps, cropped
from MMRegCore.volume import Volume

Contrast = Literal["t1", "t1c", "t2", "flair"]

# From dark to bright in each contrast.
_ORDER_BY_INTENSITY: dict[str, tuple[str, str, str]] = {
    "t1": ("csf", "grey", "white"),
    "t1c": ("csf", "grey", "white"),
    "t2": ("white", "grey", "csf"),
    "flair": ("csf", "white", "grey"),
}
# Labels of FreeSurfer for the tissues of cerebrum, cerebellum and brainstem.
FREESURFER_LABELS: dict[str, tuple[int, ...]] = {
    "white": (2, 7, 16, 28, 41, 46, 60),
    "grey": (3, 8, 10, 11, 12, 13, 17, 18, 26, 42, 47, 49, 50, 51, 52, 53, 54, 58),
    "csf": (24,),
    "ventricles": (4, 5, 14, 15, 43, 44),
}
# Vessels and nerves connect the brain with the scalp.  Bridges of these half-widths are cut by erosion, widest last,
# until the largest component is no larger than a brain can be.
_SEARCH_MM = 2.0
_BRIDGES_VOXEL = (2, 3, 4, 5)
_LARGEST_BRAIN_MM3 = 1.9e6
# A brain fills less than this fraction of a head, and the region found in a skull-stripped brain more than it.
_STRIPPED_FRACTION = 0.7
_SMALLEST_BACKGROUND = 0.05


def anatomy_from_mr(
    images: Sequence[Volume], contrast: Contrast = "t1", spacing_mm: float = 1.0, tumour: Volume | None = None
) -> Anatomy:
    """A crude anatomy from MR images alone: three intensity classes of the first image (Otsu 1979).

    Parameters
    ----------
    images : sequence of Volume
        Aligned; the first is segmented.  Skull-stripped (zero outside the brain), or a whole head or a part of one, in
        which the brain is found.
    contrast : {'t1', 't1c', 't2', 'flair'}
        Of the first image: which class is fluid, grey and white matter; 't1c' is T1 with contrast agent.
    spacing_mm : float
        Of the tissue maps.
    tumour : Volume, (1, D, H, W), optional
        Nonzero in the tumour, on any grid.

    Raises
    ------
    InputError
        When there is no image, it has no contrast inside the brain, or the tumour lies outside of it.
    """
    if not images:
        raise InputError("expected at least one MR image to simulate from; got none")
    first = images[0]
    grid = first.grid.with_spacing([spacing_mm] * 3)
    intensity = torch.nan_to_num(resample(first, grid)[0])
    inside = brain_region(intensity, grid, first.name)
    fractions = _fractions_by_intensity(intensity, inside, contrast, first.name)
    maps = [Volume(part[None], grid, name=key) for key, part in {"brain": inside.float(), **fractions}.items()]
    if tumour is not None:
        maps.append(_tumour_fraction(tumour, grid, inside))
    found = {volume.name: volume for volume in cropped(maps)}
    return anatomy_from_maps(images, found["white"], found["grey"], found["csf"], tumour=found.get("tumour"))


def anatomy_from_labels(
    images: Sequence[Volume], labels: Volume, numbers: Mapping[str, Collection[int]] | None = None
) -> Anatomy:
    """An anatomy from a label map (1, D, H, W) of integers and aligned MR images, none where these are rendered later.

    ``numbers`` are the labels of 'white', 'grey', 'csf' and 'ventricles'; `FREESURFER_LABELS` if None.  Raises
    `InputError` when a tissue is not in the map.
    """
    numbers = FREESURFER_LABELS if numbers is None else numbers
    listed = torch.tensor([number for wanted in numbers.values() for number in wanted], dtype=torch.float32)
    labels = cropped([labels.with_data(labels.data * torch.isin(labels.data, listed))])[0]
    maps = {}
    for name, wanted in numbers.items():
        found = torch.isin(labels.data, torch.tensor(list(wanted), dtype=torch.float32)).float()
        if not found.any():
            raise InputError(f"expected '{labels.name}' to hold {name} as one of {sorted(wanted)}; got none of these")
        # A blur of half a voxel restores the partial volume effect that labels lack.
        maps[name] = Volume(gaussian_blur(found[None], 0.5)[0], labels.grid, name=name)
    return anatomy_from_maps(images, maps["white"], maps["grey"], maps["csf"], ventricles=maps["ventricles"])


def brain_region(intensity: torch.Tensor, grid: Grid, name: str = "image") -> torch.Tensor:
    """(D, H, W) bool: the brain and its fluid in an image of a head or a part of one, skull-stripped or not.

    Raises `InputError`, which calls it ``name``, when the image has too little contrast, or nothing of the size of a
    brain is separated by the skull.
    """
    present = intensity > 0
    if int(present.sum()) < 1000 or float(intensity[present].std()) <= 0:
        raise InputError(f"expected '{name}' to show a brain; got {int(present.sum())} voxels with contrast")
    whole = _filled(present)
    # A coarse grid is enough to separate the brain from the scalp, and much faster.
    coarse = grid.with_spacing([_SEARCH_MM] * 3)
    tissue = _bright(resample(Volume(intensity[None], grid), coarse)[0])
    candidates = (_largest_component(tissue, bridge) for bridge in _BRIDGES_VOXEL)
    found = next((part for part in candidates if int(part.sum()) * coarse.voxel_volume_mm3 < _LARGEST_BRAIN_MM3), None)
    if found is None:
        raise InputError(
            f"expected '{name}' to show a brain separated from the scalp by the skull; got none: skull-strip it first"
        )
    has_background = float(whole.float().mean()) < 1 - _SMALLEST_BACKGROUND
    found_mm3 = int(found.sum()) * coarse.voxel_volume_mm3
    if has_background and found_mm3 > _STRIPPED_FRACTION * int(whole.sum()) * grid.voxel_volume_mm3:
        return whole
    return resample(Volume(found[None].float(), coarse), grid)[0] > 0.5


def _bright(intensity: torch.Tensor) -> sitk.Image:
    """Voxels that are neither air nor bone."""
    clamped = intensity.clamp(min=0, max=float(np.percentile(intensity[intensity > 0].numpy(), 98)))
    # Class 0 is air and bone, class 1 tissue, class 2 the brightest voxels.
    classes: sitk.Image = sitk.OtsuMultipleThresholds(sitk.GetImageFromArray(clamped.numpy()), numberOfThresholds=2)
    bright: sitk.Image = classes >= 1
    return bright


def _largest_component(tissue: sitk.Image, bridge_voxel: int) -> torch.Tensor:
    """(D, H, W) bool: the largest component after cutting bridges, with sulci and ventricles closed."""
    radius = [bridge_voxel] * 3
    core = sitk.ConnectedComponent(sitk.BinaryErode(tissue, radius, boundaryToForeground=True))
    grown = sitk.BinaryDilate(sitk.RelabelComponent(core) == 1, radius) & tissue
    return _filled(torch.from_numpy(sitk.GetArrayFromImage(grown).astype(bool)), 5)


def _fractions_by_intensity(
    intensity: torch.Tensor, inside: torch.Tensor, contrast: Contrast, name: str
) -> dict[str, torch.Tensor]:
    values = intensity[inside]
    if len(values) < 1000 or float(values.max() - values.min()) <= 0:
        raise InputError(f"expected '{name}' to show a brain; got {len(values)} voxels with contrast")
    # Bright vessels and enhancing tumour would raise the thresholds.
    top = float(np.percentile(values.numpy(), 99))
    smooth = gaussian_blur(intensity.clamp(max=top)[None, None], 0.6)[0, 0]
    row = sitk.GetImageFromArray(smooth[inside].reshape(1, 1, -1).numpy())
    labels = sitk.GetArrayFromImage(sitk.OtsuMultipleThresholds(row, numberOfThresholds=2))
    classes = torch.from_numpy(labels.reshape(-1))
    means = [float(smooth[inside][classes == k].mean()) for k in range(3)]
    # Between two class means a voxel is a mixture of the two tissues.
    dark = ((means[1] - smooth) / (means[1] - means[0])).clamp(0, 1) * inside
    bright = ((smooth - means[1]) / (means[2] - means[1])).clamp(0, 1) * inside
    fractions = (dark, inside.float() - dark - bright, bright)
    return dict(zip(_ORDER_BY_INTENSITY[contrast], fractions, strict=True))


def _tumour_fraction(tumour: Volume, grid: Grid, inside: torch.Tensor) -> Volume:
    marked = Volume((tumour.data != 0).float(), tumour.grid)
    fraction = resample(marked, grid, padding_mode="zeros") * inside
    if not (fraction > 0.5).any():
        raise InputError(f"expected the tumour mask '{tumour.name}' to mark voxels of the brain; got none inside it")
    return Volume(fraction, grid, name="tumour")


def _filled(mask: torch.Tensor, closing_voxel: int = 2) -> torch.Tensor:
    """(D, H, W) bool: the largest component, closed and with its holes filled."""
    image = sitk.GetImageFromArray(np.pad(mask.numpy(), closing_voxel).astype(np.uint8))
    image = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, [closing_voxel] * 3))
    largest = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(image)) == 1).astype(bool)
    box = tuple(slice(closing_voxel, -closing_voxel) for _ in range(3))
    return torch.from_numpy(largest[box].copy())
