"""What structures look like, whoever they belong to: descriptors tell the labels of the places that they describe.

Two images of one anatomy say what a place looks like in every contrast; they do not say that it is the same structure
in another person.  Labels do, where there are some.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from MMRegCore.training.data import Subject

# Places of each label that are asked in one step: small structures count as much as large ones.
MOST = 256


class Prototypes(nn.Module):
    """One direction for each label, learned with the descriptors that are to point there.

    Parameters
    ----------
    numbers : iterable of int
        The labels; 0 is none.
    channels : int
        Of the descriptors.
    """

    numbers: torch.Tensor

    def __init__(self, numbers: Iterable[int], channels: int) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.tensor(sorted(n for n in set(numbers) if n != 0), dtype=torch.long))
        self.directions = nn.Parameter(torch.randn(len(self.numbers), channels))

    def places(self, labels: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat indices (N,) of places in a label map (D, H, W), as many of each label, and which prototype is theirs.

        Labels without a prototype are left out; both are on the CPU.
        """
        flat, found, right = labels.flatten(), [], []
        for index, number in enumerate(self.numbers.tolist()):
            there = (flat == number).nonzero()[:, 0]
            there = there[torch.randperm(len(there), generator=generator)[:MOST]]
            found.append(there)
            right.append(torch.full_like(there, index))
        return torch.cat(found), torch.cat(right)

    def forward(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(N, K): cosine of the angle between descriptors (N, C) and each of the K prototypes."""
        return F.normalize(descriptors, dim=1) @ F.normalize(self.directions, dim=1).T

    def loss(self, descriptors: torch.Tensor, right: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
        """Cross-entropy of descriptors (N, C) and the prototypes (N,) that are theirs; 0 where there is none."""
        if len(right) == 0:
            return descriptors.sum() * 0
        return F.cross_entropy(self(descriptors) / temperature, right.to(descriptors.device))

    @torch.no_grad()
    def told(self, descriptors: torch.Tensor, right: torch.Tensor) -> float:
        """How often the nearest prototype of descriptors (N, C) is theirs; 0 where there is none."""
        if len(right) == 0:
            return 0.0
        return float((self(descriptors).argmax(dim=1).cpu() == right).float().mean())


def label_numbers(subjects: Iterable[Subject]) -> set[int]:
    """All labels of some subjects."""
    return {int(n) for subject in subjects if subject.labels is not None for n in subject.labels.unique()}
