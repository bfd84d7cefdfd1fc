"""Registration by a trained network: the images as it was trained on them, one pass, and back to the working grid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from MMRegCore.errors import InputError
from MMRegCore.methods.protocol import Method, Problem, Solution
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.settings import Settings, setting
from MMRegCore.similarity.settings import DescriptorSettings

if TYPE_CHECKING:
    import torch

    from MMRegCore.geometry import Grid
    from MMRegCore.networks.protocol import RegistrationNetwork, TrainingDomain
    from MMRegCore.prepare import Prepared
    from MMRegCore.volume import Channel

_log = logging.getLogger(__name__)

# Beyond these shares of what it was trained on, images are a mismatch for a network.
_LEAST_EXTENT, _LARGEST_EXTENT, _COARSEST = 0.6, 1.5, 1.5


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """Registration by a trained network, each moving image on its own; their fields are fused."""

    architecture: str = setting("", "What the weights must be of: multiprop, gradient-guided, lapirn; any if empty.")
    weights: str = setting(
        "", "A .safetensors file, as mmreg train leaves it with its card; must be given.", tier="basic"
    )
    precision: Literal["auto", "float32", "mixed"] = setting(
        "auto",
        "'mixed' computes in bfloat16 where that is safe; 'auto' does so on a GPU, and on a "
        "processor that has instructions for it.",
    )
    fusion: Literal["signed-max", "mean", "magnitude", "confidence"] = setting(
        "mean", "How one field is made of those of several moving images."
    )
    refine: bool = setting(False, "Whether instance optimisation on descriptors follows.")
    descriptor: DescriptorSettings = DescriptorSettings()
    instance: InstanceSettings = InstanceSettings()


def solve(problem: Problem, settings: NetworkSettings) -> Solution:
    """Register by a network, in one pass; `InputError` when weights are absent, altered, or of another network."""
    import torch

    from MMRegCore.displacement import DisplacementField
    from MMRegCore.ops import positions_between, sample
    from MMRegCore.optimisation.fusion import fuse
    from MMRegCore.optimisation.inverse_consistency import inverse_consistency_error
    from MMRegCore.runtime import is_mixed

    prepared, monitor, device = problem.prepared, problem.monitor, problem.prepared.fixed.image.device
    monitor.report("reading the network", 0.0)
    network = _load(settings).to(device)
    domain = network.settings.trained_on
    for mismatch in domain_mismatch(prepared, domain):
        _log.warning("%s was trained on other images: %s", settings.weights, mismatch)
    grid = prepared.grid.axis_aligned(domain.spacing_mm)
    back = positions_between(grid, prepared.grid).to(device)
    mixed = torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_mixed(device, settings.precision))
    fields, errors = [], []

    def encode(channel: Channel) -> torch.Tensor:
        with torch.no_grad(), mixed:
            return network.encode(to_training_domain(channel, prepared.grid, grid))

    def predict(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), mixed:
            return network.predict(one, other, grid.shape).float()

    fixed = encode(prepared.fixed)
    for number, channel in enumerate(prepared.moving):
        monitor.report("the network", 0.1 + 0.5 * number / len(prepared.moving))
        moving = encode(channel)
        forward, backward = predict(fixed, moving), predict(moving, fixed)
        errors.append(sample(inverse_consistency_error(forward, backward, (domain.spacing_mm,) * 3), back))
        fields.append(DisplacementField.from_voxel(forward, grid).on_grid(prepared.grid).to_voxel())
    field = fuse(fields, settings.fusion, errors)
    if settings.refine:
        field = _refined(problem, field, settings)
    return Solution(field, {"inverse_consistency_error": torch.stack(errors).mean(dim=0)})


def domain_mismatch(prepared: Prepared, domain: TrainingDomain) -> list[str]:
    """What about a pair is not as in the training, in words; empty where nothing is."""
    found = []
    extent_mm = [n * domain.spacing_mm for n in prepared.grid.axis_aligned(domain.spacing_mm).shape]
    for axis, here, there in zip(("S", "A", "R"), extent_mm, domain.extent_mm, strict=True):
        if not _LEAST_EXTENT * there <= here <= _LARGEST_EXTENT * there:
            found.append(f"expected about {there:.0f} mm along {axis}; got {here:.0f} mm")
    spacing_mm = float(prepared.grid.spacing_mm.max())
    if spacing_mm > _COARSEST * domain.spacing_mm:
        found.append(f"expected voxels of {domain.spacing_mm:g} mm or finer; got {spacing_mm:g} mm")
    return found


def to_training_domain(channel: Channel, grid: Grid, target: Grid) -> torch.Tensor:
    """(1, 1, D, H, W) on the network's grid, in [0, 1]; dark outside the foreground, as around a brain."""
    import torch

    from MMRegCore.networks.intensity import unit_range
    from MMRegCore.resampling import resample_smoothed
    from MMRegCore.volume import Volume

    image, inside = channel.image, channel.weight > 0
    if bool(inside.any()):
        image = torch.where(inside, image, image[inside].min().clamp(max=0))
    resampled = resample_smoothed(Volume(image[0].cpu(), grid), target)
    return unit_range(resampled)[None].to(image.device)


def _load(settings: NetworkSettings) -> RegistrationNetwork:
    from MMRegCore.networks import find_network
    from MMRegCore.networks.protocol import RegistrationNetwork
    from MMRegCore.networks.weights import load_network

    kind = find_network(settings.architecture) if settings.architecture else RegistrationNetwork
    if not issubclass(kind, RegistrationNetwork):
        raise InputError(f"expected network.architecture to be a registration network; got {settings.architecture}")
    if not settings.weights:
        raise InputError(f"expected network.weights, a file that mmreg train {settings.architecture} wrote; got none")
    return load_network(settings.weights, kind)


def _refined(problem: Problem, field: torch.Tensor, settings: NetworkSettings) -> torch.Tensor:
    from MMRegCore.ops import avg_pool
    from MMRegCore.optimisation.instance import refine_field
    from MMRegCore.similarity import make_descriptor

    prepared, stride = problem.prepared, settings.instance.grid_spacing
    descriptor = make_descriptor(settings.descriptor)
    fixed, *moving = (
        avg_pool(descriptor.encode_moving(channel.image, channel.weight), stride)
        for channel in (prepared.fixed, *prepared.moving)
    )
    weights = [avg_pool(weight, stride) for weight in prepared.weights]
    monitor = problem.monitor.part(0.6, 1.0)
    return refine_field(fixed, moving, field, settings.instance, weights=weights, monitor=monitor)


METHOD = Method("network", NetworkSettings, solve)
