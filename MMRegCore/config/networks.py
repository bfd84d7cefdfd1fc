"""What each network is made with; a card beside its weights holds these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, as_text, setting


@dataclass(frozen=True)
class MasrNetSettings(Settings):
    """MASR-Net, the network that describes an image by its deep neighbourhood self-similarity (Mok et al. 2024)."""

    channels: tuple[int, ...] = setting(
        (8, 16, 32, 32), help="Feature channels at full, half, quarter and eighth resolution.", minimum=1, maximum=512
    )
    descriptor: int = setting(24, help="Channels of the descriptor.", minimum=1, maximum=256)
    dilation: int = setting(
        2, help="Distance of the dilated neighbours; the direct ones are 1 away.", unit="voxel", minimum=2, maximum=8
    )

    def check_together(self) -> None:
        """Raise `InputError` unless there are the four resolutions that the network has."""
        if len(self.channels) != 4:
            raise InputError(f"expected channels for four resolutions; got {as_text(self.channels)}")


@dataclass(frozen=True)
class TrainedOn(Settings):
    """The images that a registration network knows; others are brought to this, or told to be unlike it."""

    spacing_mm: float = setting(
        2.0, help="Voxel size of its isotropic grid, whose axes run along RAS.", unit="mm", minimum=0.01, maximum=100
    )
    extent_mm: tuple[float, ...] = setting(
        (160.0, 192.0, 160.0), help="Size of the images along S, A and R.", unit="mm", minimum=0.01
    )

    def check_together(self) -> None:
        """Raise `InputError` unless there are three sizes."""
        if len(self.extent_mm) != 3:
            raise InputError(f"expected three sizes in extent_mm; got {as_text(self.extent_mm)}")


@dataclass(frozen=True)
class MultiPropSettings(Settings):
    """MultiPropReg, multi-scale propagation on learned features (Liu et al. 2021, arXiv:2004.14557)."""

    features: tuple[int, ...] = setting(
        (8, 16, 16), help="Feature channels at half, quarter … resolution: 2, 3 or 4 scales.", minimum=1, maximum=256
    )
    matching: tuple[int, ...] = setting(
        (48, 32, 16), help="Channels of the matching convolutions.", minimum=1, maximum=256
    )
    context: tuple[int, ...] = setting(
        (48, 48, 32), help="Channels of the convolutions that regularise; dilations 1, 2, 4 …", minimum=1, maximum=256
    )
    diffeomorphic: bool = setting(True, help="Whether velocities are integrated, or taken for displacements.")
    affine: bool = setting(False, help="Whether a network for the affine part comes first.")
    trained_on: TrainedOn = TrainedOn()

    def check_together(self) -> None:
        """Raise `InputError` unless there are 2 to 4 scales."""
        if not 2 <= len(self.features) <= 4:
            raise InputError(f"expected features for 2, 3 or 4 scales; got {as_text(self.features)}")


@dataclass(frozen=True)
class GradientGuidedSettings(Settings):
    """Two VoxelMorph branches, on images and on their gradient maps, and how their fields are fused."""

    fusion: Literal["gated", "average", "image"] = setting(
        "gated", help="'image' has no gradient branch; it is there for comparison."
    )
    encoder: tuple[int, ...] = setting(
        (16, 32, 32, 32), help="Channels of the strided convolutions of a branch.", minimum=1, maximum=256
    )
    decoder: tuple[int, ...] = setting(
        (32, 32, 32, 32), help="Channels of its convolutions on the way up.", minimum=1, maximum=256
    )
    refinement: tuple[int, ...] = setting(
        (8, 8, 8), help="Channels of those at full resolution, before the field.", minimum=1, maximum=256
    )
    trained_on: TrainedOn = TrainedOn()

    def check_together(self) -> None:
        """Raise `InputError` unless what goes down comes up again."""
        if len(self.encoder) != len(self.decoder):
            raise InputError(
                f"expected as many decoder as encoder convolutions; got {as_text(self.decoder)} for "
                f"{as_text(self.encoder)}"
            )


@dataclass(frozen=True)
class LapIrnSettings(Settings):
    """LapIRN, registration on a Laplacian pyramid of three levels (Mok and Chung 2020, arXiv:2006.16148)."""

    start_channels: int = setting(7, help="Channels; most convolutions have four times as many.", minimum=1, maximum=64)
    residual_blocks: int = setting(5, help="Residual blocks of each level.", minimum=1, maximum=20)
    range_flow: float = setting(
        0.4, help="Largest component of a level's field, in halves of the image's size.", minimum=0.01, maximum=2
    )
    diffeomorphic: bool = setting(False, help="Whether the fields are velocities, which are integrated.")
    inputs: Literal["images", "descriptors"] = setting(
        "images",
        help="What the levels see; 'descriptors' are those of MASR-Net at the resolution of the images, and the field "
        "is found at half of it.",
    )
    describer: MasrNetSettings = MasrNetSettings()
    trained_on: TrainedOn = TrainedOn()
