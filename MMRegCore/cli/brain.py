"""The verb ``mmreg brain``."""

from __future__ import annotations

import argparse
import math

from MMRegCore.cli.inputs import read_moving
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.errors import InputError
from MMRegCore.monitor import Monitor

_FARTHEST_MM = 10.0


def brain(arguments: argparse.Namespace, screen: Screen) -> None:
    """Find the brain in MR images of a head, whatever their contrast, and write its mask."""
    if not (math.isfinite(arguments.margin_mm) and abs(arguments.margin_mm) <= _FARTHEST_MM):
        raise InputError(f"expected --margin-mm between -10 and 10; got {arguments.margin_mm}")
    from MMRegCore.io.volumes import write_volume
    from MMRegCore.prepare import check_image
    from MMRegCore.segmentation.brain import find_brain
    from MMRegCore.volume import Volume

    images = read_moving(arguments.images, [])
    for image in images:
        check_image(image)
    with cancel_on_signals(Monitor(screen)) as monitor:
        monitor.report("finding the brain", 0.0)
        found = find_brain(images)
        if found.volume_ml == 0:
            raise InputError(f"expected images of a head; found no brain in {images[0].name}")
        mask = found.mask(images[0].grid, arguments.margin_mm)
        monitor.report("writing the mask", 0.9)
        write_volume(Volume(mask[None].float(), images[0].grid, name="brain"), arguments.output, dtype="uint8")
    if not found.is_sure:
        screen.note("mmreg: this does not look like a head: check the mask before relying on it")
    screen.note(f"mmreg: a brain of {found.volume_ml:.0f} ml")
    screen.done(arguments.output)
