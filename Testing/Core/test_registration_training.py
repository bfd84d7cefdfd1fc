"""Trainings of the registration networks: pairs of any grid, resuming, what is learned, what cannot be trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.volumes import write_volume
from MMRegCore.networks import find_network
from MMRegCore.networks.gradient_guided import GradientGuided, GradientGuidedSettings
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.lapirn import LapIrn, LapIrnSettings
from MMRegCore.networks.masrnet import MasrNet, MasrNetSettings
from MMRegCore.networks.multiprop import MultiPropSettings
from MMRegCore.networks.protocol import TrainingDomain
from MMRegCore.networks.weights import load_network
from MMRegCore.ops import warp
from MMRegCore.resampling import resample_smoothed
from MMRegCore.similarity.settings import SimilaritySettings
from MMRegCore.training.data.pairs import Pairs, PairSettings, pairs_of_splits
from MMRegCore.training.data.subjects import read_training_data
from MMRegCore.training.data.synthesis import DeformationSettings
from MMRegCore.training.engine.bilevel import BilevelSettings
from MMRegCore.training.engine.checkpoint import write_weights
from MMRegCore.training.engine.curves import read_curves
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.engine.recipe import learning_rate_at
from MMRegCore.training.recipes.gradient_guided import GradientGuidedTraining
from MMRegCore.training.recipes.lapirn import LapIrnRecipe, LapIrnTraining
from MMRegCore.training.recipes.multiprop import MultiPropRecipe, MultiPropTraining
from MMRegCore.training.run import run_training
from MMRegCore.training.settings import TrainingSettings
from MMRegCore.volume import Volume

pytestmark = pytest.mark.slow

DESCRIPTOR_NETWORK = MasrNetSettings(channels=(2, 2, 2, 2), descriptor=4)
CONTEXT = ProcessContext(torch.device("cpu"))
DOMAIN = TrainingDomain(spacing_mm=2.0)
SMALL = {
    "multiprop": MultiPropTraining(
        training=TrainingSettings(steps=4, validate_every=2),
        network=MultiPropSettings(features=(4, 4), matching=(4,), context=(4,), trained_on=DOMAIN),
        label_weight=0.5,
        bilevel=BilevelSettings(every=2, learning_rate=0.1),
        learning_rate=1e-2,
    ),
    "gradient-guided": GradientGuidedTraining(
        training=TrainingSettings(steps=4, validate_every=2),
        network=GradientGuidedSettings(encoder=(4, 4), decoder=(4, 4), refinement=(4,), trained_on=DOMAIN),
        learning_rate=1e-2,
    ),
    "lapirn": LapIrnTraining(
        training=TrainingSettings(steps=4, validate_every=2),
        network=LapIrnSettings(start_channels=1, residual_blocks=1, trained_on=DOMAIN),
        similarity=SimilaritySettings(name="nmi"),
        level_steps=(1, 2),
        frozen_steps=1,
        learning_rate=1e-2,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ellipsoids within ellipsoids, of other sizes in each subject, as bright on dark and dark on bright."""
    root = tmp_path_factory.mktemp("data")
    random, stream = np.random.default_rng(0), torch.Generator().manual_seed(0)
    grid = Grid((16, 16, 16), np.diag([-2.0, 2.0, 2.0, 1.0]))  # columns to the left, unlike in training
    x = grid.points_ras() - grid.centre_ras
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            radii = random.uniform(8, 13, 3)
            distance = np.linalg.norm(x / radii, axis=-1)
            labels = torch.from_numpy((distance < 1).astype(np.float32) + (distance < 0.5))[None]
            subject = root / split / f"{split}{number}"
            subject.mkdir(parents=True)
            write_volume(Volume(labels, grid), subject / "labels.nii.gz", dtype="uint8")
            write_volume(Volume(labels + 0.1 * torch.rand(labels.shape, generator=stream), grid), subject / "t1.nii.gz")
            write_volume(Volume((3 - labels) * (labels > 0), grid), subject / "t2.nii.gz")
    return root


@pytest.mark.parametrize("name", SMALL)
def test_a_resumed_training_ends_as_an_uninterrupted_one(name, folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    values = SMALL[name].to_dict()
    run_training(name, SMALL[name], folder, whole, device="cpu")
    first = type(SMALL[name]).from_dict({**values, "training": {**values["training"], "steps": 2}})
    run_training(name, first, folder, parts, device="cpu")
    run_training(name, SMALL[name], folder, parts, device="cpu", resume=True)
    assert (whole / "last.safetensors").read_bytes() == (parts / "last.safetensors").read_bytes()
    assert (whole / "curves.csv").read_bytes() == (parts / "curves.csv").read_bytes()
    network = load_network(whole / "last.safetensors", find_network(name))
    # The extent is that of the data, whatever the configuration says.
    assert network.settings.trained_on == TrainingDomain(spacing_mm=2.0, extent_mm=(32.0, 32.0, 32.0))
    scores = json.loads((whole / "last.json").read_text())["scores"]
    assert {"dice", "dice before", "folds", "similarity", "similarity before"} <= set(scores)


def test_bilevel_training_moves_the_weights_and_shows_them(folder, tmp_path):
    run_training("multiprop", SMALL["multiprop"], folder, tmp_path, device="cpu")
    curves = read_curves(tmp_path / "curves.csv")
    shown = {name: values for (_, name), values in curves.items() if name.startswith("weight of ")}
    assert set(shown) == {
        f"weight of {n}"
        for n in ("similarity 1/1", "similarity 1/2", "similarity 1/4", "smoothness", "folding", "latent", "labels")
    }
    smoothness = [value for _, value in shown["weight of smoothness"]]
    assert smoothness[0] == pytest.approx(10.0, rel=1e-6)  # nothing is known yet of the lower level's steps
    assert smoothness[-1] != pytest.approx(10.0, abs=1e-3)


def test_it_learns_to_register(folder, tmp_path):
    settings = MultiPropTraining(
        training=TrainingSettings(steps=60, validate_every=15, seed=1),
        pairs=PairSettings(atlas="training0"),
        network=MultiPropSettings(features=(8, 8), matching=(16,), context=(8,), trained_on=DOMAIN),
        learning_rate=2e-3,
        similarity=SimilaritySettings(mind_radius=1, mind_dilation=1),
        label_weight=1.0,
        smoothness=1.0,
    )
    run_training("multiprop", settings, folder, tmp_path, device="cpu")
    losses = [value for _, value in read_curves(tmp_path / "curves.csv")["training", "labels"]]
    print(losses)
    assert losses[-1] < 0.85 * losses[0]


def test_pairs_lie_on_the_axis_aligned_grid_whatever_their_own(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.axis_aligned(2.0)
    assert np.allclose(grid.ras_from_ijk[:3, :3], np.eye(3) * 2)
    pairs = Pairs(data.training, grid, PairSettings(contrasts="same"))
    pair = pairs.draw(torch.Generator().manual_seed(0))
    assert pair.fixed.shape == pair.moving.shape == (1, 1, 16, 16, 16)
    # The subjects' columns run the other way.
    flipped = data.training[0].labels.flip(2)
    assert any(torch.equal(p.fixed_labels[0, 0].short(), flipped) for p in pairs.first(2))


def test_contrasts_are_those_that_are_asked_for(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.axis_aligned(2.0)
    bright = {}
    for how in ("same", "different"):
        pairs = Pairs(data.training, grid, PairSettings(contrasts=how, batch=8))
        pair = pairs.draw(torch.Generator().manual_seed(1))
        assert len(pair.fixed) == 8
        middle = (slice(None), 0, 7, 7, 7)
        bright[how] = (pair.fixed[middle] > 0.7) == (pair.moving[middle] > 0.7)
    assert bright["same"].all()
    assert not bright["different"].any()
    drawn = Pairs(data.training, grid, PairSettings(contrasts="synthetic")).draw(torch.Generator().manual_seed(0))
    assert 0 <= float(drawn.fixed.min()) < float(drawn.fixed.max()) <= 1


def test_an_atlas_is_always_fixed(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.axis_aligned(2.0)
    pairs, validation = pairs_of_splits(data, grid, PairSettings(atlas="training1"))
    atlas = data.training[1].labels.flip(2)
    generator = torch.Generator().manual_seed(0)
    drawn = [pairs.draw(generator) for _ in range(6)]
    assert all(torch.equal(pair.fixed_labels[0, 0].short(), atlas) for pair in drawn)
    assert not any(torch.equal(pair.moving_labels[0, 0].short(), atlas) for pair in drawn)
    validated = validation.first(9)
    assert len(validated) == 2
    assert all(torch.equal(pair.fixed_labels[0, 0].short(), atlas) for pair in validated)
    with pytest.raises(InputError, match="expected the atlas among the training subjects"):
        MultiPropRecipe(MultiPropTraining(pairs=PairSettings(atlas="nobody")), data, CONTEXT)


def test_a_known_displacement_is_that_between_the_images(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.axis_aligned(2.0)
    how = PairSettings(
        contrasts="same", batch=2, known_displacement=1.0, deformation=DeformationSettings(amplitude_voxel=1.0)
    )
    pairs = Pairs(data.training, grid, how)
    pair = pairs.draw(torch.Generator().manual_seed(3))
    known = pair.displacement_voxel
    assert known.shape == (2, 3, 16, 16, 16)
    assert known.abs().mean() > 0.3
    assert torch.equal(pair.fixed, torch.cat([warp(m[None], u[None]) for m, u in zip(pair.moving, known, strict=True)]))
    pulled = [warp(m[None], u[None], mode="nearest") for m, u in zip(pair.moving_labels, known, strict=True)]
    assert torch.equal(pair.fixed_labels, torch.cat(pulled).round())
    # Known in half of the draws, for whole batches; never in validation.
    half = Pairs(data.training, grid, replace(how, known_displacement=0.5))
    drawn = [half.draw(torch.Generator().manual_seed(n)).displacement_voxel is not None for n in range(40)]
    assert 10 < sum(drawn) < 30
    assert all(pair.displacement_voxel is None for pair in half.first(4))
    with pytest.raises(InputError, match="expected a deformation above 0"):
        PairSettings(known_displacement=0.5)


def test_deformed_pairs_keep_images_and_labels_together_and_the_atlas_undeformed(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.axis_aligned(2.0)
    how = DeformationSettings(rotation_deg=10, scaling=0.1, amplitude_voxel=1.0, length_voxel=8)
    generator = torch.Generator().manual_seed(0)
    pairs = Pairs(data.training, grid, PairSettings(contrasts="same", deformation=how))
    deformed = [pairs.draw(generator) for _ in range(8)]
    undeformed = [subject.labels.flip(2) for subject in data.training]
    for pair in deformed:
        for image, labels in ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)):
            assert not any(torch.equal(labels[0, 0].short(), one) for one in undeformed)
            # Both contrasts are brighter or darker inside than outside of the inner ellipsoid, by far.
            inner, outer = image[labels == 2].median(), image[labels == 1].median()
            assert (inner - outer).abs() > 0.3
    with_atlas, _ = pairs_of_splits(data, grid, PairSettings(atlas="training1", deformation=how))
    atlas = data.training[1].labels.flip(2)
    drawn = [with_atlas.draw(generator) for _ in range(4)]
    assert all(torch.equal(pair.fixed_labels[0, 0].short(), atlas) for pair in drawn)
    assert not any(torch.equal(drawn[0].moving_labels, pair.moving_labels) for pair in drawn[1:])


def test_a_network_learns_from_known_displacements_alone(folder, tmp_path):
    settings = GradientGuidedTraining(
        training=TrainingSettings(steps=80, validate_every=20),
        pairs=PairSettings(
            known_displacement=1.0, deformation=DeformationSettings(rotation_deg=0, scaling=0.2, amplitude_voxel=0)
        ),
        network=GradientGuidedSettings(
            fusion="image", encoder=(8, 8), decoder=(8, 8), refinement=(8,), trained_on=DOMAIN
        ),
        learning_rate=3e-3,
        cosine_decay=True,
        known_displacement_weight=10.0,
    )
    run_training("gradient-guided", settings, folder, tmp_path, device="cpu")
    losses = [value for _, value in read_curves(tmp_path / "curves.csv")["training", "known displacement"]]
    print(losses)
    assert losses[-1] < 0.85 * losses[0]


def test_a_training_begins_with_the_weights_that_it_is_given(folder, tmp_path):
    first = replace(SMALL["gradient-guided"], training=TrainingSettings(steps=1, validate_every=1))
    run_training("gradient-guided", first, folder, tmp_path / "first", device="cpu")
    initial = tmp_path / "first" / "last.safetensors"
    second = replace(first, initial_weights=str(initial), learning_rate=1e-9)
    run_training("gradient-guided", second, folder, tmp_path / "second", device="cpu")
    old, new = (
        load_network(path, GradientGuided).state_dict() for path in (initial, tmp_path / "second" / "last.safetensors")
    )
    assert all(torch.allclose(old[name], new[name], atol=1e-7) for name in old)
    card = json.loads((tmp_path / "second" / "last.json").read_text())
    assert card["initial_weights_sha256"] == json.loads((tmp_path / "first" / "last.json").read_text())["sha256"]
    assert str(tmp_path) not in json.dumps(card)
    other = replace(second, network=replace(second.network, refinement=(5,)))
    with pytest.raises(InputError, match="expected the network settings of the initial weights"):
        run_training("gradient-guided", other, folder, tmp_path / "other", device="cpu")
    with pytest.raises(InputError, match="expected weights of lapirn"):
        run_training(
            "lapirn", replace(SMALL["lapirn"], initial_weights=str(initial)), folder, tmp_path / "third", device="cpu"
        )


def test_the_step_size_decays_along_half_a_cosine(folder):
    steps = TrainingSettings(steps=4)
    settings = replace(SMALL["multiprop"], training=steps, cosine_decay=True)
    recipe = MultiPropRecipe(settings, read_training_data(folder), CONTEXT)
    rates = []
    for step in range(4):
        generator = CONTEXT.generator(0, step)
        recipe.step(recipe.draw(generator), generator)
        rates.append(recipe._optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2 * (1 + np.cos(np.pi * n / 4)) / 2 for n in range(4)])
    assert learning_rate_at(SMALL["multiprop"], 3) == 1e-2


def test_gradients_are_clipped(folder):
    settings = replace(SMALL["multiprop"], max_grad_norm=1e-3, bilevel=BilevelSettings())
    recipe = MultiPropRecipe(settings, read_training_data(folder), CONTEXT)
    generator = CONTEXT.generator(0, 0)
    shown = recipe.step(recipe.draw(generator), generator)["gradient"]
    length = torch.stack([p.grad.norm() for p in recipe.network.parameters() if p.grad is not None]).norm()
    assert shown > 1e-3 >= 0.99 * float(length)


def test_lapirn_trains_its_levels_in_turn(folder):
    recipe = LapIrnRecipe(SMALL["lapirn"], read_training_data(folder), CONTEXT)
    changed = []
    for step in range(4):
        before = [p.detach().clone() for p in recipe.network.parameters()]
        generator = CONTEXT.generator(0, step)
        recipe.step(recipe.draw(generator), generator)
        names = [name for name, _ in recipe.network.named_parameters()]
        moved = zip(names, before, recipe.network.parameters(), strict=True)
        changed.append({name.split(".")[1] for name, old, new in moved if not torch.equal(old, new)})
    # One step of the first level, two of the second (the first of them alone), then the third alone.
    assert changed == [{"0"}, {"1"}, {"0", "1"}, {"2"}]


def test_what_cannot_be_trained_is_refused(folder):
    data = read_training_data(folder)
    with pytest.raises(InputError, match="no more than 4 resolutions; got 5 weights"):
        MultiPropTraining(similarity_weights=(1.0,) * 5)
    with pytest.raises(InputError, match="the steps of 2 levels; got 1"):
        LapIrnTraining(level_steps=(5,))
    grid = data.training[0].grid.axis_aligned(2.0)
    with pytest.raises(InputError, match="at least two subjects"):
        Pairs(data.training[:1], grid, PairSettings())


@pytest.fixture
def descriptor_weights(tmp_path):
    """Weights of a small MASR-Net, untrained."""
    torch.manual_seed(0)
    network = MasrNet(DESCRIPTOR_NETWORK)
    write_weights(network, tmp_path / "d.safetensors")
    return str(tmp_path / "d.safetensors")


def test_lapirn_on_descriptors_contains_the_network_that_computes_them(folder, tmp_path, descriptor_weights):
    network = replace(SMALL["lapirn"].network, inputs="descriptors", trained_on=TrainingDomain(spacing_mm=1.0))
    dns = SimilaritySettings(name="dns", dns_weights=descriptor_weights)
    settings = replace(SMALL["lapirn"], network=network, similarity=dns)
    scores = run_training("lapirn", settings, folder, tmp_path / "out", device="cpu")
    assert -2 < scores["similarity"] < 0
    network = load_network(tmp_path / "out" / "last.safetensors", LapIrn)
    given = load_network(descriptor_weights, MasrNet).state_dict()
    assert all(torch.equal(value, given[name]) for name, value in network.descriptor_network.state_dict().items())
    # It is trained on what it encodes of whole images: descriptors at 1 mm, averaged to 2 mm.
    data = read_training_data(folder)
    pair = LapIrnRecipe(settings, data, CONTEXT).draw(CONTEXT.generator(0, 0))
    assert pair.fixed.shape == (1, 4, 16, 16, 16)
    assert pair.fixed_labels.shape == (1, 1, 16, 16, 16)
    grid = data.training[0].grid.axis_aligned(1.0)
    images = [resample_smoothed(Volume(each, s.grid), grid) for s in data.training for each in s.images.values()]
    with torch.no_grad():
        encoded = [network.encode(unit_range(image)[None]) for image in images]
    assert any(torch.allclose(pair.fixed, each, atol=1e-3) for each in encoded)


def test_lapirn_on_descriptors_needs_images_and_dns(folder, descriptor_weights):
    network = replace(SMALL["lapirn"].network, inputs="descriptors")
    with pytest.raises(InputError, match=r"expected similarity\.name = dns and pairs\.known_displacement = 0"):
        replace(SMALL["lapirn"], network=network)
    dns = SimilaritySettings(name="dns", dns_weights=descriptor_weights)
    synthetic = replace(SMALL["lapirn"].pairs, contrasts="synthetic")
    settings = replace(SMALL["lapirn"], network=network, similarity=dns, pairs=synthetic)
    with pytest.raises(InputError, match="encoded once; got synthetic"):
        LapIrnRecipe(settings, read_training_data(folder), CONTEXT)


@pytest.mark.parametrize("similarity", ["mind", "dns"])
def test_lapirn_learns_by_descriptors(folder, descriptor_weights, similarity):
    similarity = SimilaritySettings(name=similarity, dns_weights=descriptor_weights)
    settings = replace(SMALL["lapirn"], similarity=similarity)
    recipe = LapIrnRecipe(settings, read_training_data(folder), CONTEXT)
    before = [p.detach().clone() for p in recipe.network.parameters()]
    for step in range(4):
        generator = CONTEXT.generator(0, step)
        losses = recipe.step(recipe.draw(generator), generator)
        assert losses["similarity"] > 0
    assert not all(torch.equal(a, b) for a, b in zip(before, recipe.network.parameters(), strict=True))
