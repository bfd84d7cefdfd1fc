"""Accept, review or reject: what the numbers of an assessment come to, with plain reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Level = Literal["accept", "review", "reject"]

# Expected mean error (mm) below which a result is accepted, and above which it is rejected.
ACCEPTED_MM = 1.6
REJECTED_MM = 3.0
# Below these shares of the ultrasound covered by an MR.
LITTLE_COVERED = 0.8
HARDLY_COVERED = 0.4


def verdict_from(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the numbers of `MMRegCore.qa.metrics.assess`.

    Returns
    -------
    dict
        ``level``: 'accept', 'review' or 'reject'; ``reasons``: sentences, the worst first; ``expected_error_mm``: mean
        over the field of view, None where it is not known.
    """
    expected = numbers["extra"].get("expected_error_mm", {}).get("mean")
    findings = [*_by_error(expected), *_by_choice(numbers["choice"]), *_by_coverage(numbers), *_by_folding(numbers)]
    order: list[Level] = ["reject", "review", "accept"]
    findings.sort(key=lambda finding: order.index(finding[0]))
    return {
        "level": findings[0][0],
        "reasons": [sentence for _, sentence in findings],
        "expected_error_mm": expected,
    }


def _by_error(expected: float | None) -> list[tuple[Level, str]]:
    if expected is None:
        return [("review", "The error of this result was not estimated: judge it by eye.")]
    sentence = f"The expected error is {expected:.1f} mm on average"
    if expected > REJECTED_MM:
        return [("reject", f"{sentence}: too large to rely on.")]
    if expected > ACCEPTED_MM:
        return [("review", f"{sentence}: look at the structures that matter before relying on it.")]
    return [("accept", f"{sentence}.")]


def _by_choice(choice: Mapping[str, Any] | None) -> list[tuple[Level, str]]:
    if choice is None:
        return []
    if choice["chosen"] == "start":
        return [("review", "The MR was left where it was: nothing agreed clearly better with the ultrasound.")]
    if choice["chosen"] == "rigid":
        return [("review", "The MR was moved as a whole but not deformed: the ultrasound does not support more.")]
    return [("accept", "The deformation agrees clearly better with the ultrasound than the start does.")]


def _by_coverage(numbers: Mapping[str, Any]) -> list[tuple[Level, str]]:
    shares = [moving["coverage_share_after"] for moving in numbers["moving"]]
    if not shares or max(shares) >= LITTLE_COVERED:
        return []
    level: Level = "reject" if max(shares) < HARDLY_COVERED else "review"
    return [(level, f"The MR covers only {100 * max(shares):.0f} % of the ultrasound.")]


def _by_folding(numbers: Mapping[str, Any]) -> list[tuple[Level, str]]:
    count = numbers["jacobian_determinant"]["folding_voxels"]
    return [("reject", f"The deformation folds in {count} voxels.")] if count else []
