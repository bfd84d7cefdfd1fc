"""Threads: how they wait is settled before torch is imported, unless the user did, and how many is up to the user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from MMRegCore.errors import InputError
from MMRegCore.threads import at_most, use_threads, wait_briefly

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


def test_fewer_threads_for_a_while():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for count, expected in ((1, 1), (2, 2), (4, 3), (None, 3)):
            with at_most(count):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="meanwhile"), at_most(1):
            raise ValueError("meanwhile")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_result_does_not_depend_on_the_number_of_threads():
    """Byte for byte, in processes of their own; the images are large enough for torch to share work out."""
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); from quick import QUICK; from scenes import box, scene; "
        "from MMRegCore import register; from MMRegCore.config import with_changes; "
        "from MMRegCore.threads import use_threads; use_threads(int(sys.argv[2])); "
        "fixed = scene(box((48, 48, 48))); moving = scene(fixed.grid, lambda points: points + 2.0, inverted=True); "
        "settings = with_changes(QUICK, {'working_spacing_mm': 0.75, 'lc2.search.sampling_spacing_mm': '3,0.8'}); "
        "transform = register(fixed, moving, settings=settings, device='cpu').transform; "
        "points = fixed.grid.points_ras()[::5, ::5, ::5].reshape(-1, 3); "
        "print(torch.get_num_threads(), transform.apply(points).tobytes().hex())"
    )
    found = []
    for count in ("1", "3"):
        words = [sys.executable, "-c", code, str(Path(__file__).parent), count]
        found.append(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert [threads for threads, _ in found] == ["1", "3"]
    assert found[0][1] == found[1][1]
