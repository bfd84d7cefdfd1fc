"""What a registration can be told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, as_text, setting

# Published weights add up to one; thirds written with few digits must pass too.
_WEIGHT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class InstanceSettings(Settings):
    """The gradient descent that refines a field."""

    iterations: int = setting(15, help="Steps of Adam.", minimum=1, maximum=1000)
    grid_spacing: int = setting(2, help="Distance of the control points.", unit="voxel", minimum=1, maximum=16)
    learning_rate: float = setting(1.0, help="Step size of Adam, in voxels of the control grid.", minimum=1e-6)
    regularisation: float = setting(1.25, help="Weight of the diffusion term (λ).", minimum=0)
    smoothing_passes: int = setting(3, help="3³ averages of the field in each step.", minimum=0, maximum=20)
    final_smoothing_passes: int = setting(3, help="5³ averages of the result.", minimum=0, maximum=20)


@dataclass(frozen=True)
class McboSettings(Settings):
    """Multilevel correlation balanced optimisation (Wang et al. 2024, arXiv:2409.05040)."""

    strides: tuple[int, ...] = setting(
        (1, 2, 4, 6), help="Average pooling of each level; 1 is full resolution.", unit="voxel", minimum=1, maximum=16
    )
    weights: tuple[float, ...] = setting(
        (0.10, 0.27, 0.27, 0.36), help="Share of each level in the fused field; they add up to 1.", minimum=0, maximum=1
    )
    half_width: int = setting(
        4, help="Displacements are searched up to this many grid steps to every side.", minimum=1, maximum=12
    )
    features: Literal["mind", "dns"] = setting("mind", help="MIND-SSC, or descriptors of MASR-Net.")
    mind_radius: int = setting(1, help="Patch radius of MIND-SSC.", unit="voxel", minimum=0, maximum=8)
    mind_dilation: int = setting(2, help="Distance of the patches of MIND-SSC.", unit="voxel", minimum=1, maximum=8)
    dns_weights: str = setting("masrnet", help="Weights of MASR-Net, by name or as a .safetensors file.")
    coefficients: tuple[float, ...] = setting(
        (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        help="Coupling of cost and smoothness in the successive convex steps; the field is the mean over the steps.",
        minimum=0,
    )
    inverse_consistency_iterations: int = setting(
        15, help="Steps that make the forward and backward fields each other's inverse.", minimum=0, maximum=200
    )
    masked: bool = setting(True, help="Whether what lies outside the masks counts as no evidence.")
    refine: Literal["level-1", "fused-field", "none"] = setting(
        "fused-field", help="What the instance optimisation refines: only level 1, as published, or the fused field."
    )
    instance: InstanceSettings = InstanceSettings()

    def check_together(self) -> None:
        """Raise `InputError` unless there is one weight per stride and the weights add up to 1."""
        if len(self.weights) != len(self.strides):
            raise InputError(
                f"expected as many weights as strides; got {len(self.weights)} weights ({as_text(self.weights)}) "
                f"for {len(self.strides)} strides ({as_text(self.strides)})"
            )
        if abs(sum(self.weights) - 1) > _WEIGHT_TOLERANCE:
            raise InputError(f"expected the weights to add up to 1; got {as_text(self.weights)}")
        if len(set(self.strides)) != len(self.strides):
            raise InputError(f"expected every stride once; got {as_text(self.strides)}")


@dataclass(frozen=True)
class MotionSettings(Settings):
    """What is expected of the motion before any image is looked at: standard deviations per axis."""

    translation_mm: float = setting(
        4.0, help="Error of the start along each axis.", unit="mm", minimum=1e-3, maximum=100
    )
    rotation_deg: float = setting(3.0, help="Error of the start about each axis, in degrees.", minimum=1e-3, maximum=90)
    stretch_percent: float = setting(
        0.0,
        help="Stretch and shear of the whole, for images of different scale; 0 keeps the linear part rigid.",
        unit="%",
        minimum=0,
        maximum=30,
    )
    deformation_mm: float = setting(
        1.5, help="Smooth deformation along each axis; 0 is none.", unit="mm", minimum=0, maximum=50
    )
    length_mm: float = setting(
        20.0, help="Distance r over which the deformation is alike: exp(-d² / 2r²).", unit="mm", minimum=2, maximum=200
    )


@dataclass(frozen=True)
class Lc2Settings(Settings):
    """Registration by LC², the share of the ultrasound that the MR explains (Wein et al. 2008, Fuerst et al. 2014)."""

    lattice_mm: tuple[float, ...] = setting(
        (2.5, 1.5, 0.75), help="Distance of the samples at each level, coarse to fine.", unit="mm", minimum=0.01
    )
    radius: tuple[int, ...] = setting(
        (2, 3, 2), help="Half-width of the patches at each level, in samples.", minimum=1, maximum=8
    )
    evidence: float = setting(
        200.0,
        help="How many independent observations the agreement stands for, against the expected motion.",
        minimum=1,
    )
    reach_mm: float = setting(
        12.0, help="Translations that the rigid search starts from, to every side.", unit="mm", minimum=0, maximum=50
    )
    wide_reach_mm: float = setting(
        24.0,
        help="The same for a second search, where the result of the first would be rejected; 0 leaves it out.",
        unit="mm",
        minimum=0,
        maximum=100,
    )
    iterations: int = setting(30, help="Steps of the deformable refinement at most.", minimum=0, maximum=500)
    tolerance: float = setting(
        5e-5, help="The refinement ends when a step gains less agreement than this.", minimum=0, maximum=1
    )
    motion: MotionSettings = MotionSettings()

    def check_together(self) -> None:
        """Raise `InputError` unless there is one radius per level and the levels run from coarse to fine."""
        if len(self.radius) != len(self.lattice_mm) or not self.lattice_mm:
            raise InputError(
                f"expected as many radii as levels, at least one; got {len(self.radius)} radii "
                f"({as_text(self.radius)}) for {len(self.lattice_mm)} levels ({as_text(self.lattice_mm)} mm)"
            )
        if list(self.lattice_mm) != sorted(self.lattice_mm, reverse=True):
            raise InputError(f"expected levels from coarse to fine; got {as_text(self.lattice_mm)} mm")


@dataclass(frozen=True)
class DnsSettings(Settings):
    """Instance optimisation on structural descriptors (Mok et al. 2024, Table 4)."""

    features: Literal["mind", "dns"] = setting("dns", help="MIND-SSC, or descriptors of MASR-Net.")
    dns_weights: str = setting("masrnet", help="Weights of MASR-Net, by name or as a .safetensors file.")
    mind_radius: int = setting(1, help="Patch radius of MIND-SSC.", unit="voxel", minimum=0, maximum=8)
    mind_dilation: int = setting(2, help="Distance of the patches of MIND-SSC.", unit="voxel", minimum=1, maximum=8)
    start: Literal["lc2", "given"] = setting(
        "lc2", help="Whether a rigid search by LC² comes first, or the initial transform is the start as it is."
    )
    form: Literal["displacement", "velocity"] = setting(
        "displacement", help="What is optimised; a velocity is integrated to a diffeomorphism."
    )
    smoothing_voxel: float = setting(
        1.0, help="Standard deviation of the Gaussian that smooths the descriptors.", unit="voxel", minimum=0, maximum=8
    )
    scales: tuple[float, ...] = setting(
        (0.5, 0.75, 1.0), help="Size of the grid at each level, as a share of the working grid.", minimum=0.1, maximum=1
    )
    iterations: tuple[int, ...] = setting((100, 80, 50), help="Steps of Adam at each level.", minimum=0, maximum=2000)
    learning_rate: tuple[float, ...] = setting(
        (1e-2, 5e-3, 3e-3), help="Step size of Adam at each level, in halves of the grid's length.", minimum=1e-6
    )
    regularisation: tuple[float, ...] = setting(
        (0.6, 0.5, 0.4), help="Weight of the diffusion term at each level (λ).", minimum=0
    )

    def check_together(self) -> None:
        """Raise `InputError` unless every list has a value for each level."""
        for name in ("iterations", "learning_rate", "regularisation"):
            if len(getattr(self, name)) != len(self.scales):
                raise InputError(
                    f"expected as many values in {name} as levels; got {as_text(getattr(self, name))} for the scales "
                    f"{as_text(self.scales)}"
                )


@dataclass(frozen=True)
class LearnedSettings(Settings):
    """Registration by a trained network: multiprop, gradient-guided or lapirn."""

    weights: str = setting("", help="A .safetensors file, as mmreg train leaves it with its card; must be given.")
    precision: Literal["auto", "float32", "mixed"] = setting(
        "auto",
        help="'mixed' computes in bfloat16 where that is safe; 'auto' does so on a GPU, and on a "
        "processor that has instructions for it.",
    )
    refine: bool = setting(False, help="Whether instance optimisation on MIND-SSC follows.")
    mind_radius: int = setting(1, help="Patch radius of MIND-SSC there.", unit="voxel", minimum=0, maximum=8)
    mind_dilation: int = setting(2, help="Distance of its patches.", unit="voxel", minimum=1, maximum=8)
    instance: InstanceSettings = InstanceSettings()


@dataclass(frozen=True)
class ChoiceSettings(Settings):
    """Do no harm: when a result is good enough to be preferred to the start."""

    compete: bool = setting(
        True, help="Whether start, rigid motion and deformation compete; if not, the deformation is the result."
    )
    significance: float = setting(
        2.5, help="Standard errors by which the agreement must improve.", minimum=0, maximum=100
    )
    least_improvement: float = setting(
        0.03, help="Improvement of the agreement that chance alone would not give.", minimum=0
    )


@dataclass(frozen=True)
class RegistrationSettings(Settings):
    """Everything that decides the result of a registration, but for the inputs, the device and the seed."""

    method: Literal["mcbo", "lc2", "dns", "multiprop", "gradient-guided", "lapirn"] = setting(
        "mcbo", help="How the deformation is found."
    )
    working_spacing_mm: float | Literal["native", "auto"] = setting(
        "auto",
        help="Voxel size of the isotropic grid that the work happens on; 'native' keeps the fixed image's own grid, "
        "'auto' chooses by size and memory.",
        unit="mm",
        minimum=1e-4,
        maximum=100,
    )
    margin_mm: float = setting(
        4.0, help="Moving image around the ultrasound cone that the search may use.", unit="mm", minimum=0, maximum=150
    )
    fusion: Literal["signed-max", "mean", "magnitude", "confidence"] = setting(
        "mean", help="How MCBO makes one field of those of several moving images."
    )
    mcbo: McboSettings = McboSettings()
    lc2: Lc2Settings = Lc2Settings()
    dns: DnsSettings = DnsSettings()
    learned: LearnedSettings = LearnedSettings()
    choice: ChoiceSettings = ChoiceSettings()

    def widened(self) -> RegistrationSettings | None:
        """Settings of the second search, which looks further; None where there is none."""
        further_mm = self.lc2.wide_reach_mm - self.lc2.reach_mm
        if self.method != "lc2" or not self.choice.compete or further_mm <= 0:
            return None
        lc2 = replace(self.lc2, reach_mm=self.lc2.wide_reach_mm)
        return replace(self, margin_mm=self.margin_mm + further_mm, lc2=lc2)

    @property
    def method_group(self) -> str:
        """Name of the group of settings that belongs to the method; all trained networks share one."""
        return self.method if hasattr(self, self.method) else "learned"

    @property
    def affine(self) -> bool:
        """Whether the linear part of the result may stretch and shear."""
        return self.method == "lc2" and self.lc2.motion.stretch_percent > 0

    @property
    def masked(self) -> bool:
        """Whether masks count: always, but for MCBO when it is told to work as published."""
        return self.method != "mcbo" or self.mcbo.masked
