"""What a training can be told; what is special to one network is beside it, in its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MMRegCore.config.networks import MasrNetSettings
from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, as_text, setting


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """What every training has, whatever it trains."""

    steps: int = setting(2000, help="Steps of the optimiser.", minimum=1)
    validate_every: int = setting(
        100, help="Steps between validations; a checkpoint is written at each, and at the last step.", minimum=1
    )
    seed: int = setting(0, help="Decides the first weights and every batch.", minimum=0)
    precision: Literal["auto", "float32", "mixed"] = setting(
        "auto",
        help="'mixed' computes in bfloat16 where that is safe; 'auto' does so on a GPU, and on a "
        "processor that has instructions for it.",
    )
    averaging: float = setting(
        0.0,
        help="Decay of the running average of the weights, which is what is validated and saved; 0 takes the weights "
        "as they are.",
        minimum=0,
        maximum=0.99999,
    )


@dataclass(frozen=True)
class RecipeSettings(Settings):
    """Base of the settings of one recipe: what ``mmreg train`` reads from a configuration file."""

    training: TrainingSettings = TrainingSettings()
    learning_rate: float = setting(1e-4, help="Step size of Adam.", minimum=1e-9, maximum=1)
    falling: bool = setting(False, help="Whether the step size falls to nothing along half a cosine.")
    start: str = setting("", help="Weights to begin with, a name or a file; random ones when empty.")


@dataclass(frozen=True)
class SynthesisSettings(Settings):
    """How far synthetic contrasts of a label map may go; each image draws its own values up to these."""

    levels: int = setting(12, help="Different mean intensities at most; labels that share one look alike.", minimum=2)
    texture: float = setting(0.08, help="Standard deviation within a label.", minimum=0, maximum=1)
    texture_voxel: float = setting(2.0, help="Length over which it is alike.", unit="voxel", minimum=0)
    blur_voxel: float = setting(1.0, help="Blur, which makes partial volumes.", unit="voxel", minimum=0, maximum=8)
    bias: float = setting(0.3, help="Standard deviation of the logarithm of the bias field.", minimum=0, maximum=2)
    noise: float = setting(0.05, help="Standard deviation of the noise.", minimum=0, maximum=1)
    empty_background: float = setting(0.7, help="How often label 0 is black.", minimum=0, maximum=1)


@dataclass(frozen=True)
class DeformationSettings(Settings):
    """Random smooth deformations, drawn up to these."""

    rotation_deg: float = setting(15.0, help="About each axis, in degrees.", minimum=0, maximum=180)
    scaling: float = setting(0.15, help="Along each axis, as a share.", minimum=0, maximum=0.9)
    amplitude_voxel: float = setting(3.0, help="Standard deviation of the rest.", unit="voxel", minimum=0)
    length_voxel: float = setting(12.0, help="Length over which it is alike.", unit="voxel", minimum=1)


@dataclass(frozen=True)
class ViewSettings(Settings):
    """Two images of the same anatomy that a descriptor must find to be the same."""

    crop_voxel: int = setting(64, help="Size of the cube that is cut out.", unit="voxel", minimum=16)
    zoom: tuple[float, ...] = setting(
        (1.0, 1.0), help="Least and largest voxel size of the cube, in voxels of the data.", minimum=0.25, maximum=4
    )
    synthetic: float = setting(
        0.5, help="How often both are synthetic contrasts, where a subject has labels.", minimum=0, maximum=1
    )
    ultrasound: float = setting(
        0.25, help="How often one of them is ultrasound, where a subject has it.", minimum=0, maximum=1
    )
    inversion: float = setting(0.5, help="How often intensities are inverted (δ, Eq. 3).", minimum=0, maximum=1)
    synthesis: SynthesisSettings = SynthesisSettings()
    deformation: DeformationSettings = DeformationSettings()

    def check_together(self) -> None:
        """Raise `InputError` unless ``zoom`` is a range."""
        if len(self.zoom) != 2 or self.zoom[0] > self.zoom[1]:
            raise InputError(f"expected zoom to be the least and the largest; got {as_text(self.zoom)}")


@dataclass(frozen=True)
class MasrNetTraining(RecipeSettings):
    """Anatomy-aware contrastive learning of MASR-Net (Mok et al. 2024, section 3.3)."""

    network: MasrNetSettings = MasrNetSettings()  # noqa: RUF009 - frozen, and one for all
    samples: int = setting(8196, help="Places compared with each other in each pair of images (N^k).", minimum=2)
    neighbours: float = setting(
        0.0,
        help="Weight of Eq. 4 among the places within two voxels, smoothed and at three resolutions, as registration "
        "compares descriptors; 0 as published.",
        minimum=0,
    )
    temperature: float = setting(0.07, help="τ of Eq. 4.", minimum=1e-3, maximum=10)
    validation_pairs: int = setting(8, help="Pairs of images that are scored at each validation.", minimum=1)
    views: ViewSettings = ViewSettings()
