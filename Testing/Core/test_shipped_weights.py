"""The weights that come with MMReg: small, with a card that says all, and able to do what they are for."""

import json
from importlib.resources import files

import pytest
import torch

from MMRegCore.config.training import SynthesisSettings
from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network, read_card, weights_names
from MMRegCore.simulate.noise import random_stream, smooth_noise
from MMRegCore.training.contrastive import at_places, foreground_places, retrieval
from MMRegCore.training.synthesis import synthetic_contrast

SAID = ("architecture", "settings", "data", "steps", "seconds", "machine", "scores", "sha256", "licence", "command")


@pytest.mark.parametrize("name", weights_names())
def test_weights_load_are_small_and_say_where_they_come_from(name):
    assert all(parameter.isfinite().all() for parameter in load_network(name).parameters())
    card = read_card(name)
    assert all(card.get(key) for key in SAID)
    assert "/" not in card["machine"]
    assert "/work" not in json.dumps(card)
    assert files("MMRegCore").joinpath("weights", f"{name}.safetensors").stat().st_size <= 20e6


def test_masr_net_finds_places_across_contrasts_where_mind_and_an_untrained_network_do_not():
    shape = (40, 40, 40)
    # Five kinds of tissue in random folds.
    folds = smooth_noise(shape, (4, 4, 4), random_stream(0, "folds"))
    labels = torch.bucketize(folds, torch.tensor([-0.8, -0.2, 0.3, 0.9])) + 1
    stream = torch.Generator().manual_seed(1)
    settings = SynthesisSettings(noise=0.03, bias=0.1)
    first, second = (synthetic_contrast(labels, stream, settings)[None] for _ in range(2))
    places = foreground_places(torch.ones(shape, dtype=torch.bool), 500, stream)
    torch.manual_seed(0)

    def found(method, compare="angle"):
        with torch.no_grad():
            return retrieval(*(at_places(method(image), places) for image in (first, second)), compare=compare)

    trained = found(load_network("masrnet"))
    assert trained > 0.3
    assert trained > 2 * found(MasrNet().eval())
    assert trained > found(mind_ssc, "distance") + 0.1
