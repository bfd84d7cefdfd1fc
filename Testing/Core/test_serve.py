"""``mmreg serve``: several commands in one process, the same results as by several, nothing held in between."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from MMRegCore.cli import main
from MMRegCore.geometry import Grid
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import write_volume
from quick import SET_QUICK
from scenes import scene, translation

pytestmark = pytest.mark.slow

KIB_PER_MIB = 1024


class Server:
    """A real process, and what it says."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "MMRegCore", "serve", *arguments]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, encoding="utf-8", **pipes)

    def send(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def events(self, last: str) -> list[dict]:
        """What comes up to an event."""
        found = []
        while not found or found[-1].get("event") != last:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            found.append(json.loads(line))
        return found

    def run(self, arguments: list[str]) -> list[dict]:
        self.send(json.dumps({"arguments": arguments}))
        return self.events("exit")

    def memory_kib(self, name: str) -> int:
        """The value of a line of /proc/…/status."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.process:
        yield made
        made.process.kill()


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> list[list[str]]:
    """Two registrations that differ in image, shift and threads; what follows is the output folder."""
    folder, grid = tmp_path_factory.mktemp("case"), Grid((40, 40, 40), np.eye(4))
    write_volume(scene(grid), folder / "us.nrrd")
    made = []
    for name, shift, more in (("a", (2.0, -1.0, 1.5), ["--threads", "2"]), ("b", (-1.0, 2.0, 0.5), [])):
        write_volume(scene(grid, translation(np.array(shift)).apply_inverse, inverted=True), folder / f"{name}.nrrd")
        images = ["--fixed", str(folder / "us.nrrd"), "--moving", str(folder / f"{name}.nrrd")]
        options = [*SET_QUICK, "--device", "cpu", "--transform-only", "--json-progress", *more]
        made.append(["register", *images, *options, "--output"])
    return made


def found(folder: Path) -> tuple[np.ndarray, dict, int]:
    """Where the transform takes some points, the quality, the number of threads."""
    points = np.random.default_rng(0).uniform(-15, 15, (50, 3))
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return read_transform(folder / "transform.h5").apply(points), content["quality"], content["provenance"]["threads"]


def test_two_registrations_are_those_of_two_processes_and_the_second_starts_at_once(server, commands, tmp_path):
    server.events("ready")
    for name, command in zip("ab", commands, strict=True):
        start = time.perf_counter()
        server.send(json.dumps({"arguments": [*command, str(tmp_path / f"warm {name}")]}))
        first = server.events("progress")[-1]
        start_s = time.perf_counter() - start
        assert first["stage"] == "preparing the images"
        assert start_s < 1
        lines = server.events("exit")
        assert [line["event"] for line in lines[-2:]] == ["done", "exit"]
        assert lines[-1]["code"] == 0
        verdict = next(line for line in lines if line["event"] == "transform")["verdict"]

        cold = tmp_path / f"cold {name}"
        subprocess.run([sys.executable, "-m", "MMRegCore", *command, str(cold)], check=True, capture_output=True)
        of_warm, of_cold = found(tmp_path / f"warm {name}"), found(cold)
        np.testing.assert_array_equal(of_warm[0], of_cold[0])
        assert of_warm[1:] == of_cold[1:]
        assert of_warm[1]["verdict"] == verdict


def test_what_cannot_be_read_is_one_error_and_the_next_command_runs(server, tmp_path):
    server.events("ready")
    for line in ("register", '["register"]', '{"arguments": "register"}', '{"arguments": [1]}', "", "{" * 500):
        server.send(line)
        error, end = server.events("exit")
        assert error["kind"] == "InputError"
        assert error["message"].startswith('error: expected a line such as {"arguments": ["register", …]}; got ')
        assert len(error["message"]) < 200
        assert end == {"event": "exit", "code": 2}
    images = ["--fixed", "nowhere.nrrd", "--moving", "nowhere.nrrd", "--output", str(tmp_path / "out")]
    error, end = server.run(["register", "--json-progress", *images])
    assert "nowhere.nrrd, which does not exist" in error["message"]
    assert end["code"] == 2
    assert server.run(["apply"])[-1]["code"] == 2
    assert not (tmp_path / "out").exists()


def test_it_ends_with_its_stdin_after_the_command_that_came_before(server, commands, tmp_path):
    server.send(json.dumps({"arguments": [*commands[1], str(tmp_path / "out")]}))
    server.process.stdin.close()
    assert server.events("exit")[-1]["code"] == 0
    assert server.process.wait(30) == 0
    assert server.process.stderr.read() == ""


def test_it_ends_when_it_is_idle_for_long():
    idle = Server("--idle-minutes", "0.001")
    with idle.process:
        idle.events("ready")
        assert idle.process.wait(30) == 0
        assert idle.process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly_while_it_is_idle(server, number):
    server.events("ready")
    server.process.send_signal(number)
    assert server.process.wait(30) == 3
    assert server.process.stderr.read() == "mmreg: cancelled; nothing was written\n"


def test_a_command_within_a_command_says_a_warning_once(monkeypatch, capsys):
    calls = []

    def warn_within(name: str) -> str:
        calls.append(name)
        if len(calls) == 1:
            assert main(["presets"]) == 0
        elif len(calls) == 2:
            logging.getLogger("MMRegCore.config").warning("careful")
        return ""

    monkeypatch.setattr("MMRegCore.config.preset_description", warn_within)
    assert main(["presets"]) == 0
    assert capsys.readouterr().err == "mmreg: warning: careful\n"
    assert len(calls) > 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_given_back(server, commands, tmp_path):
    server.events("ready")
    before = server.memory_kib("VmRSS")
    command = [each for each in commands[1] if each != "--transform-only"]
    assert server.run([*command, str(tmp_path / "out")])[-1]["code"] == 0
    peak_kib = json.loads((tmp_path / "out" / "result.json").read_text())["provenance"]["peak_memory_bytes"] / 1024
    # It is given back after the exit was told: until then the process may well be at its peak.
    limit = min(before + 100 * KIB_PER_MIB, peak_kib - 10 * KIB_PER_MIB)
    deadline = time.monotonic() + 30
    while server.memory_kib("VmRSS") >= limit or server.memory_kib("VmHWM") > server.memory_kib("VmRSS") + KIB_PER_MIB:
        assert time.monotonic() < deadline, (server.memory_kib("VmRSS"), server.memory_kib("VmHWM"), limit)
        time.sleep(0.05)
