"""What the trainings of registration networks can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MMRegCore.config.networks import GradientGuidedSettings, LapIrnSettings, MultiPropSettings
from MMRegCore.config.training import DeformationSettings, RecipeSettings
from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, setting

# The papers deform nothing; few subjects need it.
NO_DEFORMATION = DeformationSettings(rotation_deg=0.0, scaling=0.0, amplitude_voxel=0.0)


@dataclass(frozen=True)
class PairSettings(Settings):
    """How pairs are drawn from the subjects of a split."""

    contrasts: Literal["different", "same", "any", "synthetic"] = setting(
        "different", help="Of the two images of a pair; 'synthetic' renders label maps in random contrasts."
    )
    atlas: str = setting("", help="Name of the training subject that is always fixed; any of them when empty.")
    batch: int = setting(1, help="Pairs in a step.", minimum=1, maximum=64)
    known: float = setting(
        0.0,
        help="How often both images are of one subject, the fixed one along 'deformation': a pair with a known answer.",
        minimum=0,
        maximum=1,
    )
    deformation: DeformationSettings = NO_DEFORMATION

    def check_together(self) -> None:
        """Raise `InputError` when an answer is to be known and there is nothing to know."""
        if self.known > 0 and self.deformation == NO_DEFORMATION:
            raise InputError("expected a deformation above 0 for pairs with a known answer (known > 0); got none")


@dataclass(frozen=True)
class BilevelSettings(Settings):
    """The upper level: the weights of the loss, learned on the validation split (MultiPropReg, Algorithm 1)."""

    every: int = setting(0, help="Steps between its updates; 0 keeps the weights as they are set.", minimum=0)
    begin: int = setting(
        1,
        help="Step of the first of them: until a network has learned something, more smoothness is always better.",
        minimum=1,
    )
    learning_rate: float = setting(
        8.0,
        help="Of gradient descent on the logarithms of the weights, by how much one step of the network changes the "
        "objective.",
        minimum=0,
    )
    objective: Literal["similarity", "dice"] = setting(
        "similarity", help="What the validation split judges by; 'dice' needs labels."
    )
    learned: Literal["all", "regularisation"] = setting(
        "all",
        help="Which weights; 'regularisation' leaves those of similarity, labels and known answers as they are set: of "
        "all weights together only the ratios matter.",
    )


@dataclass(frozen=True)
class PairTraining(RecipeSettings):
    """Base of the trainings on pairs of images."""

    pairs: PairSettings = PairSettings()
    longest_gradient: float = setting(
        1.0, help="Longer gradients are cut to this length: one strange pair must not throw the network.", minimum=1e-6
    )
    mind_radius: int = setting(2, help="Patch radius of MIND-SSC.", unit="voxel", minimum=0, maximum=8)
    mind_dilation: int = setting(2, help="Distance of the patches of MIND-SSC.", unit="voxel", minimum=1, maximum=8)
    labels: float = setting(
        0.0, help="Weight of 1 - Dice of the training subjects' labels; 0, as published, needs no labels.", minimum=0
    )
    known: float = setting(
        1.0, help="Weight of the mean squared distance, in voxels, to a displacement that is known.", minimum=0
    )
    bilevel: BilevelSettings = BilevelSettings()


@dataclass(frozen=True)
class MultiPropTraining(PairTraining):
    """``mmreg train multiprop``."""

    network: MultiPropSettings = MultiPropSettings()  # noqa: RUF009 - frozen, and one for all
    form: Literal["multi-modal", "uni-modal"] = setting(
        "multi-modal", help="Similarity: MIND, or local correlation for images of one contrast."
    )
    similarity: tuple[float, ...] = setting(
        (15.0, 3.2, 0.8), help="Weights of the similarity at full, half, quarter … resolution.", minimum=0
    )
    smoothness: float = setting(10.0, help="Weight of the diffusion of the velocity.", minimum=0)
    folding: float = setting(0.1, help="Weight of negative Jacobian determinants.", minimum=0)
    latent: float = setting(1e-3, help="Weight of the features' Kullback-Leibler divergence.", minimum=0)


@dataclass(frozen=True)
class GradientGuidedTraining(PairTraining):
    """``mmreg train gradient-guided``; the loss of Eq. 2."""

    network: GradientGuidedSettings = GradientGuidedSettings()  # noqa: RUF009 - frozen, and one for all
    learning_rate: float = setting(1e-5, help="Step size of Adam.", minimum=1e-9, maximum=1)
    gradient_similarity: float = setting(0.5, help="α: weight of the similarity of the gradient maps.", minimum=0)
    gradient_smoothness: float = setting(0.5, help="β: weight of the gradient branch's diffusion.", minimum=0)
    smoothness: float = setting(1.0, help="γ: weight of the fused field's diffusion.", minimum=0)


@dataclass(frozen=True)
class LapIrnTraining(PairTraining):
    """``mmreg train lapirn``: the levels in turn, coarse to fine."""

    network: LapIrnSettings = LapIrnSettings()  # noqa: RUF009 - frozen, and one for all
    similarity: Literal["dns", "mind", "nmi"] = setting("mind", help="What is compared.")
    descriptor: str = setting("masrnet", help="Weights that 'dns' describes images with: a name or a file.")
    smoothness: float = setting(1.0, help="Weight of the diffusion.", minimum=0)
    level_steps: tuple[int, ...] = setting(
        (10000, 10000), help="Steps of the first two levels; the third has the rest.", minimum=1
    )
    frozen_steps: int = setting(
        2000, help="Steps at the begin of a level in which those below stay as they are.", minimum=0
    )
