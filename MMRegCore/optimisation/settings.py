"""Settings of the optimisers."""

from __future__ import annotations

from dataclasses import dataclass

from MMRegCore.settings import Settings, setting


@dataclass(frozen=True)
class InstanceSettings(Settings):
    """Instance optimisation: the gradient descent that refines a field."""

    iterations: int = setting(15, "Steps of Adam.", minimum=1, maximum=1000)
    grid_spacing: int = setting(2, "Distance of the control points.", unit="voxel", minimum=1, maximum=16)
    learning_rate: float = setting(1.0, "Step size of Adam, in voxels of the control grid.", minimum=1e-6)
    regularisation: float = setting(1.25, "Weight of the diffusion energy (λ).", minimum=0)
    smoothing_passes: int = setting(3, "3³ averages of the field in each step.", minimum=0, maximum=20)
    final_smoothing_passes: int = setting(3, "5³ averages of the result.", minimum=0, maximum=20)
