"""The verb ``mmreg train``."""

from __future__ import annotations

import argparse

from MMRegCore.cli.inputs import changes_from, check_output_folder
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.errors import Cancelled, InputError
from MMRegCore.monitor import Monitor

_CANCELLED = 3


def train(arguments: argparse.Namespace, screen: Screen) -> int | None:
    """Train a network on your own images; several GPUs through torchrun."""
    from MMRegCore.settings import as_text, describe, with_changes
    from MMRegCore.training.recipes import find_recipe, read_settings

    settings = with_changes(read_settings(find_recipe(arguments.name), arguments.config), changes_from(arguments.set))
    if arguments.show:
        print("\n".join(f"{shown.key} = {as_text(shown.default)}\n    {shown.help}" for shown in describe(settings)))
        return None
    if arguments.data is None or arguments.output is None:
        raise InputError("expected --data and --output, or --show; got neither")
    check_output_folder(arguments.output)
    from MMRegCore.training.run import run_training

    monitor = Monitor(screen)
    try:
        with cancel_on_signals(monitor):
            options = {"device": arguments.device, "resume": arguments.resume}
            scores = run_training(
                arguments.name, settings, arguments.data, arguments.output, monitor=monitor, **options
            )
    except Cancelled:
        screen.fail("cancelled; go on with --resume", kind="Cancelled", code=_CANCELLED)
        return _CANCELLED
    screen.note("mmreg: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
    screen.done(arguments.output)
    return None
