"""Trainings of the registration networks: pairs of any grid, resuming, what is learned, what cannot be trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from MMRegCore.config.networks import (
    GradientGuidedSettings,
    LapIrnSettings,
    MasrNetSettings,
    MultiPropSettings,
    TrainedOn,
)
from MMRegCore.config.pair_training import (
    BilevelSettings,
    GradientGuidedTraining,
    LapIrnTraining,
    MultiPropTraining,
    PairSettings,
)
from MMRegCore.config.training import DeformationSettings, TrainingSettings
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.io import write_volume
from MMRegCore.networks.intensity import unit_range
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network
from MMRegCore.preprocess import on_grid
from MMRegCore.training.checkpoint import write_weights
from MMRegCore.training.curves import read_curves
from MMRegCore.training.data import read_training_data
from MMRegCore.training.distributed import Place
from MMRegCore.training.lapirn import make_lapirn
from MMRegCore.training.multiprop import make_multiprop
from MMRegCore.training.pairs import Pairs
from MMRegCore.training.recipe import rate_at
from MMRegCore.training.registration import pairs_of
from MMRegCore.training.run import run_training
from MMRegCore.volume import Volume
from MMRegCore.warp import warp

DESCRIBER = MasrNetSettings(channels=(2, 2, 2, 2), descriptor=4).to_dict()
PLACE = Place(torch.device("cpu"))
ON = TrainedOn(spacing_mm=2.0)
SMALL = {
    "multiprop": MultiPropTraining(
        training=TrainingSettings(steps=4, validate_every=2),
        network=MultiPropSettings(features=(4, 4), matching=(4,), context=(4,), trained_on=ON),
        labels=0.5,
        bilevel=BilevelSettings(every=2, learning_rate=0.1),
        learning_rate=1e-2,
    ),
    "gradient-guided": GradientGuidedTraining(
        training=TrainingSettings(steps=4, validate_every=2),
        network=GradientGuidedSettings(encoder=(4, 4), decoder=(4, 4), refinement=(4,), trained_on=ON),
        learning_rate=1e-2,
    ),
    "lapirn": LapIrnTraining(
        training=TrainingSettings(steps=4, validate_every=2),
        network=LapIrnSettings(start_channels=1, residual_blocks=1, trained_on=ON),
        similarity="nmi",
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
    grid = Grid((16, 16, 16), np.diag([-2.0, 2.0, 2.0, 1.0]))  # columns to the left: not as the trainings work
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
def test_a_training_that_is_taken_up_again_ends_as_one_in_a_piece(name, folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    values = SMALL[name].to_dict()
    run_training(name, SMALL[name], folder, whole, device="cpu")
    first = type(SMALL[name]).from_dict({**values, "training": {**values["training"], "steps": 2}})
    run_training(name, first, folder, parts, device="cpu")
    run_training(name, SMALL[name], folder, parts, device="cpu", resume=True)
    assert (whole / "last.safetensors").read_bytes() == (parts / "last.safetensors").read_bytes()
    assert (whole / "curves.csv").read_bytes() == (parts / "curves.csv").read_bytes()
    network = load_network(whole / "last.safetensors", architecture=name)
    # The extent is that of the data, which the configuration need not know.
    assert network.settings.trained_on == TrainedOn(spacing_mm=2.0, extent_mm=(32.0, 32.0, 32.0))
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
        network=MultiPropSettings(features=(8, 8), matching=(16,), context=(8,), trained_on=ON),
        learning_rate=2e-3,
        mind_radius=1,
        mind_dilation=1,
        labels=1.0,
        smoothness=1.0,
    )
    run_training("multiprop", settings, folder, tmp_path, device="cpu")
    losses = [value for _, value in read_curves(tmp_path / "curves.csv")["training", "labels"]]
    print(losses)
    assert losses[-1] < 0.85 * losses[0]


def test_pairs_lie_on_the_upright_grid_whatever_their_own(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.upright(2.0)
    assert np.allclose(grid.ras_from_ijk[:3, :3], np.eye(3) * 2)
    pairs = Pairs(data.training, grid, PairSettings(contrasts="same"))
    pair = pairs.draw(torch.Generator().manual_seed(0))
    assert pair.fixed.shape == pair.moving.shape == (1, 1, 16, 16, 16)
    # The subjects' columns run the other way.
    flipped = data.training[0].labels.flip(2)
    assert any(torch.equal(p.fixed_labels[0, 0].short(), flipped) for p in pairs.all_of(2))


def test_contrasts_are_those_that_are_asked_for(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.upright(2.0)
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
    grid = data.training[0].grid.upright(2.0)
    pairs, judging = pairs_of(data, grid, PairSettings(atlas="training1"))
    atlas = data.training[1].labels.flip(2)
    generator = torch.Generator().manual_seed(0)
    drawn = [pairs.draw(generator) for _ in range(6)]
    assert all(torch.equal(pair.fixed_labels[0, 0].short(), atlas) for pair in drawn)
    assert not any(torch.equal(pair.moving_labels[0, 0].short(), atlas) for pair in drawn)
    judged = judging.all_of(9)
    assert len(judged) == 2
    assert all(torch.equal(pair.fixed_labels[0, 0].short(), atlas) for pair in judged)
    with pytest.raises(InputError, match="expected the atlas among the training subjects"):
        make_multiprop(MultiPropTraining(pairs=PairSettings(atlas="nobody")), data, PLACE)


def test_of_a_known_pair_the_displacement_is_that_between_its_images(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.upright(2.0)
    how = PairSettings(contrasts="same", batch=2, known=1.0, deformation=DeformationSettings(amplitude_voxel=1.0))
    pairs = Pairs(data.training, grid, how)
    pair = pairs.draw(torch.Generator().manual_seed(3))
    known = pair.displacement_voxel
    assert known.shape == (2, 3, 16, 16, 16)
    assert known.abs().mean() > 0.3
    assert torch.equal(pair.fixed, torch.cat([warp(m[None], u[None]) for m, u in zip(pair.moving, known, strict=True)]))
    pulled = [warp(m[None], u[None], mode="nearest") for m, u in zip(pair.moving_labels, known, strict=True)]
    assert torch.equal(pair.fixed_labels, torch.cat(pulled).round())
    # Half of the draws are known pairs, of whole batches; the validation has none.
    half = Pairs(data.training, grid, replace(how, known=0.5))
    drawn = [half.draw(torch.Generator().manual_seed(n)).displacement_voxel is not None for n in range(40)]
    assert 10 < sum(drawn) < 30
    assert all(pair.displacement_voxel is None for pair in half.all_of(4))
    with pytest.raises(InputError, match="expected a deformation above 0"):
        PairSettings(known=0.5)


def test_deformed_pairs_keep_images_and_labels_together_and_the_atlas_still(folder):
    data = read_training_data(folder)
    grid = data.training[0].grid.upright(2.0)
    how = DeformationSettings(rotation_deg=10, scaling=0.1, amplitude_voxel=1.0, length_voxel=8)
    generator = torch.Generator().manual_seed(0)
    pairs = Pairs(data.training, grid, PairSettings(contrasts="same", deformation=how))
    seen = [pairs.draw(generator) for _ in range(8)]
    still = [subject.labels.flip(2) for subject in data.training]
    for pair in seen:
        for image, labels in ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)):
            assert not any(torch.equal(labels[0, 0].short(), one) for one in still)
            # Both contrasts are brighter or darker inside than outside of the inner ellipsoid, by far.
            inner, outer = image[labels == 2].median(), image[labels == 1].median()
            assert (inner - outer).abs() > 0.3
    fixed_still, _ = pairs_of(data, grid, PairSettings(atlas="training1", deformation=how))
    atlas = data.training[1].labels.flip(2)
    drawn = [fixed_still.draw(generator) for _ in range(4)]
    assert all(torch.equal(pair.fixed_labels[0, 0].short(), atlas) for pair in drawn)
    assert not any(torch.equal(drawn[0].moving_labels, pair.moving_labels) for pair in drawn[1:])


def test_a_network_learns_from_known_displacements_alone(folder, tmp_path):
    settings = GradientGuidedTraining(
        training=TrainingSettings(steps=80, validate_every=20),
        pairs=PairSettings(known=1.0, deformation=DeformationSettings(rotation_deg=0, scaling=0.2, amplitude_voxel=0)),
        network=GradientGuidedSettings(fusion="image", encoder=(8, 8), decoder=(8, 8), refinement=(8,), trained_on=ON),
        learning_rate=3e-3,
        falling=True,
        known=10.0,
    )
    run_training("gradient-guided", settings, folder, tmp_path, device="cpu")
    losses = [value for _, value in read_curves(tmp_path / "curves.csv")["training", "known"]]
    print(losses)
    assert losses[-1] < 0.85 * losses[0]


def test_a_training_begins_with_the_weights_that_it_is_given(folder, tmp_path):
    first = replace(SMALL["gradient-guided"], training=TrainingSettings(steps=1, validate_every=1))
    run_training("gradient-guided", first, folder, tmp_path / "first", device="cpu")
    begun = tmp_path / "first" / "last.safetensors"
    second = replace(first, start=str(begun), learning_rate=1e-9)
    run_training("gradient-guided", second, folder, tmp_path / "second", device="cpu")
    old, new = (load_network(path).state_dict() for path in (begun, tmp_path / "second" / "last.safetensors"))
    assert all(torch.allclose(old[name], new[name], atol=1e-7) for name in old)
    card = json.loads((tmp_path / "second" / "last.json").read_text())
    assert card["started_from_sha256"] == json.loads((tmp_path / "first" / "last.json").read_text())["sha256"]
    other = replace(second, network=replace(second.network, refinement=(5,)))
    with pytest.raises(InputError, match="expected network settings of the weights to begin with"):
        run_training("gradient-guided", other, folder, tmp_path / "other", device="cpu")
    with pytest.raises(InputError, match="expected weights of lapirn"):
        run_training("lapirn", replace(SMALL["lapirn"], start=str(begun)), folder, tmp_path / "third", device="cpu")


def test_the_step_size_falls_along_half_a_cosine(folder):
    steps = TrainingSettings(steps=4)
    recipe, batches = make_multiprop(
        replace(SMALL["multiprop"], training=steps, falling=True), read_training_data(folder), PLACE
    )
    rates = []
    for step in range(4):
        generator = PLACE.generator(0, step)
        recipe.step(batches(generator), generator)
        rates.append(recipe._optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2 * (1 + np.cos(np.pi * n / 4)) / 2 for n in range(4)])
    assert rate_at(SMALL["multiprop"], 3) == 1e-2


def test_no_gradient_is_longer_than_asked_for(folder):
    settings = replace(SMALL["multiprop"], longest_gradient=1e-3, bilevel=BilevelSettings())
    recipe, batches = make_multiprop(settings, read_training_data(folder), PLACE)
    generator = PLACE.generator(0, 0)
    shown = recipe.step(batches(generator), generator)["gradient"]
    length = torch.stack([p.grad.norm() for p in recipe.network.parameters() if p.grad is not None]).norm()
    assert shown > 1e-3 >= 0.99 * float(length)


def test_lapirn_trains_its_levels_in_turn(folder):
    recipe, batches = make_lapirn(SMALL["lapirn"], read_training_data(folder), PLACE)
    changed = []
    for step in range(4):
        before = [p.detach().clone() for p in recipe.network.parameters()]
        generator = PLACE.generator(0, step)
        recipe.step(batches(generator), generator)
        names = [name for name, _ in recipe.network.named_parameters()]
        moved = zip(names, before, recipe.network.parameters(), strict=True)
        changed.append({name.split(".")[1] for name, old, new in moved if not torch.equal(old, new)})
    # One step of the first level, two of the second (the first of them alone), then the third alone.
    assert changed == [{"0"}, {"1"}, {"0", "1"}, {"2"}]


def test_what_cannot_be_trained_is_told(folder):
    data = read_training_data(folder)
    with pytest.raises(InputError, match="no more than 4 resolutions; got 5 weights"):
        make_multiprop(MultiPropTraining(similarity=(1.0,) * 5), data, PLACE)
    with pytest.raises(InputError, match="the steps of 2 levels; got 1"):
        make_lapirn(LapIrnTraining(level_steps=(5,)), data, PLACE)
    grid = data.training[0].grid.upright(2.0)
    with pytest.raises(InputError, match="at least two subjects"):
        Pairs(data.training[:1], grid, PairSettings())


@pytest.fixture
def describer(tmp_path):
    """Weights of a small MASR-Net, untrained."""
    torch.manual_seed(0)
    network = MasrNet(MasrNetSettings.from_dict(DESCRIBER))
    write_weights(network, tmp_path / "d.safetensors", {"architecture": "masr-net", "settings": DESCRIBER})
    return str(tmp_path / "d.safetensors")


def test_lapirn_that_sees_descriptors_holds_what_made_them(folder, tmp_path, describer):
    sees = replace(SMALL["lapirn"].network, inputs="descriptors", trained_on=TrainedOn(spacing_mm=1.0))
    settings = replace(SMALL["lapirn"], network=sees, similarity="dns", descriptor=describer)
    scores = run_training("lapirn", settings, folder, tmp_path / "out", device="cpu")
    assert -2 < scores["similarity"] < 0
    network = load_network(tmp_path / "out" / "last.safetensors", architecture="lapirn")
    given = load_network(describer).state_dict()
    assert all(torch.equal(value, given[name]) for name, value in network.describer.state_dict().items())
    # What it trained on is what it sees of whole images: described at 1 mm, moved at 2 mm.
    data = read_training_data(folder)
    _, batches = make_lapirn(settings, data, PLACE)
    pair = batches(PLACE.generator(0, 0))
    assert pair.fixed.shape == (1, 4, 16, 16, 16)
    assert pair.fixed_labels.shape == (1, 1, 16, 16, 16)
    grid = data.training[0].grid.upright(1.0)
    images = [on_grid(Volume(each, s.grid), grid) for s in data.training for each in s.images.values()]
    with torch.no_grad():
        seen = [network.described(unit_range(image)[None]) for image in images]
    assert any(torch.allclose(pair.fixed, each, atol=1e-3) for each in seen)


def test_descriptors_want_images_and_a_describer(folder, describer):
    data = read_training_data(folder)
    sees = replace(SMALL["lapirn"].network, inputs="descriptors")
    with pytest.raises(InputError, match=r"expected similarity = dns and pairs\.known = 0"):
        make_lapirn(replace(SMALL["lapirn"], network=sees), data, PLACE)
    synthetic = replace(SMALL["lapirn"].pairs, contrasts="synthetic")
    settings = replace(SMALL["lapirn"], network=sees, similarity="dns", descriptor=describer, pairs=synthetic)
    with pytest.raises(InputError, match="made once; got synthetic"):
        make_lapirn(settings, data, PLACE)


@pytest.mark.parametrize("similarity", ["mind", "dns"])
def test_lapirn_learns_by_descriptors(folder, describer, similarity):
    settings = replace(SMALL["lapirn"], similarity=similarity, descriptor=describer)
    recipe, batches = make_lapirn(settings, read_training_data(folder), PLACE)
    before = [p.detach().clone() for p in recipe.network.parameters()]
    for step in range(4):
        generator = PLACE.generator(0, step)
        losses = recipe.step(batches(generator), generator)
        assert losses["similarity"] > 0
    assert not all(torch.equal(a, b) for a, b in zip(before, recipe.network.parameters(), strict=True))
