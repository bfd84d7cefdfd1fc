"""Testing/run: a tier that cannot run is left out loudly, and in CI that is a failure."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell script")


@pytest.fixture
def run(tmp_path):
    """``run(lacks=…, …)``: what the script does where Python lacks a module; pytest is not started, only named."""

    def make(lacks: str, *, distribution: bool = False, system: str = "", **environment: str):
        python = tmp_path / "python"
        python.write_text(
            f"""#!/bin/bash
if [ "$1" = -m ]; then echo "RAN $*"; echo "$OMP_NUM_THREADS" > {tmp_path}/threads; exit 0; fi
case "$2" in
    *importlib.metadata*) exit {0 if distribution else 1};;
    *{lacks}*) [ -e {tmp_path}/installed ] || {{ echo "no {lacks}" >&2; exit 1; }};;
esac
"""
        )
        for name, text in {"apt-get": f'echo "$*" >> {tmp_path}/apt\ntouch {tmp_path}/installed', "id": system}.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        for path in tmp_path.iterdir():
            path.chmod(0o755)
        known = {key: value for key, value in os.environ.items() if key not in ("CI", "OMP_NUM_THREADS")}
        return subprocess.run(
            ["bash", str(ROOT / "Testing" / "run"), "-q"],
            env={**known, "PYTHON": str(python), "PATH": f"{tmp_path}:{known['PATH']}", **environment},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return make


def test_all_tiers_run_where_all_is_there(run):
    finished = run(lacks="nothing-of-the-kind", system="echo 1000")
    assert finished.stdout.splitlines() == ["RAN -m pytest -q"]
    assert finished.stderr == ""


@pytest.mark.parametrize(("options", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "4"}, "4")])
def test_tests_use_one_thread_unless_asked_for_more(run, tmp_path, options, threads):
    run(lacks="nothing-of-the-kind", system="echo 1000", **options)
    assert (tmp_path / "threads").read_text().strip() == threads


@pytest.mark.parametrize(
    ("lacks", "named", "ignored"),
    [
        ("slicer", "THE SCENE TESTS AND THE WIDGET TESTS", "--ignore=Testing/Slicer"),
        ("PySide6", "THE WIDGET TESTS", "--ignore=Testing/Slicer/test_widget.py"),
    ],
)
def test_a_tier_that_cannot_run_is_left_out_loudly_and_fails_in_ci(run, lacks, named, ignored):
    here = run(lacks, system="echo 1000")
    assert (here.returncode, f"LEFT OUT: {named}" in here.stderr) == (0, True)
    assert here.stdout.splitlines() == [f"RAN -m pytest {ignored} -q"]
    in_ci = run(lacks, system="echo 1000", CI="true")
    assert in_ci.returncode == 1
    assert "in CI no tier may be left out" in in_ci.stderr
    assert "RAN" not in in_ci.stdout


def test_as_root_on_debian_the_system_libraries_are_installed(run, tmp_path):
    finished = run("PySide6", distribution=True, system="echo 0", CI="true")
    assert finished.returncode == 0
    assert finished.stdout.splitlines()[-1] == "RAN -m pytest -q"
    assert "libegl1" in (tmp_path / "apt").read_text()


def test_without_root_they_are_named(run, tmp_path):
    finished = run("PySide6", distribution=True, system="echo 1000")
    assert "sudo apt-get install libegl1" in finished.stderr
    assert not (tmp_path / "apt").exists()


def test_ci_leaves_no_tier_out():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "export CI=true" in script
    assert "make test" in script
