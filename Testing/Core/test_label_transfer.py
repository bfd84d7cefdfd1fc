"""Structures found in another person: against literal loops, and where there is nothing to find."""

import numpy as np
import pytest
import torch

from MMRegCore.config.training import ViewSettings
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.training.data import Subject
from MMRegCore.training.label_transfer import (
    balanced_places,
    draw_people,
    label_shares,
    label_transfer_loss,
    with_company,
)

SHAPE = (4, 5, 6)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def shares_by_hand(first, second, first_labels, second_labels, radius, temperature):
    """For every voxel one after the other, None where its structure is nowhere around."""
    found = []
    for place in np.ndindex(*SHAPE):
        here, same, everything = first[0][(slice(None), *place)], 0.0, 0.0
        for other in np.ndindex(*SHAPE):
            if max(abs(a - b) for a, b in zip(place, other, strict=True)) > radius:
                continue
            there = second[0][(slice(None), *other)]
            weight = float(torch.exp(here @ there / (here.norm() * there.norm()) / temperature))
            everything += weight
            same += weight * bool(second_labels[other] == first_labels[place])
        found.append(same / everything if same else None)
    return found


@pytest.mark.parametrize("radius", [1, 2])
def test_shares_are_the_softmax_over_the_cube_around_each_place(radius):
    first, second = (torch.randn(1, 3, *SHAPE, generator=stream(s), dtype=torch.float64) for s in (1, 2))
    one, two = (torch.randint(4, SHAPE, generator=stream(s)) for s in (3, 4))
    two[two == 3] = 9  # what the first has as 3 is nowhere in the second
    expected = shares_by_hand(first, second, one, two, radius, 0.3)
    places = torch.randperm(120, generator=stream(5))
    found = label_shares(first, second, one, two, places, radius=radius, temperature=0.3)
    wanted = [expected[place] for place in places.tolist() if expected[place] is not None]
    assert 60 < len(wanted) < 120
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_descriptors_that_tell_the_structure_find_it_and_those_that_tell_nothing_find_its_share():
    labels = torch.zeros(8, 8, 8, dtype=torch.int64)
    labels[4:] = 1
    telling = torch.stack([(labels == n).float() for n in (0, 1)])[None]
    middle = torch.tensor([4 * 64 + 4 * 8 + 4])
    found = label_shares(telling, telling, labels, labels, middle, radius=2)
    assert float(found) > 0.9999
    assert float(label_transfer_loss(found)) < 1e-4
    blind = label_shares(torch.ones_like(telling), torch.ones_like(telling), labels, labels, middle, radius=2)
    assert float(blind) == pytest.approx(3 / 5)
    assert float(label_transfer_loss(blind)) == pytest.approx(-np.log(3 / 5))


def test_the_loss_teaches_descriptors_to_tell_structures_and_is_nothing_where_none_can_be_found():
    labels = torch.randint(2, (6, 6, 6), generator=stream(1))
    places = torch.arange(216)
    first, second = (torch.randn(1, 4, 6, 6, 6, generator=stream(s)).requires_grad_() for s in (2, 3))
    before = label_transfer_loss(label_shares(first, second, labels, labels, places, radius=1))
    adam = torch.optim.Adam([first, second], lr=0.1)
    for _ in range(30):
        loss = label_transfer_loss(label_shares(first, second, labels, labels, places, radius=1))
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.2 * before.item()
    nowhere = label_transfer_loss(label_shares(first, second, labels, labels + 5, places, radius=1))
    assert nowhere.item() == 0
    nowhere.backward()


def test_small_structures_give_as_many_places_as_large_ones():
    labels = torch.ones(20, 20, 20, dtype=torch.int64)
    labels[:4, :4, :4], labels[10, 10, :3], labels[15:] = 2, 3, 0
    places = balanced_places(labels, 90, stream())
    assert len(places.unique()) == len(places)
    drawn = labels.flatten()[places]
    assert [int((drawn == n).sum()) for n in range(4)] == [0, 30, 30, 3]
    with pytest.raises(InputError, match="background only"):
        balanced_places(torch.zeros(3, 3, 3, dtype=torch.int64), 5, stream())


def person(name, shift=0.0, labels=True):
    matrix = np.eye(4)
    matrix[0, 3] = shift
    data = torch.zeros(24, 24, 24, dtype=torch.int16)
    data[4:20, 4:20, 4:20], data[8:16, 8:16, 8:16] = 2, 17
    return Subject(name, Grid((24, 24, 24), matrix), {}, data if labels else None)


def test_people_have_company_only_on_their_own_grid():
    everyone = [person("a"), person("b", 5.0), person("c"), person("d", labels=False), person("e", 5.0)]
    everyone.append(person("f", 9.0))
    assert with_company(everyone) == ([0, 2], [1, 4])
    with pytest.raises(InputError, match="at least two subjects with labels on one grid"):
        with_company([person("a"), person("b", 5.0), person("d", labels=False)])


def test_two_people_are_shown_at_the_same_place_each_in_a_contrast_of_its_own():
    settings = ViewSettings(crop_voxel=16)
    people = draw_people(person("a"), person("b"), stream(3), settings)
    assert people.first.shape == people.second.shape == (1, 1, 16, 16, 16)
    assert torch.equal(people.first_labels, people.second_labels)  # the two are alike
    assert set(people.first_labels.unique().tolist()) <= {0, 2, 17}
    assert not torch.equal(people.first, people.second)
    assert 0 <= float(people.first.min()) < float(people.first.max()) <= 1
    again = draw_people(person("a"), person("b"), stream(3), settings)
    assert torch.equal(again.second, people.second)
    with pytest.raises(InputError, match="expected labels of 'd'"):
        draw_people(person("a"), person("d", labels=False), stream(3), settings)
