"""The verb ``mmreg replay``."""

from __future__ import annotations

import argparse
import json

from MMRegCore.cli.inputs import check_output_folder
from MMRegCore.cli.interrupts import cancel_on_signals
from MMRegCore.cli.screen import Screen
from MMRegCore.monitor import Monitor

_DIFFERENT = 1


def replay(arguments: argparse.Namespace, screen: Screen) -> int:
    """Do a registration again from its result.json, and say whether the transform is the same; exit code 1 if not.

    The inputs are found by their checksums, whatever they are called now.
    """
    if arguments.output is not None:
        check_output_folder(arguments.output)
    from MMRegCore.records import to_json
    from MMRegCore.replay import read_provenance
    from MMRegCore.replay import replay as repeat
    from MMRegCore.threads import use_threads

    if arguments.threads is None:
        use_threads(read_provenance(arguments.result).threads)
    folder = arguments.result.absolute().parent
    with cancel_on_signals(Monitor(screen)) as monitor:
        found, inputs, result = repeat(
            arguments.result, arguments.inputs or [folder.parent], device=arguments.device, monitor=monitor
        )
        if arguments.output is not None:
            monitor.report("writing the result", 1.0)
            result.save(arguments.output, fixed=inputs.fixed)
    print(json.dumps(to_json(found), indent=2))
    return 0 if found.same else _DIFFERENT
