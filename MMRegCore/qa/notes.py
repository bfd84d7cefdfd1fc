"""Findings of an assessment in plain words."""

from __future__ import annotations

from typing import Any

# Below this share of the ultrasound covered by the MR, the reader should know.
COVERED = 0.98
# Relative changes of the MIND distance below this are called unchanged.
UNCHANGED = 0.01
# Volume changes beyond these are named: brain tissue hardly changes its volume.
STRONG_CHANGE = (0.5, 2.0)


def notes_from(numbers: dict[str, Any]) -> list[str]:
    """Sentences for the numbers of `MMRegCore.qa.metrics.assess`, the most general first; no verdict."""
    notes = [_movement(numbers), _folding(numbers["jacobian_determinant"])]
    notes += _volume_change(numbers["jacobian_determinant"])
    for moving in numbers["moving"]:
        notes += [*_coverage(moving), _agreement(moving)]
    return notes


def _movement(numbers: dict[str, Any]) -> str:
    total, rigid, local = numbers["displacement_mm"], numbers["rigid"], numbers["deformation_mm"]
    if total["max"] < 0.005:
        return "The MR was left where it was."
    moved = (
        f"Inside the ultrasound the MR moved by {total['mean']:.1f} mm on average, at most {total['max']:.1f} mm. "
        f"As a whole it shifted by {rigid['translation_mm']:.1f} mm and turned by {rigid['rotation_degrees']:.1f}°"
    )
    if local["max"] < 0.05:
        return f"{moved}; it was not deformed."
    return f"{moved}; beyond that it was deformed by {local['mean']:.1f} mm on average, at most {local['max']:.1f} mm."


def _folding(jacobian: dict[str, Any]) -> str:
    count = jacobian["folding_voxels"]
    if count == 0:
        return "Folding: none."
    return f"Folding: {count} {'voxel' if count == 1 else 'voxels'} ({100 * jacobian['folding_share']:.3g} %)."


def _volume_change(jacobian: dict[str, Any]) -> list[str]:
    low, high = STRONG_CHANGE
    found = []
    # The transform goes from ultrasound to MR: below 1 a smaller piece of MR fills a larger piece of ultrasound.
    if 0 < jacobian["p01"] < low:
        found.append(
            f"Strong local stretching: 1 % of the MR grows to more than {1 / jacobian['p01']:.1f} times its volume."
        )
    if jacobian["p99"] > high:
        found.append(f"Strong local squeezing: 1 % of the MR shrinks below {1 / jacobian['p99']:.2f} of its volume.")
    return found


def _coverage(moving: dict[str, Any]) -> list[str]:
    share = moving["coverage_share_after"]
    if share >= COVERED:
        return []
    if share == 0:
        return [f"{moving['name']} does not cover the ultrasound at all."]
    return [f"{moving['name']} covers only {100 * share:.0f} % of the ultrasound."]


def _agreement(moving: dict[str, Any]) -> str:
    before, after = moving["mind_distance_before"], moving["mind_distance_after"]
    if before is None or after is None:
        return f"{moving['name']}: too little overlap to compare structures with the ultrasound."
    change = (after - before) / before if before > 0 else 0.0
    if abs(change) < UNCHANGED:
        return f"{moving['name']}: structural mismatch with the ultrasound is unchanged (MIND {before:.4f})."
    word = "fell" if change < 0 else "rose"
    return (
        f"{moving['name']}: structural mismatch with the ultrasound {word} by {100 * abs(change):.0f} % "
        f"(MIND {before:.4f} before, {after:.4f} after)."
    )
