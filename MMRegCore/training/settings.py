"""What every training has, whatever it trains; what is special to one network is in its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MMRegCore.settings import Settings, setting


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """The course of a training."""

    steps: int = setting(2000, "Steps of the optimiser.", minimum=1)
    validate_every: int = setting(
        100, "Steps between validations; a checkpoint is written at each, and at the last step.", minimum=1
    )
    seed: int = setting(0, "Determines the initial weights and every batch.", minimum=0)
    precision: Literal["auto", "float32", "mixed"] = setting(
        "auto",
        "'mixed' computes in bfloat16 where that is safe; 'auto' does so on a GPU, and on a "
        "processor that has instructions for it.",
    )
    averaging: float = setting(
        0.0,
        "Decay of the running average of the weights, which is what is validated and saved; 0 takes the weights "
        "as they are.",
        minimum=0,
        maximum=0.99999,
    )


@dataclass(frozen=True)
class RecipeSettings(Settings):
    """Base of the settings of one recipe: what ``mmreg train`` reads from a configuration file."""

    training: TrainingSettings = TrainingSettings()
    learning_rate: float = setting(1e-4, "Step size of Adam.", minimum=1e-9, maximum=1)
    cosine_decay: bool = setting(False, "Whether the step size decays to zero along half a cosine.")
    initial_weights: str = setting("", "Weights to begin with, a name or a file; random ones when empty.")
    network: Settings = Settings()
