"""Registration by a trained network: the pair as the network knows it, one pass, and back to the working grid."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import nn

from MMRegCore.config import LearnedSettings
from MMRegCore.config.networks import TrainedOn
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import InputError
from MMRegCore.features.mind import mind_ssc
from MMRegCore.geometry import Grid
from MMRegCore.methods.fusion import Fusion, fuse
from MMRegCore.methods.solution import Solution
from MMRegCore.monitor import Monitor
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.lapirn import LapIrn
from MMRegCore.networks.weights import load_network
from MMRegCore.optimisation.instance import optimise_instance, pool
from MMRegCore.optimisation.inverse_consistency import inverse_consistency_error
from MMRegCore.preprocess import Prepared, on_grid
from MMRegCore.runtime import is_mixed
from MMRegCore.volume import Volume
from MMRegCore.warp import resampling_coordinates, sample

# The methods whose weights are of the architecture of the same name.
LEARNED = ("multiprop", "gradient-guided", "lapirn")

_log = logging.getLogger(__name__)

# Beyond these shares of what it was trained on, a network is told to work on unlike images.
_LEAST_EXTENT, _LARGEST_EXTENT, _COARSEST = 0.6, 1.5, 1.5


@torch.no_grad()
def learned(
    prepared: Prepared, architecture: str, settings: LearnedSettings, fusion: Fusion, monitor: Monitor
) -> Solution:
    """Register by a network, each moving image on its own, and fuse the fields.

    Parameters
    ----------
    prepared : Prepared
        On the device where the work is to happen.
    architecture : str
        'multiprop', 'gradient-guided' or 'lapirn'.
    settings : LearnedSettings
    fusion : str
        See `fuse`.
    monitor : Monitor

    Raises
    ------
    InputError
        When the weights are not there, were altered, or are of another network.
    """
    monitor.report("reading the network", 0.0)
    if not settings.weights:
        raise InputError(f"expected learned.weights, a file that mmreg train {architecture} wrote; got none")
    device = prepared.fixed.device
    network = load_network(settings.weights, architecture=architecture).to(device)
    mixed = torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_mixed(device, settings.precision))
    known = cast(TrainedOn, cast(Any, network).settings.trained_on)
    for difference in unlike(prepared, known):
        _log.warning("%s was trained on other images: %s", settings.weights, difference)
    grid = prepared.grid.upright(known.spacing_mm)
    fixed = _as_known(prepared.fixed, prepared.fixed_weight, prepared.grid, grid)
    fields, errors = [], []
    for number, (image, weight) in enumerate(zip(prepared.moving, prepared.moving_weight, strict=True)):
        monitor.report("the network", 0.1 + 0.5 * number / len(prepared.moving))
        moving = _as_known(image, weight, prepared.grid, grid)
        with mixed:
            forward, backward = (field.float() for field in _both_ways(network, fixed, moving))
        error = inverse_consistency_error(forward, backward, (known.spacing_mm,) * 3)
        fields.append(DisplacementField.from_voxel(forward, grid).on_grid(prepared.grid).to_voxel())
        there = resampling_coordinates(grid, prepared.grid).to(error.device)
        errors.append(sample(error, there))
    field = fuse(fields, fusion, errors)
    if settings.refine:
        field = _refined(prepared, field, settings, monitor.part(0.6, 1.0))
    return Solution(field, {"inverse_consistency_error_mm": torch.stack(errors).mean(dim=0)})


def unlike(prepared: Prepared, known: TrainedOn) -> list[str]:
    """What about a pair is not as in the training, in words; empty where nothing is."""
    found = []
    extent_mm = [n * known.spacing_mm for n in prepared.grid.upright(known.spacing_mm).shape]
    for axis, here, there in zip(("S", "A", "R"), extent_mm, known.extent_mm, strict=True):
        if not _LEAST_EXTENT * there <= here <= _LARGEST_EXTENT * there:
            found.append(f"expected about {there:.0f} mm along {axis}; got {here:.0f} mm")
    spacing_mm = float(prepared.grid.spacing_mm.max())
    if spacing_mm > _COARSEST * known.spacing_mm:
        found.append(f"expected voxels of {known.spacing_mm:g} mm or finer; got {spacing_mm:g} mm")
    return found


def _both_ways(network: nn.Module, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The displacements from fixed to moving and from moving to fixed."""
    if isinstance(network, LapIrn):  # which may have to describe the images: once is enough
        here, there, shape = network.seen(fixed), network.seen(moving), fixed.shape[2:]
        return network.between(here, there, shape), network.between(there, here, shape)
    return network(fixed, moving), network(moving, fixed)


def _as_known(image: torch.Tensor, weight: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """(1, 1, D, H, W) on the network's grid, in [0, 1]; dark where there is no evidence, as around a brain."""
    inside = weight > 0
    if bool(inside.any()):
        image = torch.where(inside, image, image[inside].min().clamp(max=0))
    resampled = on_grid(Volume(image[0].cpu(), grid), target)
    return unit_range(resampled)[None].to(image.device)


def _refined(prepared: Prepared, field: torch.Tensor, settings: LearnedSettings, monitor: Monitor) -> torch.Tensor:
    stride = settings.instance.grid_spacing
    fixed, *moving = (
        pool(mind_ssc(image, radius=settings.mind_radius, dilation=settings.mind_dilation), stride)
        for image in (prepared.fixed, *prepared.moving)
    )
    weights = [pool(prepared.fixed_weight * weight, stride) for weight in prepared.moving_weight]
    with torch.enable_grad():
        return optimise_instance(fixed, moving, field, settings.instance, weights=weights, monitor=monitor)
