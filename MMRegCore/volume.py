"""Images: in space, and on a working grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid

Known = Literal["stated", "assumed"]

# File systems allow 255 bytes, some 143, and more than the name goes into a file's.
_LONGEST_NAME_BYTES = 100


@dataclass(frozen=True, eq=False)
class Channel:
    """One image on a working grid, and where it counts."""

    image: torch.Tensor  # (1, 1, D, H, W)
    weight: torch.Tensor  # (1, 1, D, H, W): in [0, 1]; 0 outside the foreground

    def to(self, device: torch.device) -> Channel:
        """The same on another device."""
        return Channel(self.image.to(device), self.weight.to(device))


@dataclass(frozen=True)
class Reading:
    """What was taken from a file, and what had to be assumed.

    Attributes
    ----------
    format : str
        Of the file.
    space : str
        In which the file gives positions, or the word for its matrix.
    spacing, origin : {'stated', 'assumed'}
        Whether the file says how large its voxels are, and where they lie.
    frame_order : str
        How slices were put in order, where that is a question; otherwise empty.
    voxels_not_finite : int
        Voxels that were NaN or infinite, and so lie outside.
    warnings : tuple of str
        What the reader should know before believing the result; each follows the name of the image.
    """

    format: str
    space: str
    spacing: Known
    origin: Known
    frame_order: str = ""
    voxels_not_finite: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """An image: intensities on a grid, with a mask where it has one.

    Attributes
    ----------
    data : Tensor, (C, D, H, W), float32
        Intensities; C is 1 for the images that MMReg registers.
    grid : Grid
        Where the voxels lie.
    mask : Tensor, (D, H, W), bool, optional
        The foreground: True where the image counts; None when that is not known.
    name : str
        Short label for messages, reports and output files.
    reading : Reading, optional
        What was taken from its file; None for an image that was made.

    Raises
    ------
    InputError
        When ``data`` or ``mask`` has the wrong number of dimensions.
    GeometryError
        When their sizes differ from the grid's.
    """

    data: torch.Tensor
    grid: Grid
    mask: torch.Tensor | None = None
    name: str = "image"
    reading: Reading | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 4:
            raise InputError(f"expected '{self.name}' to be (C, D, H, W); got shape {tuple(self.data.shape)}")
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise GeometryError(
                f"expected '{self.name}' to fill its grid {self.grid.shape}; got shape {tuple(self.data.shape[1:])}"
            )
        if self.mask is not None and tuple(self.mask.shape) != self.grid.shape:
            raise GeometryError(
                f"expected the mask of '{self.name}' on its grid {self.grid.shape}; got {tuple(self.mask.shape)}"
            )
        object.__setattr__(self, "data", self.data.float())
        if self.mask is not None:
            object.__setattr__(self, "mask", self.mask.bool())

    def with_mask(self, mask: torch.Tensor | None) -> Volume:
        """This image with another mask (D, H, W)."""
        return replace(self, mask=mask)

    @property
    def foreground(self) -> torch.Tensor:
        """(D, H, W) bool: where voxels are finite and the mask, if there is one, does not leave them out."""
        finite = torch.isfinite(self.data).all(dim=0)
        return finite if self.mask is None else finite & self.mask

    def with_data(self, data: torch.Tensor) -> Volume:
        """This image with other intensities (C, D, H, W) on the same grid."""
        return replace(self, data=data)


def distinctly_named(volumes: Sequence[Volume]) -> list[Volume]:
    """Give every image a name that can be part of a file name, and that no other one has.

    Upper and lower case are taken as the same; long names are cut, separators of folders replaced.
    """
    taken: set[str] = set()
    result = []
    for volume in volumes:
        stem = _part_of_file_name(volume.name)
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        result.append(replace(volume, name=name))
    return result


def _part_of_file_name(name: str) -> str:
    plain = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", name)
    return plain.encode("utf-8", "replace")[:_LONGEST_NAME_BYTES].decode("utf-8", "ignore").strip() or "image"
