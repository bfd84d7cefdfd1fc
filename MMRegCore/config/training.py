"""What a training can be told; what is special to one network is beside it, in its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MMRegCore.settings import Settings, setting


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """What every training has, whatever it trains."""

    steps: int = setting(2000, help="Steps of the optimiser.", minimum=1)
    validate_every: int = setting(
        100, help="Steps between validations; a checkpoint is written at each, and at the last step.", minimum=1
    )
    seed: int = setting(0, help="Decides the first weights and every batch.", minimum=0)
    precision: Literal["auto", "float32", "mixed"] = setting(
        "auto", help="'mixed' computes in bfloat16 where that is safe; 'auto' does so on a GPU."
    )


@dataclass(frozen=True)
class RecipeSettings(Settings):
    """Base of the settings of one recipe: what ``mmreg train`` reads from a configuration file."""

    training: TrainingSettings = TrainingSettings()
