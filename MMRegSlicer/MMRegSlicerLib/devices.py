"""Which devices PyTorch can use, found out in a process of its own: torch stays out of the application."""

from __future__ import annotations

from collections.abc import Callable

from MMRegSlicerLib.runner import Worker
from MMRegSlicerLib.translation import tr as _

_CODE = """
import json, torch
names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
print(json.dumps({"event": "devices", "names": names, "torch": torch.__version__}))
"""


class DeviceProbe:
    """Asks once; call `poll` until it answers.

    Parameters
    ----------
    answered : callable
        Called with a sentence for a person.
    """

    def __init__(self, answered: Callable[[str], None]) -> None:
        self._answered = answered
        self._worker = Worker(["-c", _CODE])
        self._sentence = _("PyTorch could not be asked which devices there are; the registration will tell.")

    def poll(self) -> bool:
        """Pass the answer on when it is there; give whether to go on asking."""
        for event in self._worker.events():
            if event["event"] == "devices":
                self._sentence = _sentence(event["names"], event["torch"])
            elif event["event"] == "exit":
                self._answered(self._sentence)
                return False
        return True

    def stop(self) -> None:
        """Ask no more; no process is left."""
        self._worker.stop()


def _sentence(names: list[str], version: str) -> str:
    if names:
        return _("Found: {names} (PyTorch {version}).").format(names=", ".join(names), version=version)
    return _(
        "PyTorch {version} finds no GPU that it can use: the processor does the work. With an NVIDIA card, install a "
        "build for it with the extension PyTorch."
    ).format(version=version)
