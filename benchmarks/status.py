"""Which results were measured before the last change to the code that they measure, or on code that is in no commit."""

from __future__ import annotations

import json
import subprocess

from benchmarks import record

_ENGINE = (
    "MMRegCore/ops",
    "MMRegCore/prepare.py",
    "MMRegCore/pipeline.py",
    "MMRegCore/resampling.py",
    "MMRegCore/segmentation",
)
_LC2 = (*_ENGINE, "MMRegCore/search", "MMRegCore/similarity/lc2.py", "MMRegCore/methods/lc2.py", "MMRegCore/assessment")
_SIMULATOR = ("MMRegCore/simulate",)
_NETWORKS = ("MMRegCore/networks", "MMRegCore/training", "MMRegCore/methods/network.py")
_DNS = (*_ENGINE, *_NETWORKS, "MMRegCore/methods/dns.py", "MMRegCore/optimisation", "MMRegCore/similarity/descriptors")
# By the beginning of a result's name, the first that fits; without one, all of MMRegCore.
_MEASURED = {
    "accuracy": (*_LC2, *_SIMULATOR),
    "confidence": (*_LC2, *_SIMULATOR),
    "calibration": (*_LC2, *_SIMULATOR),
    "discriminability": (*_LC2, *_SIMULATOR),
    "bilevel": ("MMRegCore/training",),
    "dns": _DNS,
    "known-truth": ("MMRegCore/simulate", "MMRegCore/transform.py", "MMRegCore/displacement.py"),
    "landmarks": (*_LC2, *_SIMULATOR),
    "learned": (*_ENGINE, *_NETWORKS),
    "patients": (*_LC2, "MMRegCore/networks"),
    "brain": ("MMRegCore/segmentation", "MMRegCore/networks/brain_unet.py", "MMRegCore/weights"),
    "retrieval": _NETWORKS,
    "shift-statistics": _SIMULATOR,
    "simulator": _SIMULATOR,
    "house": (),
}


def main() -> int:
    """Print a line for every result that is not up to date; 1 when there is one."""
    stale = 0
    for path in sorted(record.RESULTS.glob("*.json")):
        circumstances = json.loads(path.read_text(encoding="utf-8")).get("circumstances", {})
        reason = why_stale(path.stem, circumstances.get("commit", ""))
        if reason:
            stale += 1
            print(f"{path.stem}: {reason}; {circumstances.get('command', 'no command is known')}")
    print(f"{stale} results to measure again" if stale else "all results are up to date")
    return int(stale > 0)


def why_stale(name: str, commit: str) -> str | None:
    """Why a result is not up to date; None when it is."""
    clean = commit.removesuffix("-dirty")
    if clean != commit:
        return f"measured on uncommitted changes to {clean}"
    paths = next((paths for start, paths in _MEASURED.items() if name.startswith(start)), ("MMRegCore",))
    if not paths:
        return None
    listed = subprocess.run(
        ["git", "log", "--format=%h", f"{clean or 'unknown'}..HEAD", "--", *paths],
        cwd=record.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        return f"measured on {commit or 'an unknown commit'}, which is not in this repository"
    changes = listed.stdout.split()
    return f"measured on {clean}, {len(changes)} commits to its code before now" if changes else None
