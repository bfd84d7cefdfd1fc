"""Settings of the rigid search and of model selection."""

from __future__ import annotations

from dataclasses import dataclass

from MMRegCore.errors import InputError
from MMRegCore.settings import Settings, as_text, setting
from MMRegCore.similarity import descriptor_names, similarity_names


@dataclass(frozen=True)
class MotionPriorSettings(Settings):
    """What is expected of the motion before any image is looked at: scales per axis."""

    translation_mm: float = setting(
        2.0, help="Translation of the initial transform's error along each axis.", unit="mm", minimum=1e-3, maximum=100
    )
    rotation_deg: float = setting(
        2.4, help="Rotation of the initial transform's error about each axis.", unit="deg", minimum=1e-3, maximum=90
    )
    degrees_of_freedom: float = setting(
        3.0,
        help="Of Student's t, which both follow: few leave room for the rare large error, many make it a Gaussian.",
        minimum=1,
        maximum=1000,
    )
    scale_shear_percent: float = setting(
        0.0,
        help="Scale and shear, for images of different scale; 0 keeps the linear part rigid.",
        label="Scale and shear",
        unit="%",
        minimum=0,
        maximum=30,
    )
    deformation_mm: float = setting(
        1.0, help="Smooth deformation along each axis; 0 is none.", unit="mm", minimum=0, maximum=50
    )
    correlation_length_mm: float = setting(
        24.0, help="Correlation length r of the deformation: exp(-d² / 2r²).", unit="mm", minimum=2, maximum=200
    )


@dataclass(frozen=True)
class SearchSettings(Settings):
    """The rigid search: from many initial motions, coarse to fine, with a prior on the motion."""

    similarity: str = setting("lc2", help="What is maximised.", choices=similarity_names)
    descriptor: str = setting(
        "mind",
        help="What is maximised alone at the coarsest level, and beside the similarity at all but the finest.",
        choices=descriptor_names,
    )
    descriptor_weight: float = setting(4.0, help="Its weight; 0 leaves it out.", minimum=0)
    sampling_spacing_mm: tuple[float, ...] = setting(
        (3.0, 1.5, 0.75), help="Distance of the samples at each level, coarse to fine.", unit="mm", minimum=0.01
    )
    half_width: tuple[int, ...] = setting(
        (2, 3, 2), help="Half-width of the patches at each level, in samples.", label="Half-width", minimum=1, maximum=8
    )
    effective_sample_size: float = setting(
        200.0, help="Independent observations that the similarity stands for, against the prior.", minimum=1
    )
    starts: int = setting(1024, help="Rigid motions that are tried at the coarsest level.", minimum=0, maximum=100_000)
    range_mm: float = setting(
        20.0,
        help="Their translations, to every side.",
        label="Search range",
        unit="mm",
        minimum=0,
        maximum=50,
        tier="basic",
    )
    range_deg: float = setting(
        15.0,
        help="Their rotations about each axis.",
        label="Search range of rotations",
        unit="deg",
        minimum=0,
        maximum=90,
    )
    extended_range_mm: float = setting(
        30.0,
        help="The same for a second search, where the result of the first would be rejected; 0 leaves it out.",
        label="Extended search range",
        unit="mm",
        minimum=0,
        maximum=100,
    )
    prior: MotionPriorSettings = MotionPriorSettings()

    def check_together(self) -> None:
        """Raise `InputError` unless there is one half-width per level and the levels run from coarse to fine."""
        spacing, half_width = self.sampling_spacing_mm, self.half_width
        if len(half_width) != len(spacing):
            raise InputError(
                f"expected as many half-widths as levels; got {len(half_width)} half-widths ({as_text(half_width)}) "
                f"for {len(spacing)} levels ({as_text(spacing)} mm)"
            )
        if list(spacing) != sorted(spacing, reverse=True):
            raise InputError(f"expected levels from coarse to fine; got {as_text(spacing)} mm")


@dataclass(frozen=True)
class ModelSelectionSettings(Settings):
    """Do no harm: whether a result is good enough to be preferred to the initial transform, and its expected error."""

    enabled: bool = setting(
        True,
        help="Whether initial transform, rigid and deformed result are compared; if not, the deformed one is taken.",
        label="Model selection",
        tier="basic",
    )
    significance: float = setting(
        2.5, help="Standard errors by which the similarity must improve.", minimum=0, maximum=100
    )
    least_improvement: float = setting(
        0.03, help="Improvement of the similarity that chance alone would not give.", minimum=0
    )
    similarity: str = setting("lc2", help="What candidates are compared by.", choices=similarity_names)
    sampling_spacing_mm: float = setting(0.75, help="Distance of the samples.", unit="mm", minimum=0.01)
    half_width: int = setting(
        2, help="Half-width of the patches, in samples.", label="Half-width", minimum=1, maximum=8
    )
