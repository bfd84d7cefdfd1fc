"""The training loop: an interrupted and resumed training ends as an uninterrupted one; files are written atomically."""

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from MMRegCore.errors import Cancelled, InputError
from MMRegCore.monitor import Monitor
from MMRegCore.networks.protocol import Network
from MMRegCore.settings import Settings, setting
from MMRegCore.training.engine.checkpoint import read_checkpoint, write_checkpoint
from MMRegCore.training.engine.curves import Curves, read_curves
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.engine.loop import train
from MMRegCore.training.engine.recipe import Recipe
from MMRegCore.training.settings import RecipeSettings, TrainingSettings

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LineSettings(Settings):
    width: int = setting(3, help="Hidden units.")


class LineNetwork(Network):
    name = "line"
    settings_class = LineSettings

    def __init__(self, settings):
        super().__init__(settings)
        torch.manual_seed(7)
        self.layers = nn.Sequential(nn.Linear(1, settings.width), nn.Dropout(0.2), nn.Linear(settings.width, 1))

    def forward(self, x):
        return self.layers(x)


@dataclass(frozen=True)
class LineTraining(RecipeSettings):
    network: LineSettings = LineSettings()
    learning_rate: float = setting(0.05, help="Of Adam.")


class Line(Recipe):
    """Fits y = 2x + noise; noise from the step's stream and from torch's global one, and a λ learned along."""

    network_class, settings_class, score = LineNetwork, LineTraining, "closeness"

    def __init__(self, context=None):
        super().__init__(LineTraining(), None, context or ProcessContext(CPU))
        self.weight = 1.0

    def draw(self, generator):
        x = torch.rand(8, 1, generator=generator) * 2 - 1
        return x, 2 * x

    def loss(self, batch, generator):
        x, y = batch
        noise = 0.01 * torch.randn(y.shape, generator=generator) + 0.01 * torch.randn(y.shape)
        loss = self.weight * (self.network(x) - y - noise).square().mean()
        self.weight *= 0.99
        return {"loss": loss, "weight": torch.tensor(self.weight)}

    def validate(self):
        self.network.eval()
        with torch.no_grad():
            x = torch.linspace(-1, 1, 9)[:, None]
            error = (self.network(x) - 2 * x).square().mean()
        self.network.train()
        return {"closeness": -float(error)}

    def state_dict(self):
        return {**super().state_dict(), "weight": self.weight}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.weight = state["weight"]


def cancel_at(step):
    monitor = Monitor()
    monitor._listener = lambda stage, fraction: monitor.cancel() if stage.startswith(f"step {step - 1} ") else None
    return monitor


def files(folder):
    cards = {p.name: json.loads(p.read_text()) for p in folder.glob("*.json")}
    for card in cards.values():
        card.pop("seconds")
    others = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".safetensors", ".csv")}
    return {**cards, **others}


@pytest.mark.parametrize("averaging", [0.0, 0.8])
@pytest.mark.parametrize("at", [1, 7, 10, 13])
def test_an_interrupted_training_ends_as_an_uninterrupted_one_bit_by_bit(tmp_path, at, averaging):
    settings = TrainingSettings(steps=20, validate_every=5, seed=3, averaging=averaging)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    scores = train(Line(), settings, whole)
    with pytest.raises(Cancelled):
        train(Line(), settings, parts, monitor=cancel_at(at))
    torch.manual_seed(99)  # what the process drew before does not matter
    assert train(Line(), settings, parts, resume=True) == scores
    assert files(parts) == files(whole)
    first, second = (read_checkpoint(folder / "checkpoint.pt", CPU) for folder in (whole, parts))
    for name, tensor in first["recipe"]["network"].items():
        assert torch.equal(tensor, second["recipe"]["network"][name])


def test_what_is_saved_and_scored_is_the_running_average_of_the_weights(tmp_path):
    """avg ← d avg + (1 - d) w with d = min(0.9, t / (t + 10)), while the training itself goes on as without."""
    recorded = []

    class Recording(Line):
        def step(self, batch, generator):
            losses = super().step(batch, generator)
            recorded.append({name: value.clone() for name, value in self.network.state_dict().items()})
            return losses

    folders = [tmp_path / "plain", tmp_path / "averaged"]
    for folder, averaging in zip(folders, (0.0, 0.9), strict=True):
        folder.mkdir()
        train(Recording(), TrainingSettings(steps=30, validate_every=30, averaging=averaging), folder)
    plain, averaged = recorded[:30], recorded[30:]
    assert all(torch.equal(one[n], two[n]) for one, two in zip(plain, averaged, strict=True) for n in one)
    expected = {name: value.clone() for name, value in Line().network.state_dict().items()}
    for step, weights in enumerate(averaged, start=1):
        decay = min(0.9, step / (step + 10))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in expected}
    saved = [load_file(folder / "last.safetensors") for folder in folders]
    torch.testing.assert_close(saved[1], expected)
    assert all(torch.equal(saved[0][name], plain[-1][name]) for name in expected)
    line = Line()
    line.network.load_state_dict(expected)
    scores = [json.loads((folder / "last.json").read_text())["scores"]["closeness"] for folder in folders]
    assert scores[1] == pytest.approx(line.validate()["closeness"], rel=1e-4)
    assert scores[0] != scores[1]


def test_another_seed_is_another_training(tmp_path):
    results = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(results))
        folder.mkdir()
        train(Line(), TrainingSettings(steps=3, seed=seed), folder)
        results.append((folder / "last.safetensors").read_bytes())
    assert results[0] == results[1] != results[2]


def test_training_leaves_the_callers_random_stream_alone(tmp_path):
    torch.manual_seed(5)
    line = Line()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(line, TrainingSettings(steps=2), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_it_learns_and_the_best_weights_are_kept(tmp_path):
    class Worse(Line):
        def validate(self):
            scores = super().validate()
            return {"closeness": -100.0 if self.weight < 0.99**12 else scores["closeness"]}

    recipe = Worse()
    train(recipe, TrainingSettings(steps=20, validate_every=5), tmp_path)
    best, last = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("best", "last"))
    assert best["steps"] == 10
    assert last["steps"] == 20
    assert best["settings"] == {"width": 3}
    assert best["parameters"] == 10
    assert best["scores"]["closeness"] > last["scores"]["closeness"] == -100.0
    for name, tensor in load_file(tmp_path / "last.safetensors").items():
        assert torch.equal(tensor, recipe.network.state_dict()[name])


def test_the_curves_hold_means_of_losses_and_all_scores(tmp_path):
    curves = Curves()
    for step, loss in enumerate([1.0, 2.0, 6.0], start=1):
        curves.add(step, {"loss": loss})
    curves.close(3, {"dice": 0.5})
    curves.add(4, {"loss": 4.0})
    curves.close(4, {"dice": 0.75})
    curves.write(tmp_path / "curves.csv")
    read = read_curves(tmp_path / "curves.csv")
    assert read == {("training", "loss"): [(3, 3.0), (4, 4.0)], ("validation", "dice"): [(3, 0.5), (4, 0.75)]}


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    class Diverging(Line):
        def draw(self, generator):
            return (torch.full((8, 1), float("nan")),) * 2

    with pytest.raises(InputError, match="expected finite losses; got nan as 'loss' at step 1"):
        train(Diverging(), TrainingSettings(steps=2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_overwritten_unasked_and_not_missed(tmp_path):
    with pytest.raises(InputError, match="expected a checkpoint to resume from"):
        train(Line(), TrainingSettings(steps=1), tmp_path, resume=True)
    train(Line(), TrainingSettings(steps=1), tmp_path)
    with pytest.raises(InputError, match="or --resume"):
        train(Line(), TrainingSettings(steps=1), tmp_path)


def test_a_checkpoint_is_written_atomically(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"step": 1})
    with pytest.raises(TypeError):
        write_checkpoint(path, {"step": (n for n in ())})  # cannot be written
    assert read_checkpoint(path, CPU) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"expected a checkpoint of a training; got .*checkpoint\.pt"):
        read_checkpoint(path, CPU)


@pytest.mark.parametrize("part", ["recipe", "averaged"])
def test_a_checkpoint_of_another_version_is_refused(tmp_path, part):
    train(Line(), TrainingSettings(steps=1), tmp_path)
    path = tmp_path / "checkpoint.pt"
    state = read_checkpoint(path, CPU)
    del state[part]
    write_checkpoint(path, state)
    with pytest.raises(InputError, match=rf"checkpoint of this version of MMReg; .*checkpoint\.pt has no {part}"):
        train(Line(), TrainingSettings(steps=2), tmp_path, resume=True)


def test_mixed_precision_computes_in_bfloat16_where_asked():
    layer = nn.Linear(2, 2)
    for mixed, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with ProcessContext(CPU, mixed=mixed).autocast():
            assert layer(torch.rand(1, 2)).dtype == dtype


def test_two_processes_average_their_gradients(tmp_path):
    """Under torchrun with gloo: both end with the weights that averaging by hand gives; one of them writes."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, torch
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from test_training_loop import Line, TrainingSettings, train
            from MMRegCore.training.engine.distributed import process_context
            folder = Path({str(tmp_path)!r}) / "out"
            folder.mkdir(exist_ok=True)
            with process_context("cpu") as context:
                recipe = Line(context)
                recipe.network.layers[1].p = 0.0
                train(recipe, TrainingSettings(steps=4, seed=1), folder, context=context)
                torch.save(recipe.network.state_dict(), folder / f"rank{{context.rank}}.pt")
            """
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    finished = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    ranks = [torch.load(tmp_path / "out" / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    expected = averaged_by_hand()
    for name, tensor in ranks[0].items():
        assert torch.equal(tensor, ranks[1][name])
        torch.testing.assert_close(tensor, expected[name])
    assert (tmp_path / "out" / "checkpoint.pt").exists()


def averaged_by_hand():
    recipe = Line()
    recipe.network.layers[1].p = 0.0
    optimiser = torch.optim.Adam(recipe.network.parameters(), lr=0.05)
    for step in range(4):
        gradients = []
        for rank in (0, 1):
            generator = ProcessContext(CPU, rank, 2).generator(1, step)
            x, y = recipe.draw(generator)
            noise = 0.01 * torch.randn(y.shape, generator=generator) + 0.01 * torch.randn(y.shape)
            loss = recipe.weight * (recipe.network(x) - y - noise).square().mean()
            gradients.append(torch.autograd.grad(loss, list(recipe.network.parameters())))
        for parameter, one, two in zip(recipe.network.parameters(), *gradients, strict=True):
            parameter.grad = (one + two) / 2
        optimiser.step()
        recipe.weight *= 0.99
    return recipe.network.state_dict()
