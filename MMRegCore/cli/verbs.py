"""What each verb of ``mmreg`` does: a few lines over the Python API, which is imported only when it is needed."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from MMRegCore.cli.inputs import changes_from, check_output_folder, read_landmarks_given, read_moving
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.errors import InputError
from MMRegCore.monitor import Monitor

if TYPE_CHECKING:
    from MMRegCore.assessment.quality import Verdict
    from MMRegCore.simulate import Anatomy
    from MMRegCore.transform import SpatialTransform


def register(arguments: argparse.Namespace, screen: Screen) -> None:
    """Register one or several MR images to an ultrasound volume."""
    from MMRegCore.config import load_preset, with_changes

    check_output_folder(arguments.output)
    without = {"brain_mask": False} if arguments.no_brain_mask else {}
    settings = with_changes(load_preset(arguments.preset), {**changes_from(arguments.set), **without})
    landmarks = _guiding_landmarks(arguments)
    # What needs no torch is checked before torch is waited for.
    from MMRegCore.io.files import staged_folder
    from MMRegCore.io.transforms import read_transform, write_transform
    from MMRegCore.io.volumes import read_volume
    from MMRegCore.pipeline import register as find_transform
    from MMRegCore.records import to_json
    from MMRegCore.result import TRANSFORM_FILE

    fixed = read_volume(arguments.fixed, mask_path=arguments.fixed_mask)
    moving = read_moving(arguments.moving, arguments.moving_mask)
    initial = read_transform(arguments.initial_transform) if arguments.initial_transform else None
    with cancel_on_signals(Monitor(screen)) as monitor, staged_folder(arguments.output) as folder:

        def keep(transform: SpatialTransform, verdict: Verdict) -> None:
            write_transform(transform, folder / TRANSFORM_FILE)
            screen.found(folder / TRANSFORM_FILE, to_json(verdict))

        computer = _computer(arguments)
        result = find_transform(
            fixed,
            moving,
            settings=settings,
            initial_transform=initial,
            on_transform=keep,
            monitor=monitor,
            **landmarks,
            **computer,
        )
        monitor.report("writing the result", 1.0)
        result.write(folder, fixed=fixed, transform_only=arguments.transform_only)
    screen.done(arguments.output)


def apply(arguments: argparse.Namespace, screen: Screen) -> None:
    """Apply a transform to a volume, a label map, landmarks or markups: from moving (MR) to fixed (ultrasound) space.

    Landmarks are moving landmarks, pushed to where they lie in the ultrasound. Volumes are resampled on the grid of
    --reference, or on their own, extended to hold what was moved; outside of them the result is 0.
    """
    del screen  # it takes no time worth showing
    from MMRegCore.io.files import suffix_of
    from MMRegCore.io.landmarks import LANDMARK_SUFFIXES
    from MMRegCore.io.transforms import read_transform

    suffix = suffix_of(arguments.moving)
    if suffix in LANDMARK_SUFFIXES and (arguments.reference or arguments.interpolation):
        raise InputError(f"expected --reference and --interpolation with a volume only; got {arguments.moving}")
    transform = read_transform(arguments.transform)
    if suffix == ".mrk.json" == suffix_of(arguments.output):
        _apply_to_markups(arguments, transform)
    elif suffix in LANDMARK_SUFFIXES:
        _apply_to_landmarks(arguments, transform)
    else:
        _apply_to_image(arguments, transform)


def _apply_to_markups(arguments: argparse.Namespace, transform: SpatialTransform) -> None:
    from MMRegCore.io.landmarks import read_markups, write_markups
    from MMRegCore.markups import push_markups

    write_markups(push_markups(read_markups(arguments.moving), transform), arguments.output)


def _apply_to_landmarks(arguments: argparse.Namespace, transform: SpatialTransform) -> None:
    from MMRegCore.apply import push_landmarks
    from MMRegCore.io.landmarks import read_landmarks, write_landmarks

    write_landmarks(push_landmarks(read_landmarks(arguments.moving), transform), arguments.output)


def _apply_to_image(arguments: argparse.Namespace, transform: SpatialTransform) -> None:
    from MMRegCore.apply import resample_image
    from MMRegCore.geometry import Grid
    from MMRegCore.io.segmentations import read_segment_fields, write_segmentation
    from MMRegCore.io.volumes import read_itk_image

    segments = read_segment_fields(arguments.moving)
    interpolation = arguments.interpolation or ("nearest" if segments else "linear")
    if segments and interpolation != "nearest":
        raise InputError(f"expected --interpolation nearest with a segmentation; got {interpolation}")
    if segments and arguments.output.suffix.lower() != ".nrrd":
        raise InputError(f"expected --output of a segmentation to end in .seg.nrrd; got {arguments.output}")
    image = read_itk_image(arguments.moving, components=None if segments else 1)
    reference = Grid.from_itk(read_itk_image(arguments.reference)) if arguments.reference else None
    resampled = resample_image(image, transform, reference=reference, interpolation=interpolation)
    write_segmentation(resampled, segments, arguments.output)


def tre(arguments: argparse.Namespace, screen: Screen) -> None:
    """Print the target registration error on landmarks, before and after, as JSON."""
    del screen
    from MMRegCore.evaluate.landmarks import target_registration_error
    from MMRegCore.io.transforms import read_transform
    from MMRegCore.records import to_json

    landmarks = read_landmarks_given(arguments)
    if landmarks is None:
        raise InputError("expected --landmarks PAIRS, or --fixed-landmarks A and --moving-landmarks B; got none")
    transform = read_transform(arguments.transform)
    initial = read_transform(arguments.initial_transform) if arguments.initial_transform else None
    print(json.dumps(to_json(target_registration_error(*landmarks, transform, initial=initial)), indent=2))


def qa(arguments: argparse.Namespace, screen: Screen) -> None:
    """Assess any transform, ours or another tool's: qa.json and report.html."""
    check_output_folder(arguments.output)
    from MMRegCore.assessment.assess import assess
    from MMRegCore.intensities import without_outliers, without_padding
    from MMRegCore.io.files import staged_folder
    from MMRegCore.io.transforms import read_transform
    from MMRegCore.io.volumes import read_volume
    from MMRegCore.records import to_json
    from MMRegCore.report.report import write_report
    from MMRegCore.segmentation.field_of_view import with_field_of_view

    fixed = with_field_of_view(without_outliers(read_volume(arguments.fixed, mask_path=arguments.fixed_mask)))
    moving = [without_padding(without_outliers(each)) for each in read_moving(arguments.moving, arguments.moving_mask)]
    transform = read_transform(arguments.transform)
    initial = read_transform(arguments.initial_transform) if arguments.initial_transform else None
    inputs = _given(arguments, "fixed fixed_mask moving moving_mask transform initial_transform")
    with cancel_on_signals(Monitor(screen)) as monitor:
        assessment = assess(fixed, moving, transform, initial=initial, monitor=monitor.part(0.0, 0.6))
        monitor.report("writing the report", 0.6)
        with staged_folder(arguments.output) as folder:
            readings = {volume.name: volume.reading and to_json(volume.reading) for volume in (fixed, *moving)}
            content = {"inputs": inputs, "readings": readings, "quality": to_json(assessment.quality)}
            (folder / "qa.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
            title = f"Quality of {arguments.transform.name}"
            write_report(folder / "report.html", fixed, assessment, {"inputs": inputs}, title=title)
    screen.done(arguments.output)


def presets(arguments: argparse.Namespace, screen: Screen) -> None:
    """List the presets, or the settings of one."""
    del screen
    from MMRegCore.config import as_text, describe, load_preset, preset_description, preset_names, presets_as_json

    if arguments.show is None:
        width = max(map(len, preset_names()))
        lines = [f"{name:{width}}  {preset_description(name)}" for name in preset_names()]
        print(json.dumps(presets_as_json(), indent=2) if arguments.json else "\n".join(lines))
        return
    settings = load_preset(arguments.show)
    if arguments.json:
        print(json.dumps(settings.to_dict(), indent=2))
        return
    print(f"{arguments.show}: {preset_description(arguments.show)}")
    for about in describe(settings):
        kind = ", ".join(filter(None, (about.expected, about.range)))
        print(f"\n{about.key} = {as_text(about.default)}\n    {about.help}\n    ({kind})")


def doctor(arguments: argparse.Namespace, screen: Screen) -> int:
    """Show versions, devices and memory, and try a small registration (about 10 seconds)."""
    from MMRegCore.doctor import as_text, examine

    with cancel_on_signals(Monitor(screen)) as monitor:
        findings = examine(device=arguments.device, monitor=monitor)
    print(json.dumps(findings, indent=2) if arguments.json else as_text(findings))
    return 0 if findings["self_test"]["passed"] else 1


def demo(arguments: argparse.Namespace, screen: Screen) -> None:
    """Register the MNI152 brain to a simulated ultrasound of it, with a brain shift that is known."""
    check_output_folder(arguments.output)
    from MMRegCore.demo import run_demo

    with cancel_on_signals(Monitor(screen)) as monitor:
        truth = run_demo(arguments.output, monitor=monitor, **_computer(arguments))
    screen.note(
        f"mmreg: mean error against the known truth: {truth.field.before.mean:.2f} mm before, "
        f"{truth.field.after.mean:.2f} mm after; on {truth.landmarks.count} landmarks: "
        f"{truth.landmarks.before.mean:.2f} mm before, {truth.landmarks.after.mean:.2f} mm after"
    )
    screen.done(arguments.output)


def simulate(arguments: argparse.Namespace, screen: Screen) -> None:
    """Simulate an ultrasound of an MR after a brain shift, with the true transform and landmarks.

    The MR may be skull-stripped or not; the size of the shift is drawn from statistics of real landmarks.
    """
    check_output_folder(arguments.output)
    if not arguments.mr and (arguments.contrast or arguments.tumour_mask):
        raise InputError("expected --contrast and --tumour-mask with --mr only; got no --mr")
    from MMRegCore import simulate as simulator

    shift = simulator.BrainShiftSettings(mean_mm=arguments.mean_shift_mm)
    cavity = simulator.CavitySettings() if arguments.cavity else None
    with cancel_on_signals(Monitor(screen)) as monitor:
        monitor.report("finding the tissues", 0.0)
        anatomy = _anatomy(arguments)
        monitor.report("simulating the ultrasound", 0.4)
        case = simulator.simulate(
            anatomy, entry_direction_ras=arguments.entry, shift=shift, cavity=cavity, seed=arguments.seed
        )
        monitor.report("writing the case", 0.8)
        options = _given(arguments, "mr contrast render tumour_mask mean_shift_mm cavity entry seed")
        simulator.write_case(case, arguments.output, {"options": options, "shift": shift.to_dict()})
    screen.done(arguments.output)


def _guiding_landmarks(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `register` is told of landmarks."""
    landmarks, error_mm = read_landmarks_given(arguments), arguments.landmark_error_mm
    if landmarks is None and error_mm is not None:
        raise InputError("expected --landmark-error-mm with landmarks only; got none")
    return {"landmarks": landmarks} | ({} if error_mm is None else {"landmark_error_mm": error_mm})


def _computer(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("device", "memory_gb", "seed")}


def _given(arguments: argparse.Namespace, names: str) -> dict[str, object]:
    """Options as JSON holds them."""
    return {name: _as_json(getattr(arguments, name)) for name in names.split()}


def _anatomy(arguments: argparse.Namespace) -> Anatomy:
    from MMRegCore.io.volumes import read_volume
    from MMRegCore.simulate import anatomy_from_mr, load_template, with_contrasts

    if arguments.mr:
        tumour = None if arguments.tumour_mask is None else read_volume(arguments.tumour_mask)
        anatomy = anatomy_from_mr(read_moving(arguments.mr, []), arguments.contrast or "t1", tumour=tumour)
    else:
        anatomy = load_template()
    taken = {image.name.lower() for image in anatomy.images}
    if twice := taken.intersection(arguments.render):
        raise InputError(f"expected --render of contrasts that are not there; got {', '.join(sorted(twice))}")
    return with_contrasts(anatomy, list(dict.fromkeys(arguments.render)), seed=arguments.seed)


def _as_json(value: object) -> object:
    if isinstance(value, list):
        return [_as_json(element) for element in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
