"""What each network is made with; a card beside its weights holds these."""

from __future__ import annotations

from dataclasses import dataclass

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
