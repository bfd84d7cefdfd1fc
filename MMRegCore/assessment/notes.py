"""Findings of an assessment in plain words; no verdict."""

from __future__ import annotations

from collections.abc import Sequence

from MMRegCore.assessment.quality import Distribution, GivenLandmarks, ImageComparison, JacobianSummary, RigidPart

# Below this share of the ultrasound covered by the MR, the reader should know.
COVERED = 0.98
# Relative changes of the MIND distance below this are called unchanged.
UNCHANGED = 0.01
# Volume changes beyond these are named: brain tissue hardly changes its volume.
STRONG_CHANGE = (0.5, 2.0)


def notes_on(
    displacement: Distribution,
    rigid: RigidPart,
    deformation: Distribution,
    jacobian: JacobianSummary,
    moving: Sequence[ImageComparison],
) -> tuple[str, ...]:
    """Sentences, the most general first."""
    notes = [_movement(displacement, rigid, deformation), _folding(jacobian), *_volume_change(jacobian)]
    for image in moving:
        notes += [*_coverage(image), _similarity(image)]
    return tuple(notes)


def notes_on_landmarks(landmarks: GivenLandmarks | None) -> tuple[str, ...]:
    """What landmarks that guided a registration did, and what they cannot tell."""
    if landmarks is None:
        return ()
    pairs = "1 landmark pair" if landmarks.count == 1 else f"{landmarks.count} landmark pairs"
    start = {"rigid": "a rigid start", "translation": "a start by translation"}[landmarks.motion]
    if landmarks.motion == "translation" and landmarks.count > 2:
        start += " (they lie too close to one line for a rotation)"
    use = {
        "start": f"they gave {start} and nothing more, since this method cannot weigh them",
        "rigid search": f"they gave {start} and counted in the rigid search, not in the deformation",
        "search": f"they gave {start} and counted in the search",
    }[landmarks.use]
    given, at_start, after = landmarks.given, landmarks.start, landmarks.after
    return (
        f"Registered with {pairs} given, of {landmarks.error_mm:g} mm error; they cannot judge the result. What is "
        f"called the initial transform here is their start: {use}.",
        f"Distance of the given landmarks: {given.mean:.1f} mm on average before, {at_start.mean:.1f} mm at the start, "
        f"{after.mean:.1f} mm after registration (largest {after.max:.1f} mm, landmark {landmarks.farthest}).",
    )


def _movement(total: Distribution, rigid: RigidPart, local: Distribution) -> str:
    if total.mean is None or total.max is None or total.max < 0.005:
        return "The MR was left where it was."
    moved = (
        f"Inside the ultrasound the MR moved by {total.mean:.1f} mm on average, at most {total.max:.1f} mm. "
        f"Its rigid part is a translation of {rigid.translation_mm:.1f} mm and a rotation of {rigid.rotation_deg:.1f}°"
    )
    if local.mean is None or local.max is None or local.max < 0.05:
        return f"{moved}; it was not deformed."
    return f"{moved}; beyond that it was deformed by {local.mean:.1f} mm on average, at most {local.max:.1f} mm."


def _folding(jacobian: JacobianSummary) -> str:
    count = jacobian.folding_voxels
    if count == 0:
        return "Folding (negative Jacobian): none."
    return (
        f"Folding (negative Jacobian): {count} {'voxel' if count == 1 else 'voxels'} "
        f"({100 * jacobian.folding_share:.3g} %)."
    )


def _volume_change(jacobian: JacobianSummary) -> list[str]:
    low, high = STRONG_CHANGE
    found = []
    # The transform goes from ultrasound to MR: below 1 a smaller piece of MR fills a larger piece of ultrasound.
    if jacobian.p01 is not None and 0 < jacobian.p01 < low:
        found.append(
            f"Strong local stretching: 1 % of the MR grows to more than {1 / jacobian.p01:.1f} times its volume."
        )
    if jacobian.p99 is not None and jacobian.p99 > high:
        found.append(f"Strong local squeezing: 1 % of the MR shrinks below {1 / jacobian.p99:.2f} of its volume.")
    return found


def _coverage(image: ImageComparison) -> list[str]:
    share = image.coverage_after
    if share >= COVERED:
        return []
    if share == 0:
        return [f"{image.name} does not cover the ultrasound at all."]
    return [f"{image.name} covers only {100 * share:.0f} % of the ultrasound."]


def _similarity(image: ImageComparison) -> str:
    before, after = image.mind_distance_before, image.mind_distance_after
    if before is None or after is None:
        return f"{image.name}: too little overlap to compare structures with the ultrasound."
    change = (after - before) / before if before > 0 else 0.0
    if abs(change) < UNCHANGED:
        return f"{image.name}: structural difference from the ultrasound is unchanged (MIND {before:.4f})."
    word = "fell" if change < 0 else "rose"
    return (
        f"{image.name}: structural difference from the ultrasound {word} by {100 * abs(change):.0f} % "
        f"(MIND {before:.4f} before, {after:.4f} after)."
    )
