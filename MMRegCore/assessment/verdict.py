"""Accept, review or reject: what the numbers of an assessment come to, with plain reasons."""

from __future__ import annotations

from collections.abc import Sequence

from MMRegCore.assessment.quality import GivenLandmarks, JacobianSummary, Level, Verdict
from MMRegCore.search.selection import ModelSelection

# Expected mean error (mm) below which a result is accepted, and above which it is rejected.
ACCEPTED_MM = 1.5
REJECTED_MM = 4.0
# Below these shares of the ultrasound covered by an MR.
LITTLE_COVERED = 0.8
HARDLY_COVERED = 0.4
# Standard deviations between a landmark and its partner that their error hardly explains (1 in 1000).
CONTRADICTED = 4.0

_Finding = tuple[Level, str]
_ORDER: tuple[Level, ...] = ("reject", "review", "accept")


def judge(
    expected_error_mm: float | None,
    model_selection: ModelSelection | None,
    covered: Sequence[float],
    jacobian: JacobianSummary,
    landmarks: GivenLandmarks | None = None,
) -> Verdict:
    """The gravest finding decides; all are named, the gravest first.

    ``expected_error_mm`` is the mean over the field of view, None where it is not known; ``covered`` the share of the
    ultrasound that each MR covers; ``landmarks`` those that guided the registration.
    """
    findings = [
        *_by_error(expected_error_mm),
        *_by_selection(model_selection),
        *_by_rival(model_selection),
        *_by_coverage(covered),
        *_by_folding(jacobian),
        *_by_landmarks(landmarks),
    ]
    findings.sort(key=lambda finding: _ORDER.index(finding[0]))
    return Verdict(findings[0][0], tuple(sentence for _, sentence in findings), expected_error_mm)


def _by_error(expected: float | None) -> list[_Finding]:
    if expected is None:
        return [("review", "The error of this result was not estimated: judge it by eye.")]
    sentence = f"The expected error is {expected:.1f} mm on average"
    if expected > REJECTED_MM:
        return [("reject", f"{sentence}: too large to rely on.")]
    if expected > ACCEPTED_MM:
        return [("review", f"{sentence}: check the structures that matter before relying on it.")]
    return [("accept", f"{sentence}.")]


def _by_selection(selection: ModelSelection | None) -> list[_Finding]:
    if selection is None:
        return []
    if selection.selected == "initial":
        return [
            (
                "review",
                "The initial transform was kept: nothing that the search found is significantly more similar to the "
                "ultrasound. Check it by eye; another contrast (FLAIR) or three landmarks would tell more.",
            )
        ]
    if selection.selected == "rigid":
        return [("review", "The MR was moved rigidly but not deformed: the ultrasound does not support more.")]
    return [("accept", "The deformation is significantly more similar to the ultrasound than the initial transform.")]


def _by_rival(selection: ModelSelection | None) -> list[_Finding]:
    if selection is None or selection.rival_mm is None:
        return []
    return [
        (
            "review",
            f"Two places fit about equally well, {selection.rival_mm:.0f} mm apart: check where the MR lies, or add "
            "another contrast or three landmarks.",
        )
    ]


def _by_coverage(shares: Sequence[float]) -> list[_Finding]:
    if not shares or max(shares) >= LITTLE_COVERED:
        return []
    level: Level = "reject" if max(shares) < HARDLY_COVERED else "review"
    return [(level, f"The MR covers only {100 * max(shares):.0f} % of the ultrasound.")]


def _by_folding(jacobian: JacobianSummary) -> list[_Finding]:
    count = jacobian.folding_voxels
    return [("reject", f"Folding (negative Jacobian) in {count} voxels.")] if count else []


def _by_landmarks(landmarks: GivenLandmarks | None) -> list[_Finding]:
    # That they agree is no finding: they were fitted.
    if landmarks is None or landmarks.after.max <= CONTRADICTED * landmarks.error_mm:
        return []
    return [
        (
            "review",
            f"Given landmark {landmarks.farthest} ends {landmarks.after.max:.1f} mm from its partner, more than its "
            f"error of {landmarks.error_mm:g} mm explains: check the pair, or the result.",
        )
    ]
