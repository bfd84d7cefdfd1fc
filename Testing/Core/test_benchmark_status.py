"""Which results count as out of date."""

import json
import subprocess

import pytest

from benchmarks import record, status


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=record.ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return done.stdout.strip()


def test_a_result_of_the_present_code_is_up_to_date():
    assert status.why_stale("speed", git("rev-parse", "HEAD")) is None


def test_changes_that_are_in_no_commit_count():
    assert status.why_stale("speed", "abc1234-dirty") == "measured on uncommitted changes to abc1234"


def test_a_commit_that_is_not_here_counts():
    git("rev-parse", "HEAD")
    assert status.why_stale("speed", "0123456789") == "measured on 0123456789, which is not in this repository"
    assert status.why_stale("speed", "") == "measured on an unknown commit, which is not in this repository"


def test_only_changes_to_the_code_that_is_measured_count():
    last = git("log", "-1", "--format=%H", "--", "MMRegCore/simulate")
    before = git("log", "-1", "--format=%H", f"{last}^")
    assert "commits to its code before now" in (status.why_stale("simulator", before) or "")
    assert status.why_stale("simulator", last) is None
    assert status.why_stale("house-code", before) is None  # compares two checkouts, whatever the present one is


def test_every_result_is_judged_and_listed(monkeypatch, tmp_path, capsys):
    commits = {"speed": git("rev-parse", "HEAD"), "simulator": "abc1234-dirty"}
    for name, commit in commits.items():
        circumstances = {"commit": commit, "command": f"python -m benchmarks {name}"}
        (tmp_path / f"{name}.json").write_text(json.dumps({"circumstances": circumstances}))
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert status.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "simulator: measured on uncommitted changes to abc1234; python -m benchmarks simulator",
        "1 results to measure again",
    ]
