"""Where an image has content: the field of view of an ultrasound volume, found by its background."""

from __future__ import annotations

import logging
from itertools import product
from typing import cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from MMRegCore.intensities import border_value, with_warning
from MMRegCore.volume import Volume

Mask = npt.NDArray[np.bool_]

_Image = npt.NDArray[np.float32]

_CLOSING_VOXELS = 3
# A frame is at most so many voxels thick, and there is at most one.
_THICKEST_FRAME, _FRAMES = 3, 1
_HARDLY_ANY = 0.05
# So many of the eight corners must be dark, with noise of this share of the brightness at most.
_CORNERS, _WEAK = 4, 0.05


def field_of_view_mask(volume: Volume) -> torch.Tensor:
    """Find where an image has content: (D, H, W) bool.

    What lies outside the cone of an ultrasound volume holds one constant value that reaches the border of the grid, or
    the frame around it, or noise that is weak against the content.  Small gaps (shadows, dark ventricles) inside are
    closed; specks far from the main part are left out.  An image without such a background is content everywhere.
    Voxels that are not finite are never content.
    """
    image = volume.data[0].cpu().numpy()
    finite = np.isfinite(image)
    content = finite & _differs_from_background(image)
    if np.concatenate([content[part].ravel() for part in _corners(image)]).mean() > _HARDLY_ANY:
        content &= _exceeds_noise(image)
    if bool((content == finite).all()) or not content.any():
        return torch.from_numpy(content)
    return torch.from_numpy(_main_part(_closed(content)) & finite)


def with_field_of_view(volume: Volume) -> Volume:
    """The image with its mask, or where it has none, with its field of view for one; warns where that is everything."""
    if volume.mask is not None:
        return volume
    mask = field_of_view_mask(volume)
    if bool(mask.all()):
        volume = with_warning(
            volume,
            "no background was found around it: the whole grid was taken for its field of view; where it is a cone, "
            "give its mask",
            logging.INFO,  # many reconstructed volumes fill their grid
        )
    return volume.with_mask(mask)


def replicate_edge(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Give every voxel outside the mask the value of the nearest voxel inside, to within a voxel: (D, H, W) of both."""
    if bool(mask.all()):
        return image
    distance = sitk.DanielssonDistanceMapImageFilter()
    distance.SetInputIsBinary(True)
    distance.SetUseImageSpacing(False)
    # The filter goes wrong at the border of its image: give it one that is not ours.
    distance.Execute(sitk.GetImageFromArray(np.pad(mask.cpu().numpy().astype(np.uint8), 1)))
    offset = torch.from_numpy(sitk.GetArrayFromImage(distance.GetVectorDistanceMap())[1:-1, 1:-1, 1:-1])
    index = torch.meshgrid(*(torch.arange(n) for n in image.shape), indexing="ij")
    nearest = tuple(
        (index[axis] + offset[..., 2 - axis]).clamp(0, image.shape[axis] - 1).to(image.device) for axis in range(3)
    )
    return image[nearest]


def _differs_from_background(image: _Image) -> Mask:
    """Where an image differs from the constant value at its border; below a frame, from that at the frame's inside."""
    content = np.ones(image.shape, dtype=bool)
    part: tuple[slice, ...] = (slice(None),) * 3
    for _ in range(_FRAMES + 1):
        background = border_value(image[part])
        if background is None:
            return content
        content[part] &= image[part] != background
        inner = tuple(slice(_THICKEST_FRAME, size - _THICKEST_FRAME) for size in image.shape)
        if part == inner or not _is_frame(content):
            return content
        # A frame hides the background: what lies under it is no content either.
        content[:] = False
        content[inner] = True
        part = inner
    return content


def _is_frame(content: Mask) -> bool:
    """Whether nothing but a thin rim differs from the content."""
    outside = ~content
    inner = tuple(slice(_THICKEST_FRAME, size - _THICKEST_FRAME) for size in content.shape)
    return min(content.shape) > 4 * _THICKEST_FRAME and bool(outside.any()) and outside[inner].mean() < _HARDLY_ANY


def _corners(image: _Image) -> list[tuple[slice, ...]]:
    return list(product(*((slice(0, -(-n // 8)), slice(n - -(-n // 8), n)) for n in image.shape)))


def _exceeds_noise(image: _Image) -> Mask:
    """Where an image exceeds the noise in its corners, which no cone reaches; everywhere where they are bright."""
    everywhere = np.ones(image.shape, dtype=bool)
    corners = [image[part] for part in _corners(image)]
    levels = sorted(float(corner[np.isfinite(corner)].max()) for corner in corners if np.isfinite(corner).any())
    if len(levels) < _CORNERS:
        return everywhere
    low, high = (float(v) for v in np.quantile(image[np.isfinite(image)], [0.0, 0.99]))
    limit = levels[_CORNERS - 1]
    if not limit - low <= _WEAK * (high - low):
        return everywhere
    content: Mask = image > limit
    return content if _HARDLY_ANY < content.mean() < 1 - _HARDLY_ANY else everywhere


def _closed(content: Mask) -> Mask:
    pad = 2 * _CLOSING_VOXELS
    image = sitk.GetImageFromArray(np.pad(content, pad).astype(np.uint8))
    closed = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, [_CLOSING_VOXELS] * 3, sitk.sitkBall))
    return cast(Mask, sitk.GetArrayFromImage(closed)[pad:-pad, pad:-pad, pad:-pad] > 0)


def _main_part(content: Mask) -> Mask:
    """Drop connected parts that are much smaller than the largest one."""
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(content.astype(np.uint8))))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Mask = (sizes > 0.05 * sizes.max())[labels]
    return kept
