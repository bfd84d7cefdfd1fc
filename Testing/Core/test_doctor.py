"""``mmreg doctor``: what the computer offers, and the self-test by the default preset."""

import json

import pytest
import torch

from MMRegCore import doctor
from MMRegCore.cli import main
from MMRegCore.errors import Cancelled, DeviceError, InputError
from MMRegCore.monitor import Monitor
from MMRegCore.transform import SpatialTransform

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def findings() -> dict:
    """Of one run on this computer."""
    return doctor.examine(device="cpu")


def test_the_self_test_passes(findings):
    test = findings["self_test"]
    assert test["passed"]
    assert test["error_after_mm"] < 0.1 * test["error_before_mm"]
    json.dumps(findings, allow_nan=False)


def test_versions_and_computer_are_named(findings):
    assert findings["versions"]["torch"] == torch.__version__
    assert findings["computer"]["torch_threads"] == torch.get_num_threads()
    text = doctor.as_text(findings)
    assert "self-test     passed in" in text
    assert all(version in text for version in findings["versions"].values())


def test_the_command_prints_json_and_exits_with_0(findings, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda **_: findings)
    assert main(["doctor", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == findings
    assert main(["doctor"]) == 0
    assert "self-test     passed" in capsys.readouterr().out


class _Unmoved:
    transform = SpatialTransform.identity()


def test_the_self_test_runs_the_default_preset_with_model_selection(monkeypatch):
    settings = []

    def register(fixed, moving, **options):
        settings.append(options["settings"])
        return _Unmoved

    monkeypatch.setattr(doctor, "register", register)
    doctor.self_test()
    assert settings[0].method == "lc2"
    assert settings[0].model_selection.enabled


def test_a_wrong_result_fails_with_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "register", lambda *_, **__: _Unmoved)
    assert main(["doctor", "--device", "cpu"]) == 1
    assert "self-test     FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("error", [InputError("expected sense"), RuntimeError("a broken installation")])
def test_an_error_fails_and_is_named(capsys, monkeypatch, error):
    def register(*_, **__):
        raise error

    monkeypatch.setattr(doctor, "register", register)
    assert main(["doctor", "--device", "cpu"]) == 1
    assert str(error) in capsys.readouterr().out


def test_cancelling_takes_effect():
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled):
        doctor.self_test(device="cpu", monitor=monitor)


def test_an_absent_device_is_bad_input(capsys):
    with pytest.raises(DeviceError, match="cuda:99"):
        doctor.self_test(device="cuda:99")
    assert main(["doctor", "--device", "cuda:99"]) == 2
    assert "cuda:99" in capsys.readouterr().err
