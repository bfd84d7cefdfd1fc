"""What a network has to offer so that it is made from its settings, trained, saved and loaded by its name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, as_text, setting


class Network(nn.Module):
    """Base of the networks: made from its settings alone; ``name`` is what cards and ``mmreg train`` call it.

    A module of `MMRegCore.networks` that defines ``NETWORK``, a class derived from this one, adds a network.
    """

    name: ClassVar[str]
    settings_class: ClassVar[type[Settings]]

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings


@dataclass(frozen=True)
class TrainingDomain(Settings):
    """The images that a registration network was trained on; others are resampled to them, or named a mismatch."""

    spacing_mm: float = setting(2.0, "Voxel size of its isotropic, axis-aligned grid.", minimum=0.01, maximum=100)
    extent_mm: tuple[float, ...] = setting((160.0, 192.0, 160.0), "Size of the images along S, A and R.", minimum=0.01)

    def check_together(self) -> None:
        """Raise `InputError` unless there are three sizes."""
        if len(self.extent_mm) != 3:
            raise InputError(f"expected three sizes in extent_mm; got {as_text(self.extent_mm)}")


@dataclass(frozen=True)
class RegistrationNetworkSettings(Settings):
    """Base of the settings of registration networks."""

    trained_on: TrainingDomain = TrainingDomain()


class RegistrationNetwork(Network):
    """A network from two images to the displacement between them."""

    settings: RegistrationNetworkSettings

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """The displacement between two images (B, 1, D, H, W) in [0, 1].

        (B, 3, D, H, W): components (d, h, w) in voxels, pull convention.
        """
        return self.predict(self.encode(fixed), self.encode(moving), fixed.shape[2:])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, d, h, w): the network's input, from images (B, 1, D, H, W) in [0, 1]; by default the images.

        Made once for an image that is registered both ways.
        """
        return images

    @abstractmethod
    def predict(self, fixed: torch.Tensor, moving: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """(B, 3, D, H, W): the displacement in voxels between two encoded images, at the images' ``shape``."""
