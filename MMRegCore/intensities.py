"""Intensities that are none, and a scale that all images share; nothing here depends on the unit of an image."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from MMRegCore.volume import Reading, Volume

_log = logging.getLogger(__name__)

_Values = np.ndarray[Any, Any]

# So many times farther from the median than (nearly) all other voxels, a value is an error of the file.
_OUTLIER = 1000.0
_NEARLY_ALL = 0.99
# A constant value on this share of the border is padding when its distance from all other values is this many times
# their range.
_BORDER_SHARE = 0.05
_PADDING_GAP = 8.0
_SAMPLED = 1_000_000
# The mean above the minimum lies between this and its double afterwards.
_LEVEL_EXPONENT = 6


def without_outliers(volume: Volume) -> Volume:
    """The image with NaN where a voxel lies out of all proportion, and a warning that says so."""
    values = volume.data[0].cpu().numpy()
    good = values[np.isfinite(values)].astype(np.float64)
    if good.size == 0:
        return volume
    middle = float(np.median(good))
    distances = np.abs(_sampled(good[good != middle]) - middle)
    if distances.size == 0:
        return volume
    limit = _OUTLIER * float(np.quantile(distances, _NEARLY_ALL))
    wrong = np.abs(values.astype(np.float64) - middle) > limit
    wrong &= np.isfinite(values)
    count = int(wrong.sum())
    if count == 0:
        return volume
    worst = float(values[wrong][np.abs(values[wrong]).argmax()])
    return _marked(volume, wrong, f"{count} voxels lie out of all proportion ({worst:.3g}): they were taken as outside")


def without_padding(volume: Volume) -> Volume:
    """The image with NaN where it is padded with a value far from all others, and a warning that says so."""
    values = volume.data[0].cpu().numpy()
    padding = border_value(values)
    rest = values[np.isfinite(values) & (values != padding)] if padding is not None else np.empty(0)
    if padding is None or rest.size == 0 or rest.min() < padding < rest.max():
        return volume
    low, high = np.quantile(_sampled(rest.astype(np.float64)), [1 - _NEARLY_ALL, _NEARLY_ALL])
    gap = float(np.abs(rest.astype(np.float64) - padding).min())
    if high == low or gap <= _PADDING_GAP * float(high - low):
        return volume
    return _marked(volume, values == padding, f"its padding ({padding:g}) was taken as outside")


def border_value(image: _Values) -> float | None:
    """The value that fills a good share of the border of (D, H, W), if one does."""
    faces = np.concatenate([image.take(index, axis=axis).ravel() for axis in range(3) for index in (0, -1)])
    values, counts = np.unique(faces[np.isfinite(faces)], return_counts=True)
    if len(values) == 0 or counts.max() < _BORDER_SHARE * len(faces):
        return None
    return float(values[counts.argmax()])


def levelled(image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Intensities (C, D, H, W) above their minimum, in a range where squares of 32-bit floats are exact enough.

    The factor is a power of two, so that nothing is rounded; ``foreground`` (D, H, W) says which voxels decide.
    """
    inside = image[:, foreground]
    low = inside.min()
    mean = float((inside.double() - low.double()).mean())
    if not 0 < mean < math.inf:
        return image - low
    return (image - low) * 2.0 ** (_LEVEL_EXPONENT - math.floor(math.log2(mean)))


def levelled_volume(volume: Volume) -> Volume:
    """The image in the range of `levelled`, by the voxels of its foreground; of all, where it has none."""
    foreground = volume.foreground
    if not bool(foreground.any()):
        foreground = torch.ones_like(foreground)
    return volume.with_data(levelled(volume.data, foreground))


def with_warning(volume: Volume, warning: str, level: int = logging.WARNING) -> Volume:
    """The image with one more word of warning, which goes to the log too."""
    _log.log(level, "%s: %s", volume.name, warning)
    reading = volume.reading or Reading("none", "RAS", "stated", "stated")
    return replace(volume, reading=replace(reading, warnings=(*reading.warnings, warning)))


def _marked(volume: Volume, places: _Values, warning: str) -> Volume:
    data = torch.where(torch.from_numpy(places).to(volume.data.device), torch.nan, volume.data[0])
    return with_warning(volume.with_data(data[None]), warning)


def _sampled(values: _Values) -> _Values:
    return values[:: max(1, values.size // _SAMPLED)]
