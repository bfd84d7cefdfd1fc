"""Registration by descriptors: rigid first, then a displacement or diffeomorphism by instance optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from MMRegCore.errors import InputError
from MMRegCore.methods.protocol import Method, Problem, Solution
from MMRegCore.search.settings import SearchSettings
from MMRegCore.settings import Settings, as_text, setting
from MMRegCore.similarity.settings import DescriptorSettings

if TYPE_CHECKING:
    import torch

    from MMRegCore.prepare import Prepared
    from MMRegCore.volume import Channel


@dataclass(frozen=True)
class DnsSettings(Settings):
    """Instance optimisation on structural descriptors (Mok et al. 2024, Table 4)."""

    descriptor: DescriptorSettings = DescriptorSettings(name="dns")
    rigid_first: bool = setting(
        True, "Whether a rigid search comes first; if not, the initial transform is taken as it is."
    )
    search: SearchSettings = SearchSettings()
    parametrisation: Literal["displacement", "velocity"] = setting(
        "displacement", "What is optimised; a velocity is integrated to a diffeomorphism."
    )
    smoothing_voxel: float = setting(
        1.0, "Standard deviation of the Gaussian that smooths the descriptors.", minimum=0, maximum=8
    )
    scales: tuple[float, ...] = setting(
        (0.5, 0.75, 1.0), "Size of the grid at each level, as a share of the working grid.", minimum=0.1, maximum=1
    )
    iterations: tuple[int, ...] = setting((100, 80, 50), "Steps of Adam at each level.", minimum=0, maximum=2000)
    learning_rate: tuple[float, ...] = setting(
        (1e-2, 5e-3, 3e-3), "Step size of Adam at each level, in halves of the grid's length.", minimum=1e-6
    )
    regularisation: tuple[float, ...] = setting(
        (0.6, 0.5, 0.4), "Weight of the diffusion energy at each level (λ).", minimum=0
    )

    def check_together(self) -> None:
        """Raise `InputError` unless every list has a value for each level."""
        for name in ("iterations", "learning_rate", "regularisation"):
            if len(getattr(self, name)) != len(self.scales):
                raise InputError(
                    f"expected as many values in {name} as levels; got {as_text(getattr(self, name))} for the scales "
                    f"{as_text(self.scales)}"
                )


def solve(problem: Problem, settings: DnsSettings) -> Solution:
    """Register on descriptors that do not depend on contrast (Mok et al. 2024).

    Descriptors are computed once for each image, after the rigid part, since they turn with the image; smoothed by a
    Gaussian; and compared while Adam moves them onto each other at three resolutions.
    """
    from MMRegCore.ops import gaussian_blur, identity_positions
    from MMRegCore.optimisation.instance import Level, optimise_levels
    from MMRegCore.similarity import make_descriptor

    prepared, monitor = problem.prepared, problem.monitor
    descriptor = make_descriptor(settings.descriptor)
    identity = identity_positions(prepared.grid.shape, prepared.fixed.image.device)
    rigid = _rigid_motion(problem, settings.search) if settings.rigid_first else None
    moved = prepared if rigid is None else _moved(prepared, rigid(identity))

    def describe(number: int, channel: Channel) -> torch.Tensor:
        monitor.report("descriptors", 0.2 + 0.2 * number / (1 + len(moved.moving)))
        encoded = descriptor.encode_moving(channel.image, channel.weight)
        return gaussian_blur(encoded, settings.smoothing_voxel)

    described = [describe(number, channel) for number, channel in enumerate((moved.fixed, *moved.moving))]
    per_level = zip(settings.scales, settings.iterations, settings.learning_rate, settings.regularisation, strict=True)
    displacement = optimise_levels(
        described[0],
        described[1:],
        moved.weights,
        [Level(*values) for values in per_level],
        parametrisation=settings.parametrisation,
        unit=descriptor.unit,
        monitor=monitor.part(0.4, 1.0),
    )
    if rigid is None:
        return Solution(displacement)
    return Solution(rigid(identity + displacement) - identity, landmark_use="rigid search")


def _rigid_motion(problem: Problem, search: SearchSettings) -> Callable[[torch.Tensor], torch.Tensor]:
    """The rigid motion that the search finds, as it moves positions (1, 3, D, H, W)."""
    import torch

    from MMRegCore.search.motion_model import MotionModel
    from MMRegCore.search.rigid import find_rigid

    model = MotionModel.of(problem.prepared, search.prior)
    parameters, *_ = find_rigid(problem.levels, model, search, problem.monitor.part(0.0, 0.2), problem.landmarks)
    return torch.no_grad()(partial(model.move, parameters))


def _moved(prepared: Prepared, positions: torch.Tensor) -> Prepared:
    """The pair with each moving image resampled at positions (1, 3, D, H, W)."""
    from MMRegCore.ops import sample
    from MMRegCore.volume import Channel

    moving = tuple(
        Channel(
            sample(channel.image, positions),
            sample(channel.weight, positions, mode="nearest", padding_mode="zeros"),
        )
        for channel in prepared.moving
    )
    return replace(prepared, moving=moving)


METHOD = Method("dns", DnsSettings, solve)
