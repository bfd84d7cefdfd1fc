"""Weights: a network comes back as it was written, and nothing else does."""

import json

import pytest
import torch

from MMRegCore.errors import InputError
from MMRegCore.networks.lapirn import LapIrn
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.protocol import Network, RegistrationNetwork
from MMRegCore.networks.weights import load_network, read_card, weights_names
from MMRegCore.training.engine.checkpoint import write_weights

SMALL = MasrNetSettings(channels=(2, 3, 4, 5), dilation=3)


@pytest.fixture
def written(tmp_path):
    torch.manual_seed(3)
    network = MasrNet(SMALL)
    path = tmp_path / "some.safetensors"
    write_weights(network, path)
    return network, path


def change_card(path, **values):
    card = path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **values}))


def test_the_same_network_comes_back_ready_for_use(written):
    network, path = written
    image = torch.rand(1, 1, 8, 9, 10)
    for name in (path, str(path)):
        loaded = load_network(name, MasrNet)
        torch.testing.assert_close(loaded.state_dict(), network.state_dict(), atol=0, rtol=0)
        # Another memory layout may add up in another order.
        torch.testing.assert_close(loaded(image), network(image), atol=1e-5, rtol=1e-5)
    assert loaded.settings == SMALL
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_altered_weights_are_refused(written):
    _, path = written
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="altered"):
        load_network(path, Network)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "masrnet"}, "masr-net"),
        ({"architecture": None}, "name of a network"),
        ({"settings": {"channels": [2, 3, 4, 6], "dilation": 3}}, "card's settings"),
        ({"settings": {"chanels": [2, 3, 4, 5]}}, "channels"),
        ({"sha256": ""}, "altered"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(written, values, message):
    _, path = written
    change_card(path, **values)
    with pytest.raises(InputError, match=message):
        load_network(path, Network)


def test_weights_of_another_network_than_wanted_are_refused(written):
    _, path = written
    with pytest.raises(InputError, match="weights of lapirn; got some.safetensors, which are of masr-net"):
        load_network(path, LapIrn)
    with pytest.raises(InputError, match="weights of a registration network; got some.safetensors"):
        load_network(path, RegistrationNetwork)


def test_what_is_not_there_is_named(tmp_path, written):
    _, path = written
    with pytest.raises(InputError, match="does not exist"):
        load_network(tmp_path / "other.safetensors", Network)
    with pytest.raises(InputError, match="weights"):
        load_network("no-such-name", Network)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"some\.json"):
        load_network(path, Network)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_card_that_is_no_card_is_refused(written, content):
    _, path = written
    path.with_suffix(".json").write_text(content)
    with pytest.raises(InputError, match="card|object"):
        load_network(path, Network)


@pytest.mark.parametrize("name", weights_names() or [None])
def test_shipped_weights_load_and_say_what_they_are(name):
    if name is None:
        pytest.skip("no weights are shipped yet")
    load_network(name, Network)
    card = read_card(name)
    assert card["licence"]
    assert card["data"]
    assert card["command"]
