"""Threads: how they wait is settled before torch is imported, unless the user did, and how many is up to the user."""

import json
import os
import subprocess
import sys

import pytest

from MMRegCore.errors import InputError
from MMRegCore.threads import use_threads, wait_briefly

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


@pytest.mark.parametrize("given", [None, *SETTINGS])
def test_how_threads_wait_is_set_unless_the_user_did(monkeypatch, given):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(given, "7")
    wait_briefly()
    found = {name: os.environ.get(name) for name in SETTINGS}
    if given:
        assert found == dict.fromkeys(SETTINGS) | {given: "7"}
    else:
        assert found == {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": None, "KMP_BLOCKTIME": "0"}
        for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
            monkeypatch.delenv(name)


def test_the_command_line_settles_it_before_torch_comes():
    code = (
        "import sys, os, json; from MMRegCore.cli import main; before = 'torch' in sys.modules; "
        "main(['apply', '--transform', 'none.h5', '--moving', 'none.nrrd', '--output', 'x.nrrd']); "
        "print(json.dumps([before, os.environ['GOMP_SPINCOUNT']]))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == [False, "1000"]


def test_the_number_of_threads_is_used(monkeypatch):
    # In a process of its own: the number holds for all of it.
    code = (
        "import torch, SimpleITK; from MMRegCore.threads import use_threads; use_threads(None); "
        "before = torch.get_num_threads(); use_threads(before + 1); "
        "print(torch.get_num_threads() - before, SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_no_threads_are_too_few():
    with pytest.raises(InputError, match="expected at least 1 thread; got 0"):
        use_threads(0)
