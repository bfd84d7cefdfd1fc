"""Descriptors that find the same structure in another person: labels are handed over to whatever looks alike.

Beyond the paper of MASR-Net, whose pairs are of one person.  Two people who are roughly aligned have no place in
common, but structures: a place of the one is compared with all places around it in the other, and the share of its
similarity that falls on its own structure is to be large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from MMRegCore.config.training import ViewSettings
from MMRegCore.errors import InputError
from MMRegCore.networks.intensity import unit_range
from MMRegCore.training.data import Subject
from MMRegCore.training.synthesis import synthetic_contrast
from MMRegCore.training.views import crop_positions
from MMRegCore.warp import sample


@dataclass(frozen=True, eq=False)
class People:
    """The same part of two people.

    Attributes
    ----------
    first, second : Tensor, (1, 1, n, n, n)
        In [0, 1], each in a random contrast of its own.
    first_labels, second_labels : Tensor, (n, n, n), int64
    """

    first: torch.Tensor
    second: torch.Tensor
    first_labels: torch.Tensor
    second_labels: torch.Tensor


def with_company(subjects: Sequence[Subject]) -> tuple[list[int], ...]:
    """Indices of subjects with labels that share a grid, as aligned ones do; groups of two and more.

    Raises
    ------
    InputError
        When there are none.
    """
    groups: list[list[int]] = []
    for index, subject in enumerate(subjects):
        if subject.labels is None:
            continue
        own = next((group for group in groups if subjects[group[0]].grid.matches(subject.grid)), None)
        if own is None:
            groups.append([index])
        else:
            own.append(index)
    found = tuple(group for group in groups if len(group) > 1)
    if not found:
        raise InputError("expected at least two subjects with labels on one grid for between > 0; got none")
    return found


def draw_people(one: Subject, other: Subject, generator: torch.Generator, settings: ViewSettings) -> People:
    """Cut the same deformed cube out of two subjects on one grid, both with labels; render a contrast of each."""
    positions = crop_positions(one, generator, settings)
    images, labels = [], []
    for subject in (one, other):
        if subject.labels is None:
            raise InputError(f"expected labels of '{subject.name}'; got none")
        part = sample(subject.labels[None, None].float(), positions, mode="nearest")[0, 0].round().long()
        images.append(unit_range(synthetic_contrast(part, generator, settings.synthesis)[None]))
        labels.append(part)
    return People(images[0], images[1], labels[0], labels[1])


def balanced_places(labels: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw places so that large structures do not drown small ones.

    Parameters
    ----------
    labels : Tensor, (D, H, W), integer
        0 is background and not drawn from.
    count : int
        About as many places come back; each structure gives the same number, as far as it has them.
    generator : torch.Generator

    Returns
    -------
    Tensor, (N,), int64
        Indices into the flattened volume.
    """
    flat = labels.flatten()
    numbers = [int(n) for n in flat.unique() if n != 0]
    if not numbers:
        raise InputError("expected labels to sample descriptors from; got background only")
    found = []
    for number in numbers:
        places = (flat == number).nonzero()[:, 0]
        found.append(places[torch.randperm(len(places), generator=generator)[: max(count // len(numbers), 1)]])
    return torch.cat(found)


def label_shares(
    first: torch.Tensor,
    second: torch.Tensor,
    first_labels: torch.Tensor,
    second_labels: torch.Tensor,
    places: torch.Tensor,
    *,
    radius: int,
    temperature: float = 0.07,
) -> torch.Tensor:
    """Which share of a place's similarity to what is around it in the other image falls on its own structure.

    ``Σ_d [L₂(y + d) = L₁(y)] · softmax_d(cos(D₁(y), D₂(y + d)) / τ)`` over the cube of offsets d.

    Parameters
    ----------
    first, second : Tensor, (1, C, D, H, W)
        Descriptors; only their directions count.
    first_labels, second_labels : Tensor, (D, H, W), integer
    places : Tensor, (N,), int64
        y, indices into the flattened volume of the first.
    radius : int
        Largest offset along each axis, in voxels; what lies outside the volume does not count.
    temperature : float
        τ.

    Returns
    -------
    Tensor, (M,)
        Differentiable in both; without those places whose structure is nowhere around in the other.
    """
    shape = first.shape[2:]
    device = first.device
    places = places.to(device)
    line = torch.arange(-radius, radius + 1, device=device)
    offsets = torch.cartesian_prod(line, line, line)
    index = torch.stack([places // (shape[1] * shape[2]), places // shape[2] % shape[1], places % shape[2]], dim=1)
    there = index[:, None] + offsets
    inside = ((there >= 0) & (there < torch.tensor(shape, device=device))).all(dim=2)
    there = there.clamp(min=0).minimum(torch.tensor(shape, device=device) - 1)
    flat = (there[..., 0] * shape[1] + there[..., 1]) * shape[2] + there[..., 2]
    same = inside & (second_labels.to(device).flatten()[flat] == first_labels.to(device).flatten()[places][:, None])
    findable = same.any(dim=1)
    flat, same, inside = flat[findable], same[findable], inside[findable]
    one = F.normalize(first[0].flatten(1).T[places[findable]], dim=1)
    two = F.normalize(second[0].flatten(1).T, dim=1)
    around = two.index_select(0, flat.flatten()).reshape(*flat.shape, two.shape[1])
    similarity = torch.einsum("nc,nkc->nk", one, around) / temperature
    share = similarity.masked_fill(~inside, -torch.inf).softmax(dim=1)
    return (share * same).sum(dim=1)


def label_transfer_loss(shares: torch.Tensor) -> torch.Tensor:
    """Mean negative logarithm of `label_shares`; 0 where nothing is left to be found."""
    if len(shares) == 0:
        return shares.sum()
    return -shares.clamp(min=1e-6).log().mean()
