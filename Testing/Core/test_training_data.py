"""Training data in both layouts, one line for each mistake, and a whole small training by its command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MMRegCore.cli import main
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.volumes import write_volume
from MMRegCore.networks import find_network, networks
from MMRegCore.networks.masrnet import MasrNet
from MMRegCore.networks.weights import load_network
from MMRegCore.settings import describe, with_changes
from MMRegCore.training.data.subjects import SubjectFiles, Subjects, read_training_data
from MMRegCore.training.engine.curves import read_curves
from MMRegCore.training.recipes import find_recipe, read_settings, recipes
from MMRegCore.training.recipes import masrnet as masrnet_recipe
from MMRegCore.training.recipes.masrnet import MasrNetTraining
from MMRegCore.training.run import run_training
from MMRegCore.volume import Volume

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GRID = Grid((18, 20, 22), np.diag([1.0, 1.0, 1.5, 1.0]))
SMALL = {
    "training.steps": "4",
    "training.validate_every": "2",
    "network.channels": "2,2,2,2",
    "samples": "50",
    "validation_pairs": "2",
    "patches.crop_voxel": "16",
}


def image(seed, grid=GRID):
    return Volume(100 * torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(seed)), grid)


def labels():
    numbers = torch.zeros(1, *GRID.shape)
    numbers[:, 3:15, 3:17, 3:11] = 2
    numbers[:, 3:15, 3:17, 11:19] = 4
    return Volume(numbers, GRID)


@pytest.fixture
def by_folder(tmp_path):
    root = tmp_path / "by folder"
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            folder = root / split / f"{split[0]}{number}"
            folder.mkdir(parents=True)
            write_volume(image(number), folder / "t1.nii.gz")
            write_volume(image(10 + number), folder / "flair.nrrd")
            write_volume(labels(), folder / "labels.nii.gz", dtype="uint8")
    return root


@pytest.fixture
def learn2reg(tmp_path):
    root = tmp_path / "learn2reg"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    entries = []
    for case in (1, 2, 3):
        for contrast in (0, 1):
            name = f"Head_{case:04d}_{contrast:04d}.nii.gz"
            write_volume(image(case + 10 * contrast), root / "imagesTr" / name)
            write_volume(labels(), root / "labelsTr" / name, dtype="uint8")
            entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    pairs = [{"fixed": "./imagesTr/Head_0003_0000.nii.gz", "moving": "./imagesTr/Head_0003_0001.nii.gz"}]
    content = {"modality": {"0": "MR", "1": "CT"}, "training": entries, "registration_val": pairs}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_a_folder_for_each_subject(by_folder):
    data = read_training_data(by_folder)
    assert data.training.names == ("t0", "t1", "t2")
    assert data.validation.names == ("v0", "v1")
    subject = data.training[1]
    assert set(subject.images) == {"t1", "flair"}
    assert torch.equal(subject.labels, labels().data[0].short())
    assert subject.grid.matches(GRID)
    assert float(subject.images["t1"].min()) == 0
    assert float(subject.images["t1"].max()) == 1


def test_learn2reg_cases_are_subjects_with_named_contrasts(learn2reg):
    data = read_training_data(learn2reg)
    assert data.training.names == ("Head_0001", "Head_0002")
    assert data.validation.names == ("Head_0003",)
    assert set(data.validation[0].images) == {"MR", "CT"}
    assert data.validation[0].labels.unique().tolist() == [0, 2, 4]


def break_json(root, **changes):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": [{"image": "./imagesTr/none_0000.nii.gz"}]}, "to name a file in .*; got './imagesTr/none"),
        ({"training": [{}]}, "expected 'image' in dataset.json to name a file"),
        ({"training": "all"}, "expected 'training' in dataset.json to be a list of objects"),
        ({"registration_val": []}, "expected subjects for validation; got none"),
        ({"registration_val": [{"fixed": "a/Head_0009_0000.nii.gz"}]}, "among those of training; got Head_0009"),
        ({"registration_val": [{"fixed": "a/Head.nii.gz"}]}, "expected a name as NAME_CASE_CONTRAST"),
    ],
)
def test_what_is_wrong_in_a_dataset_json_is_named(learn2reg, changes, message):
    break_json(learn2reg, **changes)
    with pytest.raises(InputError, match=message):
        read_training_data(learn2reg)


def test_what_is_wrong_in_a_folder_is_named(by_folder, tmp_path):
    with pytest.raises(InputError, match="expected a folder with training data"):
        read_training_data(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected dataset\.json, or the folders training and validation"):
        read_training_data(tmp_path / "empty")
    (by_folder / "training" / "t9").mkdir()
    with pytest.raises(InputError, match="expected images .*; got none in .*t9"):
        read_training_data(by_folder)


def test_hidden_files_are_no_images(by_folder):
    """macOS writes ._NAME beside every file on a foreign disk; a file that is being written is hidden, too."""
    before = read_training_data(by_folder)
    (by_folder / "training" / "t0" / "._t1.nii.gz").write_bytes(b"\0\5\26\7")
    (by_folder / "validation" / ".cache").mkdir()
    after = read_training_data(by_folder)
    assert set(after.training[0].images) == {"t1", "flair"}
    assert after.validation.names == before.validation.names


def test_images_of_a_subject_must_lie_on_one_grid(by_folder):
    write_volume(image(1, Grid((10, 20, 22), np.eye(4))), by_folder / "training" / "t0" / "flair.nrrd")
    with pytest.raises(GeometryError, match="expected the images and labels of 't0' on one grid"):
        _ = read_training_data(by_folder).training[0]


def test_subjects_are_read_once_and_the_least_recently_used_dropped(tmp_path, monkeypatch):
    for number in range(3):
        write_volume(image(number), tmp_path / f"{number}.nii.gz")
    files = [SubjectFiles(str(n), {"t1": tmp_path / f"{n}.nii.gz"}) for n in range(3)]
    read = []
    original = SubjectFiles.read
    monkeypatch.setattr(SubjectFiles, "read", lambda self: read.append(self.name) or original(self))
    one_bytes = 4 * 18 * 20 * 22
    subjects = Subjects(files, budget_bytes=2 * one_bytes)
    for index in (0, 1, 0, 1, 2, 1, -1, 0):
        assert subjects[index].name == str(index % 3)
    assert read == ["0", "1", "2", "0"]
    with pytest.raises(IndexError):
        _ = subjects[3]
    assert subjects[1:].names == ("1", "2")


def test_masr_net_learns_the_same_from_large_cubes_that_are_checkpointed(by_folder, tmp_path, monkeypatch):
    settings = with_changes(MasrNetTraining(), {**SMALL, "training.precision": "float32", "neighbours": 1.0})
    whole = run_training("masr-net", settings, by_folder, tmp_path / "whole")
    monkeypatch.setattr(masrnet_recipe, "LARGE_VOXELS", 16**3 - 1)
    again = run_training("masr-net", settings, by_folder, tmp_path / "again")
    assert again == pytest.approx(whole, abs=1e-4)
    for kind in ("contrastive", "neighbours"):
        losses = [read_curves(tmp_path / name / "curves.csv")["training", kind] for name in ("whole", "again")]
        assert [step for step, loss in losses[0] if loss > 0] == [2, 4]
        assert losses[1] == [(step, pytest.approx(loss, rel=1e-3)) for step, loss in losses[0]]


def test_masr_net_trains_resumes_and_loads_again(by_folder, tmp_path):
    settings = with_changes(MasrNetTraining(), SMALL)
    scores = run_training("masr-net", settings, by_folder, tmp_path / "whole")
    assert set(scores) == {"retrieval", "retrieval of MIND"}
    short = with_changes(settings, {"training.steps": "2"})
    run_training("masr-net", short, by_folder, tmp_path / "parts")
    assert run_training("masr-net", settings, by_folder, tmp_path / "parts", resume=True) == scores
    for name in ("curves.csv", "last.safetensors", "settings.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    network = load_network(tmp_path / "whole" / "best.safetensors", MasrNet)
    assert network(torch.rand(1, 1, 16, 16, 16)).shape == (1, 24, 16, 16, 16)
    card = json.loads((tmp_path / "whole" / "last.json").read_text())
    assert card["data"] == "by folder: t0, t1, t2"
    assert card["steps"] == 4
    assert str(tmp_path) not in json.dumps(card)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_masr_net_trains_on_a_gpu_in_mixed_precision(by_folder, tmp_path):
    scores = run_training(
        "masr-net", with_changes(MasrNetTraining(), SMALL), by_folder, tmp_path / "out", device="cuda"
    )
    assert 0 <= scores["retrieval"] <= 1
    assert load_network(tmp_path / "out" / "best.safetensors", MasrNet)(torch.rand(1, 1, 16, 16, 16)).isfinite().all()


def test_another_training_is_not_resumed(by_folder, tmp_path):
    settings = with_changes(MasrNetTraining(), {**SMALL, "training.steps": "1"})
    run_training("masr-net", settings, by_folder, tmp_path / "out")
    with pytest.raises(InputError, match="or --resume"):
        run_training("masr-net", settings, by_folder, tmp_path / "out")
    other = with_changes(settings, {"learning_rate": "0.5"})
    with pytest.raises(InputError, match="expected the settings of the checkpoint; got learning_rate = 0.5"):
        run_training("masr-net", other, by_folder, tmp_path / "out", resume=True)


def test_the_command_trains(by_folder, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"learning_rate": 0.01}))
    changes = [f"{key}={value}" for key, value in SMALL.items()]
    arguments = ["train", "masr-net", "--config", str(config), "--data", str(by_folder), "--output"]
    arguments += [str(tmp_path / "out"), "--device", "cpu", "--set", *changes]
    assert main(arguments) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["learning_rate"] == 0.01
    curves = read_curves(tmp_path / "out" / "curves.csv")
    assert [step for step, _ in curves["training", "contrastive"]] == [2, 4]
    assert main(arguments) == 2
    assert "or --resume" in capsys.readouterr().err


def test_settings_are_shown_without_data_and_mistakes_named(tmp_path, capsys):
    assert main(["train", "masr-net", "--show"]) == 0
    assert "temperature = 0.07" in capsys.readouterr().out
    for arguments, message in (
        (["masr-net"], "expected --data and --output"),
        (["masr-nit", "--show"], "did you mean 'masr-net'?"),
        (["masr-net", "--show", "--set", "sample=3"], "did you mean 'samples'?"),
        (["masr-net", "--show", "--config", str(tmp_path / "none.json")], "expected a configuration in JSON"),
        (["masr-net", "--data", str(tmp_path / "no"), "--output", str(tmp_path / "o")], "expected a folder with"),
    ):
        assert main(["train", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", recipes())
def test_every_network_has_a_recipe_with_settings_that_explain_themselves(name):
    recipe = find_recipe(name)
    assert recipe.network_class is find_network(name)
    settings = read_settings(recipe, None)
    assert settings == recipe.settings_class()
    assert type(settings.network) is recipe.network_class.settings_class
    assert recipe.__doc__
    assert all(shown.help.endswith(".") for shown in describe(settings))


def test_every_network_can_be_trained():
    assert set(recipes()) == set(networks())


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.json")), ids=lambda path: path.stem)
def test_the_configurations_of_the_benchmarks_are_valid(path):
    recipe = next(recipe for name, recipe in recipes().items() if path.stem.startswith(name))
    assert read_settings(recipe, path) != recipe.settings_class()


def test_what_a_group_leaves_out_keeps_the_defaults_of_the_recipe(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"similarity": {"mind_radius": 1}}))
    for name, norm in (("gradient-guided", "l1"), ("multiprop", "l2")):
        similarity = read_settings(find_recipe(name), path).similarity
        assert (similarity.mind_radius, similarity.mind_norm) == (1, norm)


def test_a_cancelled_training_says_how_to_go_on(by_folder, tmp_path, capsys, monkeypatch):
    def cancelled(*arguments, monitor, **options):
        monitor.cancel()
        monitor.report("step 0", 0.0)

    monkeypatch.setattr("MMRegCore.training.run.run_training", cancelled)
    assert main(["train", "masr-net", "--data", str(by_folder), "--output", str(tmp_path / "out")]) == 3
    assert "cancelled; go on with --resume" in capsys.readouterr().err
