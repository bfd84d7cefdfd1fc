"""All that runs on a GPU, on one that is emulated and on a real one where there is one; how often the host waits."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main as benchmarks
from emulated_device import CUDA, OnDevice, Traffic, emulated_device
from MMRegCore import register
from MMRegCore.config import RegistrationSettings, load_preset, with_changes
from MMRegCore.geometry import Grid
from MMRegCore.io.volumes import write_volume
from MMRegCore.monitor import Monitor
from MMRegCore.networks import networks
from MMRegCore.networks.protocol import TrainingDomain
from MMRegCore.ops import matrix_exp
from MMRegCore.optimisation.coupled_convex import solve as balance
from MMRegCore.optimisation.instance import Level, optimise_levels, refine_field
from MMRegCore.optimisation.inverse_consistency import make_inverse_consistent
from MMRegCore.optimisation.lbfgs import minimise
from MMRegCore.optimisation.settings import InstanceSettings
from MMRegCore.prepare import prepare
from MMRegCore.records import to_json
from MMRegCore.search.motion_model import MotionModel
from MMRegCore.search.rigid import posterior_cost
from MMRegCore.search.sampled import Evidence, SampledSimilarity
from MMRegCore.search.settings import MotionPriorSettings
from MMRegCore.settings import with_changes as with_setting
from MMRegCore.similarity import patch_similarity, similarity_names
from MMRegCore.training.data.subjects import read_training_data
from MMRegCore.training.engine.checkpoint import write_weights
from MMRegCore.training.engine.distributed import ProcessContext
from MMRegCore.training.recipes import find_recipe, recipes
from MMRegCore.training.run import run_training
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from scenes import box, scene

pytestmark = pytest.mark.slow

REAL = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]
GRID = box((16, 16, 16), 2.0)
_SEARCH = {"sampling_spacing_mm": "5,4", "half_width": "1,1", "starts": "27", "range_mm": "3", "extended_range_mm": "3"}
_MCBO = {"mcbo.half_width": "1", "mcbo.instance.iterations": "2", "mcbo.inverse_consistency_iterations": "2"}
_DNS = {"scales": "0.5,1", "iterations": "2,1", "learning_rate": "0.01,0.005", "regularisation": "1,1"}
_SELECTION = {"model_selection.sampling_spacing_mm": "4", "model_selection.half_width": "1"}
# Coarse and short; the way through the pipeline is the whole one.
CHANGES = {
    "lc2": {
        "working_spacing_mm": "2",
        "lc2.iterations": "3",
        **{f"lc2.search.{key}": value for key, value in _SEARCH.items()},
        **_SELECTION,
    },
    "mcbo": {"mcbo.strides": "2,4", "mcbo.weights": "1/2,1/2", **_MCBO, **_SELECTION},
    "mcbo-published": {"mcbo.strides": "1,2", "mcbo.weights": "1/2,1/2", **_MCBO},
    "mcbo-clem": {"mcbo.strides": "1,2", "mcbo.weights": "1/2,1/2", **_MCBO},
    "dns-mr": {f"dns.{key}": value for key, value in _DNS.items()},
    "dns": {
        "working_spacing_mm": "2",
        **{f"dns.{key}": value for key, value in _DNS.items()},
        **{f"dns.search.{key}": value for key, value in _SEARCH.items()},
        **_SELECTION,
    },
}
SMALL_NETWORKS = {
    "multiprop": {"features": "4,4", "matching": "4", "context": "4"},
    "gradient-guided": {"encoder": "4,4", "decoder": "4,4", "refinement": "4"},
    "lapirn": {"start_channels": "1", "residual_blocks": "1"},
    "masr-net": {"channels": "2,2,2,2"},
    "brain-unet": {"channels": "2,2,2,2"},
}
SMALL_TRAININGS = {
    "multiprop": {"training.steps": "2", "label_weight": "0.5", "bilevel.every": "1"},
    "masr-net": {"samples": "20", "validation_pairs": "1", "patches.crop_voxel": "16"},
    "brain-unet": {"validation_heads": "1", "heads.whole_voxel": "32,32,32", "heads.crop_voxel": "32,32"},
}


@pytest.fixture(params=["emulated", pytest.param("real", marks=REAL)])
def traffic(request, monkeypatch):
    """What is counted of an emulated GPU; of a real one, None."""
    if request.param == "real":
        yield None
        return
    with emulated_device(monkeypatch) as counted:
        yield counted


@pytest.fixture
def counted(monkeypatch):
    """The emulated GPU's alone."""
    with emulated_device(monkeypatch) as counted:
        yield counted


@pytest.fixture(scope="module")
def images():
    """A pair that is moved by about two millimetres, in two contrasts."""
    moved = scene(GRID, lambda points: points + np.array([1.5, -1.0, 0.7]), inverted=True, name="mr")
    return scene(GRID, name="us"), moved


@pytest.fixture
def prepared(images):
    fixed, moving = images
    return prepare(fixed, [moving], SpatialTransform.identity(), spacing_mm=2.0, masked=True, margin_mm=4.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ball within a ball, for trainings."""
    root, stream = tmp_path_factory.mktemp("data"), torch.Generator().manual_seed(0)
    grid = Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
    distance = np.linalg.norm(grid.points_ras() - grid.centre_ras, axis=-1)
    for number, split in enumerate(("training", "training", "validation", "validation")):
        labels = torch.from_numpy((distance < 11 + number).astype(np.float32) + (distance < 6))[None]
        subject = root / split / f"s{number}"
        subject.mkdir(parents=True)
        write_volume(Volume(labels, grid), subject / "labels.nii.gz", dtype="uint8")
        for name in ("t1", "t2"):
            values = labels + 0.1 * torch.rand(labels.shape, generator=stream)
            write_volume(Volume(values, grid), subject / f"{name}.nii.gz")
    return root


def network_settings(name):
    changed = with_setting(networks()[name].settings_class(), SMALL_NETWORKS[name])
    return (
        changed if name in ("masr-net", "brain-unet") else replace(changed, trained_on=TrainingDomain(spacing_mm=2.0))
    )


def training_settings(name):
    changes = {"training.steps": "1", "training.validate_every": "1", **SMALL_TRAININGS.get(name, {})}
    settings = with_setting(find_recipe(name).settings_class(), changes)
    return replace(settings, network=network_settings(name))


def preset(name: str) -> RegistrationSettings:
    return with_changes(load_preset(name), CHANGES[name])


def agree(images, settings) -> None:
    """The GPU finds what the CPU finds, and measures the same."""
    cpu, gpu = (register(*images, settings=settings, device=name) for name in ("cpu", "cuda"))
    assert gpu.provenance.device == "cuda:0"
    points = GRID.points_ras()[::3, ::3, ::3].reshape(-1, 3)
    assert np.linalg.norm(cpu.transform.apply(points) - gpu.transform.apply(points), axis=1).mean() < 0.05
    one, other = (flat(to_json(result.assessment.quality)) for result in (cpu, gpu))
    assert one.keys() == other.keys()
    assert [key for key in one if not alike(one[key], other[key])] == []


def alike(one, other) -> bool:
    """Whether two numbers are, to the second digit, or two texts are the same."""
    number = isinstance(one, float) and isinstance(other, float)
    return one == (pytest.approx(other, rel=0.05, abs=0.05) if number else other)


def flat(content, key=""):
    """Every number and text of a tree by its path."""
    if not isinstance(content, dict | list | tuple):
        return {key: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return {path: value for name, part in items for path, value in flat(part, f"{key}.{name}").items()}


# The host waits so often for one step of a training, and for one registration besides each evaluation of L-BFGS.
WAITS_OF_A_STEP = {"multiprop": 18, "gradient-guided": 7, "lapirn": 4, "masr-net": 5}
WAITS = {"lc2": 99, "mcbo": 59, "mcbo-published": 9, "mcbo-clem": 9, "dns-mr": 21, "dns": 112}


class TestRegistration:
    @pytest.mark.parametrize("name", CHANGES)
    def test_presets(self, traffic, images, name):
        agree(images, preset(name))
        if traffic:
            waits = traffic.total() - traffic.total("lbfgs._values_and_gradients")
            assert waits == WAITS[name], traffic.to_host

    @pytest.mark.parametrize("name", ["gradient-guided", "lapirn", "multiprop"])
    def test_presets_of_networks(self, traffic, images, tmp_path, name):
        torch.manual_seed(0)
        network = networks()[name](network_settings(name))
        write_weights(network, tmp_path / "w.safetensors")
        changes = {"network.weights": str(tmp_path / "w.safetensors"), "network.precision": "float32"}
        agree(images, with_changes(load_preset(name), changes))

    def test_every_preset_is_here(self):
        from MMRegCore.config import preset_names

        assert set(preset_names()) == {*CHANGES, "gradient-guided", "lapirn", "multiprop"}


class TestTraining:
    @pytest.mark.parametrize("name", recipes())
    def test_recipes(self, traffic, folder, tmp_path, name):
        scores = run_training(name, training_settings(name), folder, tmp_path / "gpu", device="cuda")
        assert all(np.isfinite(value) for value in scores.values())
        if traffic:  # a real GPU has random numbers of its own
            cpu = run_training(name, training_settings(name), folder, tmp_path / "cpu", device="cpu")
            assert scores == pytest.approx(cpu, rel=0.01, abs=0.01)

    @pytest.mark.parametrize("name", recipes())
    def test_how_often_a_step_waits(self, counted, folder, name):
        context = ProcessContext(CUDA)
        recipe = find_recipe(name)(training_settings(name), read_training_data(folder), context)
        generator = context.generator(0, 0)
        batch = recipe.draw(generator)
        before = counted.total()
        recipe.step(batch, generator)
        assert counted.total() - before == WAITS_OF_A_STEP[name], counted.to_host


class TestInnerLoops:
    def test_lbfgs_waits_once_for_an_evaluation(self, counted, prepared):
        there = prepared.to(CUDA)
        sampled = SampledSimilarity.of(there, patch_similarity("lc2", 1), 4.0)
        model = MotionModel.of(there, MotionPriorSettings())
        cost, calls = posterior_cost(Evidence(((1.0, sampled),)), model, 200.0), []
        start = model.identity()
        minimise(cost, [start], iterations=0, first_step=0.5, tolerance=0.0)  # makes what stays the same
        to_host, to_device = counted.total(), sum(counted.to_device.values())
        settings = {"iterations": 4, "first_step": 0.5, "tolerance": 0.0}
        (found,) = minimise(lambda points: calls.append(1) or cost(points), [start], **settings)
        assert len(calls) >= 4
        assert isinstance(found.parameters, OnDevice)
        # And once for the start, which is brought to the host.
        assert counted.total() - to_host == len(calls) + 1
        assert sum(counted.to_device.values()) - to_device == len(calls) + 1

    @pytest.mark.parametrize("loop", ["levels", "field", "coupled", "consistency"])
    def test_others_do_not_wait_at_all(self, counted, loop):
        stream = torch.Generator().manual_seed(0)
        fixed, moving = (torch.rand(1, 3, 8, 8, 8, generator=stream).to(CUDA) for _ in range(2))
        weight, start = torch.ones(1, 1, 8, 8, 8).to(CUDA), torch.zeros(1, 3, 16, 16, 16).to(CUDA)
        cost = torch.rand(27, 8, 8, 8, generator=stream).to(CUDA)
        how = {"parametrisation": "velocity", "unit": True, "monitor": Monitor()}
        runs = {
            "levels": lambda n: optimise_levels(fixed, [moving], [weight], [Level(1.0, n, 0.01, 1.0)], **how),
            "field": lambda n: refine_field(fixed, [moving], start, InstanceSettings(iterations=n)),
            "coupled": lambda n: balance(cost, [0.1] * n, average_iterates=True),
            "consistency": partial(make_inverse_consistent, fixed, moving),
        }
        waits = []
        for iterations in (2, 2, 6):  # the first makes constants
            before = counted.total() + sum(counted.to_device.values())
            runs[loop](iterations)
            waits.append(counted.total() + sum(counted.to_device.values()) - before)
        assert waits[1] == waits[2]


class TestArithmetic:
    @pytest.mark.parametrize("name", similarity_names())
    def test_every_measure(self, traffic, prepared, name):
        values = []
        for device in (torch.device("cpu"), CUDA):
            sampled = SampledSimilarity.of(prepared.to(device), patch_similarity(name, 1), 4.0)
            values.append(float(sampled.mean(sampled.points + 0.3)))
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-4)

    def test_matrix_exponential(self, traffic):
        matrices = torch.randn(50, 3, 3, generator=torch.Generator().manual_seed(0))
        matrices *= 3 / torch.linalg.matrix_norm(matrices, 2)[:, None, None]
        found, expected = matrix_exp(matrices.to(CUDA)).cpu(), torch.matrix_exp(matrices.double())
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


class TestEmulation:
    """What the emulated GPU refuses and counts; a real one refuses the same."""

    def test_devices_do_not_mix(self, traffic):
        here, there = torch.ones(3), torch.ones(3, device=CUDA)
        assert str(there.device) == "cuda:0"
        for mixed in (
            lambda: here + there,
            lambda: there.add_(here),
            lambda: torch.stack([here, there]),
            lambda: here[there.long()],
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2]
        assert there[torch.tensor([0, 1])].tolist() == [1, 1]
        with pytest.raises(TypeError):
            there.numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=torch.Generator(), device=CUDA)

    def test_written_in_place(self, traffic):
        values = torch.zeros(4, device=CUDA)
        values[1:3].add_(1)
        torch.mul(values[:1], 2, out=values[3:]).add_(3)
        assert values.tolist() == [0, 1, 1, 3]
        weights = torch.ones(2, device=CUDA, requires_grad=True)
        (weights.square().sum() * 3).backward()
        assert weights.grad.tolist() == [6, 6]

    @pytest.mark.parametrize(
        ("waiting", "count"),
        [
            (lambda x: x.cpu(), 1),
            (lambda x: x.to("cpu").to("cpu"), 1),
            (lambda x: x.tolist(), 1),
            (lambda x: float(x.sum()), 1),
            (lambda x: bool(x.any()), 1),
            (lambda x: x.nonzero(), 1),
            (lambda x: x[x > 0], 1),
            (torch.linalg.inv, 1),
            (lambda x: x.masked_fill(x > 0, 1) @ x, 0),
            (lambda x: x.to(CUDA).amax(dim=0), 0),
        ],
    )
    def test_what_waits(self, counted: Traffic, waiting, count):
        there = torch.eye(3).to(CUDA)
        assert sum(counted.to_device.values()) == 1
        waiting(there)
        assert counted.total() == count


def test_the_benchmark_needs_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu"])
    assert benchmarks() == 2
    assert capsys.readouterr().err.startswith("expected a GPU; PyTorch")
