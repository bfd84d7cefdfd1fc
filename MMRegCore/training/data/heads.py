"""Heads as no scanner and every scanner shows them: label maps in random contrasts, cut, thick, ill and stripped.

What a network must find in all of them is the same brain (SynthStrip, Hoopes et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.networks.brain_unet import SPACING_MM
from MMRegCore.networks.intensity import unit_range
from MMRegCore.ops import gaussian_blur, identity_positions
from MMRegCore.settings import Settings, setting
from MMRegCore.simulate.noise import smooth_noise, white_noise
from MMRegCore.training.data.subjects import Subject
from MMRegCore.training.data.synthesis import DeformationSettings, random_deformation

# FreeSurfer's numbers: below this one they are of the skull's content.
_EXTRACEREBRAL = 500
_FLUID = 24
_GREY = (3, 8, 10, 11, 12, 13, 17, 18, 26, 42, 47, 49, 50, 51, 52, 53, 54, 58)
_WHITE = (2, 7, 16, 28, 41, 46, 60)
_VENTRICLES = (4, 5, 14, 15, 24, 43, 44)
# Left and right look alike in every scan.
_RIGHT = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 58: 26, 60: 28}
# Fluid farther than this from tissue, down the spine or over an atrophic brain, is not of the brain.
_FLUID_MM = 4.0
_CLOSING_MM = 3
# Distances are kept in steps of this, up to `_FARTHEST_MM`.
_STEP_MM, _FARTHEST_MM = 0.1, 12.0
# SynthSeg's numbers of bone, its marrow, muscle and other soft tissue, fat and skin.
_BONE, _MARROW, _SOFT, _FAT = (515,), (516,), (507,), (511,)
# How bright these tissues are in T1, T2, FLAIR and proton density, about.
_TISSUES = (_GREY, _WHITE, _VENTRICLES, _BONE, _MARROW, _SOFT, _FAT)
_KNOWN = (
    (0.5, 0.75, 0.15, 0.08, 0.6, 0.4, 0.8),
    (0.55, 0.38, 0.95, 0.05, 0.4, 0.3, 0.55),
    (0.6, 0.5, 0.12, 0.05, 0.35, 0.35, 0.5),
    (0.8, 0.65, 0.9, 0.08, 0.5, 0.5, 0.6),
)
# Of known contrasts, so many know the brain only.
_BRAIN_ONLY = 0.4
# Four points of a voxel, by which partial volumes come about.
_WITHIN = 0.25 * torch.tensor([[-1.0, -1, -1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])


@dataclass(frozen=True)
class HeadSettings(Settings):
    """How far synthetic heads may go; probabilities, and largest values."""

    whole_voxel: tuple[int, ...] = setting((96, 96, 80), "Size of images of whole heads, at 2 mm.", minimum=32)
    crop_voxel: tuple[int, ...] = setting((24, 80), "Least and largest side of cut images, at 2 mm.", minimum=16)
    cut: float = setting(0.4, "How often an image is cut out near the brain.", minimum=0, maximum=1)
    known: float = setting(0.65, "How often contrasts are as in T1, T2, FLAIR or PD.", minimum=0, maximum=1)
    stripped: float = setting(0.15, "How often the image is stripped already.", minimum=0, maximum=1)
    faceless: float = setting(0.25, "How often the face is missing.", minimum=0, maximum=1)
    slab: float = setting(0.4, "How often parts at the ends were not scanned.", minimum=0, maximum=1)
    thick: float = setting(0.5, "How often slices are thick.", minimum=0, maximum=1)
    thickest_mm: float = setting(7.0, "Thickness of the thickest slices.", minimum=2)
    lesions: float = setting(0.4, "How often there are tumours or cavities.", minimum=0, maximum=1)
    vessels: float = setting(0.4, "How often vessels are bright.", minimum=0, maximum=1)
    deformation: DeformationSettings = DeformationSettings(rotation_deg=20.0, amplitude_voxel=2.0)


@dataclass(frozen=True, eq=False)
class Head:
    """A label map along S, A and R, 1 mm, and the distance from the brain's surface.

    Attributes
    ----------
    numbers : Tensor, (N,)
        The labels that there are; the first is that of the background, 0.
    index : Tensor, (D, H, W), uint8
        Which of them each voxel has.
    steps : Tensor, (D, H, W), int8
        Signed distance in steps of 0.1 mm, negative inside.
    """

    numbers: torch.Tensor
    index: torch.Tensor
    steps: torch.Tensor
    middle: torch.Tensor  # (3,): of the brain, voxels

    @classmethod
    def of(cls, subject: Subject) -> Head:
        """Of a subject with labels of 1 mm; `InputError` where it has none."""
        if subject.labels is None:
            raise InputError(f"expected labels of '{subject.name}'; got none")
        labels = _along_axes(subject.labels, subject.grid)
        labels = labels.where(labels >= 0, 0)
        numbers, index = torch.cat([labels.new_zeros(1), labels.flatten()]).unique(return_inverse=True)
        most = round(_FARTHEST_MM / _STEP_MM)
        steps = (brain_distance(labels) / _STEP_MM).round().clamp(-most, most).to(torch.int8)
        return cls(
            numbers, index[1:].to(torch.uint8).reshape(labels.shape), steps, (steps < 0).nonzero().float().mean(dim=0)
        )


def brain_distance(labels: torch.Tensor) -> torch.Tensor:
    """(D, H, W), mm: distance from the brain's surface, negative inside, of a map of 1 mm in FreeSurfer's numbers.

    The brain is its tissue, ventricles and sulci, and the fluid around it up to 4 mm.
    """
    inside = ((labels > 0) & (labels < _EXTRACEREBRAL)).numpy()
    tissue = sitk.GetImageFromArray((inside & (labels != _FLUID).numpy()).astype(np.uint8))
    solid = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(tissue, [_CLOSING_MM] * 3))
    from_tissue = _distance(solid)
    brain = (from_tissue < 0) | (inside & (from_tissue < _FLUID_MM))
    smooth = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray(brain.astype(np.uint8)), [2] * 3)
    return torch.from_numpy(_distance(sitk.RelabelComponent(sitk.ConnectedComponent(smooth)) == 1)).float()


def draw_head(head: Head, generator: torch.Generator, settings: HeadSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of a head and its distance from the brain's surface, (1, 1, D, H, W) each, at 2 mm.

    The image is in [0, 1]; the distance is in mm up to 12, negative inside, and NaN where nothing was scanned.
    """
    random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    shape, positions = _positions(head, random, generator, settings)
    means, spreads = _contrast(head.numbers, random, settings)
    size = torch.tensor(head.index.shape).reshape(3, 1)
    image, spread, distance = (torch.zeros(shape) for _ in range(3))
    for offset in _WITHIN * SPACING_MM:
        at = (positions.reshape(3, -1) + offset.reshape(3, 1)).round().long()
        there = ((at >= 0) & (at < size)).all(dim=0)
        at = torch.minimum(at.clamp(min=0), size - 1)
        flat = (at[0] * size[1] + at[1]) * size[2] + at[2]
        label = head.index.flatten()[flat].long()
        label[~there] = 0
        image += means[label].reshape(shape) / 4
        spread += spreads[label].reshape(shape) / 4
        near = torch.where(there, head.steps.flatten()[flat].float() * _STEP_MM, torch.tensor(_FARTHEST_MM))
        distance += near.reshape(shape) / 4
    image = _with_lesions(image, distance, random, settings)
    image = _with_vessels(image, distance, random, settings)
    image, distance = _without_parts(image, distance, random, settings)
    image = _as_scanned(image, spread, random, settings)
    return unit_range(image)[None, None], distance[None, None]


def _along_axes(labels: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The same map with its axes (D, H, W) along S, A and R, whatever its grid's directions."""
    directions = np.asarray(grid.ras_from_ijk)[:3, :3]
    nearest = np.abs(directions).argmax(axis=0)  # which of R, A, S each of i, j, k runs along
    axes = [2 - int(np.nonzero(nearest == world)[0][0]) for world in (2, 1, 0)]
    turned = labels.permute(*axes)
    backward = [
        axis for axis, world in enumerate((2, 1, 0)) if directions[world, int(np.nonzero(nearest == world)[0][0])] < 0
    ]
    return turned.flip(backward).contiguous().short()


def _distance(mask: sitk.Image) -> npt.NDArray[np.float32]:
    """(D, H, W), mm, from the faces of a mask's voxels of 1 mm, negative inside."""
    # The filter measures from the middles of the outermost voxels inside.
    found = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, squaredDistance=False))
    return cast("npt.NDArray[np.float32]", found - 0.5)


def _positions(
    head: Head, random: np.random.Generator, generator: torch.Generator, settings: HeadSettings
) -> tuple[tuple[int, int, int], torch.Tensor]:
    """The shape of an image of 2 mm, and where its voxels lie in the head (3, D, H, W)."""
    if random.uniform() < settings.cut:
        least, most = settings.crop_voxel
        shape = tuple(8 * int(n) for n in random.integers(least // 8, most // 8 + 1, 3))
        centre = _voxel(head.steps < 40, random)
    else:
        shape = settings.whole_voxel
        centre = head.middle + torch.from_numpy(random.uniform(-25, 25, 3)).float()
    d, h, w = shape
    motion = random_deformation((d, h, w), generator, settings.deformation)[0]
    middle = torch.tensor([(n - 1) / 2 for n in shape]).reshape(3, 1, 1, 1)
    offsets = identity_positions((d, h, w))[0] + motion - middle
    if random.uniform() < 0.5:
        offsets[2] = -offsets[2]
    return (d, h, w), offsets * SPACING_MM + centre.reshape(3, 1, 1, 1)


def _voxel(mask: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """(3,): a random voxel of a mask."""
    flat = mask.flatten().nonzero()[:, 0]
    drawn = int(flat[int(random.integers(len(flat)))])
    return torch.tensor(np.unravel_index(drawn, tuple(mask.shape))).float()


def _contrast(
    numbers: torch.Tensor, random: np.random.Generator, settings: HeadSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every label, (N,) each."""
    level = random.uniform(0.05, 1, 700)
    if random.uniform() < settings.known:
        means = np.array(_KNOWN[int(random.integers(len(_KNOWN)))])
        means = means + np.array([0.08] * 3 + [0.03] + [0.15] * 3) * random.standard_normal(len(means))
        count = 3 if random.uniform() < _BRAIN_ONLY else len(means)
        for group, mean in zip(_TISSUES[:count], means, strict=False):
            level[list(group)] = mean + 0.04 * random.standard_normal(len(group))
    elif random.uniform() < 0.25:
        # Few levels: neighbours look alike, and what separates them is a thin line or nothing.
        level = level[random.integers(0, 6, 700)]
    if random.uniform() < 0.5:
        level[list(_BONE)] = random.uniform(0, 0.15)
    level[0] = 0.0 if random.uniform() < 0.8 else random.uniform(0, 0.6)
    for right, left in _RIGHT.items():
        level[right] = level[left]
    spread = random.uniform(0, 0.08, 700) * (level > 0)
    chosen = numbers.long().clamp(0, 699).numpy()
    return torch.from_numpy(level.clip(0, 1)[chosen]).float(), torch.from_numpy(spread[chosen]).float()


def _with_lesions(
    image: torch.Tensor, distance: torch.Tensor, random: np.random.Generator, settings: HeadSettings
) -> torch.Tensor:
    """Tumours with and without a rim, oedema, cavities: of the brain, whatever they look like."""
    if not bool((distance < 0).any()) or random.uniform() >= settings.lesions:
        return image
    points = identity_positions(tuple(image.shape))[0]
    for _ in range(int(random.integers(1, 4))):
        centre = _voxel(distance < 0, random).reshape(3, 1, 1, 1)
        radii = torch.from_numpy(random.uniform(3, 25, 1) * random.uniform(0.6, 1.4, 3)).float() / SPACING_MM
        ragged = 0.25 * smooth_noise(tuple(image.shape), (4, 4, 4), random)
        far = ((points - centre) / radii.reshape(3, 1, 1, 1)).square().sum(dim=0).sqrt() + ragged
        soft = random.uniform(0.02, 0.3)
        share = torch.sigmoid((1 - far) / soft) * (distance < 1)
        image = image + share * (random.uniform(0, 1.2) - image)
        if random.uniform() < 0.5:
            rim = torch.exp(-((far - 1) / 0.12).square()) * (distance < 1)
            image = image + rim * (random.uniform(0, 1.3) - image)
    return image


def _with_vessels(
    image: torch.Tensor, distance: torch.Tensor, random: np.random.Generator, settings: HeadSettings
) -> torch.Tensor:
    """Bright thin tubes in and about the brain, and a bright dura."""
    if random.uniform() >= settings.vessels:
        return image
    one, two = (smooth_noise(tuple(image.shape), (5, 5, 5), random) for _ in range(2))
    tube = torch.exp(-(one.square() + two.square()) / 0.03) * (distance < 4)
    image = image + random.uniform(0.3, 1.0) * tube
    if random.uniform() < 0.5:
        patchy = (smooth_noise(tuple(image.shape), (8, 8, 8), random) > random.uniform(-1, 1)).float()
        image = image + random.uniform(0, 0.6) * patchy * torch.exp(-(((distance - random.uniform(0.5, 3)) / 0.8) ** 2))
    return image


def _without_parts(
    image: torch.Tensor, distance: torch.Tensor, random: np.random.Generator, settings: HeadSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces that were removed for privacy, slices that were not scanned, what was stripped."""
    points = identity_positions(tuple(image.shape))[0]
    if random.uniform() < settings.faceless and bool((distance < 0).any()):
        # Anterior and inferior: axes are S, A, R.
        normal = torch.tensor([-random.uniform(0.1, 1), random.uniform(0.3, 1), 0.2 * random.standard_normal()])
        along = torch.einsum("i,idhw->dhw", normal.float() / normal.norm().float(), points)
        edge = along[distance < 0].max() + random.uniform(-2, 8) / SPACING_MM
        image = torch.where((along > edge) & (distance > 2), 0.0, image)
    if random.uniform() < settings.slab:
        for _ in range(int(random.integers(1, 4))):
            measured = _on_one_side(points, random)
            image, distance = torch.where(measured, image, 0.0), torch.where(measured, distance, torch.nan)
    if random.uniform() < settings.stripped:
        image = torch.where(distance < random.uniform(-1, 3), image, 0.0)
    return image, distance


def _on_one_side(points: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """(D, H, W) bool: all but what a plane cuts off at an end, along an axis or obliquely; a third at most."""
    normal = np.sign(random.standard_normal()) * np.eye(3)[int(random.integers(3))]
    if random.uniform() < 0.6:
        normal = normal + 0.3 * random.standard_normal(3)
    along = torch.einsum("i,idhw->dhw", torch.from_numpy(normal / np.linalg.norm(normal)).float(), points)
    low, high = float(along.min()), float(along.max())
    return along < high - random.uniform(0, 0.33) * (high - low)


def _as_scanned(
    image: torch.Tensor, spread: torch.Tensor, random: np.random.Generator, settings: HeadSettings
) -> torch.Tensor:
    """Texture, slices, blur, bias, gamma, noise."""
    shape = tuple(image.shape)
    present = image > 0
    image = image + spread * gaussian_blur(white_noise((1, 1, *shape), random), random.uniform(0.3, 1.0))[0, 0] * 3
    image = image.clamp(min=0) * present
    length = [random.uniform(0.15, 0.5) * n for n in shape]
    image = image * torch.exp(random.uniform(0, 0.4) * smooth_noise(shape, length, random))
    if random.uniform() < settings.thick:
        axis = int(random.integers(3))
        slices = list(shape)
        slices[axis] = max(round(shape[axis] * SPACING_MM / random.uniform(SPACING_MM, settings.thickest_mm)), 4)
        image = F.interpolate(image[None, None], size=slices, mode="area")
        image = F.interpolate(image, size=shape, mode="trilinear", align_corners=False)[0, 0]
    elif random.uniform() < 0.3:
        image = gaussian_blur(image[None, None], random.uniform(0.2, 1.0))[0, 0]
    top = float(image.max().clamp(min=1e-6))
    image = top * (image / top) ** math.exp(0.3 * random.standard_normal())
    noise = random.uniform(0, 0.06) * float(image[image > 0].mean()) if bool((image > 0).any()) else 0.0
    noisy = ((image + noise * white_noise(shape, random)) ** 2 + (noise * white_noise(shape, random)) ** 2).sqrt()
    # Where nothing was measured or everything was removed, there is no noise either.
    return noisy if random.uniform() < 0.5 else noisy * (image > 0)
