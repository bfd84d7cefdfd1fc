"""Where an image has content: the field of view of an ultrasound volume, found by its background."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from MMRegCore.volume import Volume

Mask = npt.NDArray[np.bool_]

# Share of the border that one value must fill to be taken for background.
_OUTSIDE_IS_CONSTANT = 0.05
_CLOSING_VOXELS = 3


def field_of_view_mask(volume: Volume) -> torch.Tensor:
    """Find where an image has content: (D, H, W) bool.

    What lies outside the cone of an ultrasound volume holds one constant value that reaches the border of the grid.
    Small gaps (shadows, dark ventricles) inside are closed; specks far from the main part are left out.  An image
    without such a background is content everywhere.  Voxels that are not finite are never content.
    """
    image = volume.data[0].cpu().numpy()
    finite = np.isfinite(image)
    background = _background_value(image)
    if background is None:
        return torch.from_numpy(finite)
    content = finite & (image != background)
    if not content.any():
        return torch.from_numpy(content)
    return torch.from_numpy(_main_part(_closed(content)) & finite)


def with_field_of_view(volume: Volume) -> Volume:
    """The image with its mask, or where it has none, with its field of view for one."""
    return volume if volume.mask is not None else volume.with_mask(field_of_view_mask(volume))


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


def _background_value(image: npt.NDArray[np.float32]) -> float | None:
    """The value that fills a good share of the grid's border, if one does."""
    faces = np.concatenate([image.take(index, axis=axis).ravel() for axis in range(3) for index in (0, -1)])
    values, counts = np.unique(faces[np.isfinite(faces)], return_counts=True)
    if len(values) == 0 or counts.max() < _OUTSIDE_IS_CONSTANT * len(faces):
        return None
    return float(values[counts.argmax()])


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
