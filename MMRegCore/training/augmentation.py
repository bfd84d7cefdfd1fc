"""Plausible deformations of a labelled image, sampled from the features of MultiPropReg (paper, section 5.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.multiprop import MultiProp
from MMRegCore.networks.weights import load_network
from MMRegCore.ops import warp
from MMRegCore.resampling import resample_smoothed
from MMRegCore.volume import Volume


@dataclass(frozen=True, eq=False)
class Augmented:
    """One deformed copy: the image, its labels where there are some, and the field that both were warped by."""

    image: Volume
    labels: Volume | None
    field: DisplacementField


@torch.no_grad()
def augment(
    image: Volume,
    labels: Volume | None,
    towards: Volume,
    *,
    count: int,
    weights: str,
    strength: float = 1.0,
    seed: int = 0,
) -> Iterator[Augmented]:
    """Deform an image, each time with other samples of its features and of those of an image that it is moved towards.

    ``labels`` on the image's grid are warped to the nearest voxel.  ``towards`` is roughly aligned in space, and its
    anatomy gives the deformations their direction; with the image itself they stay about where it is.  ``weights`` are
    of MultiPropReg: a .safetensors file, as ``mmreg train multiprop`` leaves it.  Features are sampled by ``strength``
    standard deviations, 0 gives the plain registration, and ``seed`` determines the samples.

    Raises
    ------
    InputError, GeometryError
        When weights are of another network or a number is not usable; when the labels lie on another grid.
    """
    if labels is not None and not labels.grid.matches(image.grid):
        raise GeometryError(f"expected the labels on the grid of '{image.name}'; got {labels.grid.shape}")
    if count < 1 or strength < 0:
        raise InputError(f"expected a count of at least 1 and a strength of at least 0; got {count} and {strength:g}")
    network = load_network(weights, MultiProp)
    grid = image.grid.axis_aligned(network.settings.trained_on.spacing_mm)
    fixed, moving = (unit_range(resample_smoothed(volume, grid))[None] for volume in (towards, image))
    for number in range(count):
        with torch.random.fork_rng(devices=[]):
            # A stream for each copy: the third is the same however many are asked for.
            torch.manual_seed(seed * 1_000_003 + number)
            displacement = network.propagate(fixed, moving, strength=strength).displacement_voxel
        field = DisplacementField.from_voxel(displacement, grid).on_grid(image.grid)
        warped = image.with_data(warp(image.data[None], field.to_voxel())[0])
        warped_labels = labels and labels.with_data(warp(labels.data[None], field.to_voxel(), mode="nearest")[0])
        yield Augmented(warped, warped_labels, field)
