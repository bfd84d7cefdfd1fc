"""Which similarity, and with which parameters; the keys of parameters begin with the name of their measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MMRegCore.settings import Settings, setting
from MMRegCore.similarity import descriptor_names, similarity_names


@dataclass(frozen=True)
class DescriptorSettings(Settings):
    """Descriptors that a method matches."""

    name: str = setting("mind", help="What is compared.", label="Descriptor", choices=descriptor_names)
    mind_radius: int = setting(
        1, help="Patch radius of MIND-SSC.", label="MIND radius", unit="voxel", minimum=0, maximum=8
    )
    mind_dilation: int = setting(
        2, help="Distance of the patches of MIND-SSC.", label="MIND dilation", unit="voxel", minimum=1, maximum=8
    )
    dns_weights: str = setting(
        "masrnet", help="Weights of MASR-Net: a name or a .safetensors file.", label="DNS weights"
    )


@dataclass(frozen=True)
class SimilaritySettings(DescriptorSettings):
    """A similarity that a network is trained by."""

    name: str = setting("mind", help="What is maximised.", label="Similarity", choices=similarity_names)
    mind_radius: int = setting(
        2, help="Patch radius of MIND-SSC.", label="MIND radius", unit="voxel", minimum=0, maximum=8
    )
    mind_norm: Literal["l1", "l2"] = setting("l2", help="Absolute or squared differences of MIND-SSC.")
    ncc_half_width: int = setting(4, help="Half-width of the boxes of local correlation.", unit="voxel", minimum=1)
    nmi_bins: int = setting(32, help="Bins of the joint histogram.", minimum=2, maximum=256)
    lc2_half_width: int = setting(4, help="Half-width of the patches of LC².", unit="voxel", minimum=1)
