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


@pytest.fixture(scope="module")
def contrasts():
    """Five kinds of tissue in random folds, in two synthetic contrasts (1, 1, 40, 40, 40)."""
    folds = smooth_noise((40, 40, 40), (4, 4, 4), random_stream(0, "folds"))
    labels = torch.bucketize(folds, torch.tensor([-0.8, -0.2, 0.3, 0.9])) + 1
    stream, settings = torch.Generator().manual_seed(1), SynthesisSettings(noise=0.03, bias=0.1)
    return [synthetic_contrast(labels, stream, settings)[None] for _ in range(2)]


def test_masr_net_finds_places_across_contrasts_where_mind_and_an_untrained_network_do_not(contrasts):
    places = foreground_places(torch.ones(40, 40, 40, dtype=torch.bool), 500, torch.Generator().manual_seed(2))
    torch.manual_seed(0)

    def found(method, compare="angle"):
        with torch.no_grad():
            return retrieval(*(at_places(method(image), places) for image in contrasts), compare=compare)

    trained = found(load_network("masrnet"))
    assert trained > 0.3
    assert trained > 2 * found(MasrNet().eval())
    assert trained > found(mind_ssc, "distance") + 0.1


def test_masr_net_goes_by_the_anatomy_and_not_by_the_border_of_the_image(contrasts):
    """Cut out 4 voxels apart, two images are most alike 4 voxels apart, and no more alike towards 0."""
    network = load_network("masrnet")
    with torch.no_grad():
        first = network(contrasts[0][..., :32, :, :])[0, :, 10:20]
        second = network(contrasts[1][..., 4:36, :, :])[0]
    alike = [float(torch.cosine_similarity(first, second[:, 10 - s : 20 - s], dim=0).mean()) for s in range(9)]
    assert alike.index(max(alike)) == 4
    assert alike[0] < alike[2] < alike[4] > alike[6] > alike[8]
    assert alike[3] == pytest.approx(alike[5], abs=0.05)
