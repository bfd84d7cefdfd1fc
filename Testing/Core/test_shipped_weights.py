"""The weights that come with MMReg: small, with a card that says all, and able to do what they are for."""

import json
from importlib.resources import files

import pytest
import torch

from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.protocol import Network
from MMRegCore.networks.weights import load_network, read_card, weights_names
from MMRegCore.similarity.descriptors.mind import mind_ssc
from MMRegCore.simulate.noise import random_stream, smooth_noise
from MMRegCore.training.data.synthesis import SynthesisSettings, synthetic_contrast
from MMRegCore.training.recipes import find_recipe
from MMRegCore.training.recipes.contrastive import at_points, foreground_points, retrieval

SAID = ("architecture", "settings", "data", "steps", "seconds", "machine", "scores", "sha256", "licence", "command")


@pytest.mark.parametrize("name", weights_names())
def test_weights_load_are_small_and_say_where_they_come_from(name):
    assert all(parameter.isfinite().all() for parameter in load_network(name, Network).parameters())
    card = read_card(name)
    assert all(card.get(key) for key in SAID)
    assert "/" not in card["machine"]
    assert "/work" not in json.dumps(card)
    assert "build/" not in json.dumps(card)
    settings_class = find_recipe(card["architecture"]).settings_class
    assert settings_class.from_dict(card["training_settings"]).to_dict() == card["training_settings"]
    assert files("MMRegCore").joinpath("weights", f"{name}.safetensors").stat().st_size <= 20e6


@pytest.fixture(scope="module")
def contrasts():
    """Five kinds of tissue in random folds, in two synthetic contrasts (1, 1, 40, 40, 40)."""
    folds = smooth_noise((40, 40, 40), (4, 4, 4), random_stream(0, "folds"))
    labels = torch.bucketize(folds, torch.tensor([-0.8, -0.2, 0.3, 0.9])) + 1
    stream, settings = torch.Generator().manual_seed(1), SynthesisSettings(noise=0.03, bias=0.1)
    return [synthetic_contrast(labels, stream, settings)[None] for _ in range(2)]


def test_masr_net_finds_places_across_contrasts_where_mind_and_an_untrained_network_do_not(contrasts):
    points = foreground_points(torch.ones(40, 40, 40, dtype=torch.bool), 500, torch.Generator().manual_seed(2))
    torch.manual_seed(0)

    def found(method, compare="angle"):
        with torch.no_grad():
            return retrieval(*(at_points(method(image), points) for image in contrasts), compare=compare)

    trained = found(load_network("masrnet", MasrNet))
    assert trained > 0.3
    assert trained > 2 * found(MasrNet(MasrNetSettings()).eval())
    assert trained > found(mind_ssc, "distance") + 0.1


def test_masr_net_goes_by_the_anatomy_and_not_by_the_border_of_the_image(contrasts):
    """Cut out 4 voxels apart, two images are most alike 4 voxels apart, and no more alike towards 0."""
    network = load_network("masrnet", MasrNet)
    with torch.no_grad():
        first = network(contrasts[0][..., :32, :, :])[0, :, 10:20]
        second = network(contrasts[1][..., 4:36, :, :])[0]
    alike = [float(torch.cosine_similarity(first, second[:, 10 - s : 20 - s], dim=0).mean()) for s in range(9)]
    assert alike.index(max(alike)) == 4
    assert alike[0] < alike[2] < alike[4] > alike[6] > alike[8]
    assert alike[3] == pytest.approx(alike[5], abs=0.05)
