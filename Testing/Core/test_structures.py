"""Prototypes: as many places of every label, the right answer is the cheapest, and it can be learned."""

import numpy as np
import torch

from MMRegCore.geometry import Grid
from MMRegCore.training.data import Subject
from MMRegCore.training.structures import MOST, Prototypes, label_numbers


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def two_structures():
    labels = torch.zeros(12, 12, 12, dtype=torch.long)
    labels[:, :6], labels[:2, 6:8, :3], labels[-1] = 17, 2, 99
    return labels


def test_small_structures_are_asked_as_often_as_large_ones():
    labels = two_structures()
    prototypes = Prototypes([17, 2, 0, 5, 2], 8)
    assert prototypes.numbers.tolist() == [2, 5, 17]
    places, right = prototypes.places(labels, stream())
    assert prototypes.numbers[right].equal(labels.flatten()[places])  # 99 has no prototype, and is not asked
    assert (right == 0).sum() == (labels == 2).sum() == 12
    assert (right == 2).sum() == MOST
    assert len(set(places.tolist())) == len(places)


def test_nothing_is_asked_where_there_is_nothing():
    prototypes = Prototypes([1, 2], 4)
    places, right = prototypes.places(torch.zeros(3, 3, 3, dtype=torch.long), stream())
    assert len(places) == len(right) == 0
    descriptors = torch.zeros(0, 4, requires_grad=True)
    assert float(prototypes.loss(descriptors, right).detach()) == 0
    assert prototypes.told(descriptors, right) == 0


def test_only_directions_count_and_the_right_one_costs_least():
    prototypes = Prototypes([1, 2], 3)
    with torch.no_grad():
        prototypes.directions.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
    descriptors, right = torch.tensor([[7.0, 0.0, 0.0], [0.0, 0.1, 0.0]]), torch.tensor([0, 1])
    good, bad = (float(prototypes.loss(descriptors, order).detach()) for order in (right, 1 - right))
    assert good < 1e-4 < bad
    assert prototypes.told(descriptors, right) == 1
    assert prototypes.told(descriptors, 1 - right) == 0


def test_prototypes_and_descriptors_find_each_other():
    torch.manual_seed(0)
    prototypes = Prototypes(range(1, 7), 5)
    descriptors = torch.nn.Parameter(torch.randn(12, 5))
    right = torch.arange(12) % 6
    adam = torch.optim.Adam([descriptors, *prototypes.parameters()], lr=0.1)
    before = float(prototypes.loss(descriptors, right).detach())
    for _ in range(100):
        adam.zero_grad()
        loss = prototypes.loss(descriptors, right)
        loss.backward()
        adam.step()
    assert float(loss.detach()) < 0.05 * before
    assert prototypes.told(descriptors, right) == 1


def test_the_numbers_are_those_of_all_subjects():
    grid = Grid((1, 1, 2), np.eye(4))
    labels = [torch.tensor([[[0, 3]]]), torch.tensor([[[4, 4]]]), None]
    assert label_numbers([Subject("one", grid, {}, each) for each in labels]) == {0, 3, 4}
