"""Quality maps, one file each: how they are called, measured and coloured; docs/extending.md tells how to add one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.settings import named, plugins_of
from MMRegCore.volume import Volume

# Colours at even steps: from nothing to much; from good to bad; below, at and above the middle.
MAGNITUDE = ("#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4")
RISK = ("#ffffcc", "#fed976", "#fd8d3c", "#e31a1c", "#800026")
DIVERGING = ("#2d004b", "#8073ac", "#d8daeb", "#f7f7f7", "#fee0b6", "#e08214", "#7f3b08")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a map can be computed from."""

    fixed: Volume
    mask: torch.Tensor  # (D, H, W), bool: where everything is measured
    field: DisplacementField  # on the fixed grid, beyond the linear part of the initial transform
    # Each moving image on the fixed grid under the initial and the final transform.
    before: tuple[Volume, ...]
    after: tuple[Volume, ...]


@dataclass(frozen=True)
class MapSpec:
    """A quality map."""

    name: str  # also of its file, before '.nii.gz', and in `Solution.maps`
    title: str
    unit: str
    sentence: str  # what a reader should know at the colour scale
    colours: tuple[str, ...]
    order: int  # maps are shown in this order
    limits: tuple[float, float] | None = None  # of the colour scale; from the values when None
    # Value in the middle of the scale, where that is made from the values; otherwise it begins at 0.
    middle: float | None = None
    background: float = 0.0  # value that means nothing, for the file outside the field of view
    # From `Measured` to (D, H, W) on the fixed grid; None where the method gives the map.
    compute: Callable[[Measured], torch.Tensor] | None = None

    def limits_of(self, values: torch.Tensor) -> tuple[float, float]:
        """Limits of the colour scale for finite values (N,)."""
        if self.limits is not None:
            return self.limits
        numbers = values.double().cpu().numpy() if values.numel() else np.zeros(1)
        if self.middle is not None:
            reach = max(float(np.abs(np.quantile(numbers, [0.005, 0.995]) - self.middle).max()), 0.05)
            return self.middle - reach, self.middle + reach
        return min(0.0, float(numbers.min())), max(float(np.quantile(numbers, 0.99)), 0.1)


def map_specs() -> dict[str, MapSpec]:
    """Every map by its name, in the order in which they are shown."""
    return {spec.name: spec for spec in sorted(plugins_of(__name__, "MAP"), key=lambda spec: spec.order)}


def find_map(name: str) -> MapSpec:
    """The map of that name; `InputError` with the nearest one when there is none."""
    return named("quality map", name, map_specs())
