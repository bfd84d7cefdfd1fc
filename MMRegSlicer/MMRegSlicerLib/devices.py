"""The GPUs that PyTorch can use, found out in a process of its own: torch is never imported into the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MMRegSlicerLib.runner import Worker
from MMRegSlicerLib.translation import tr as _

_CODE = """
import json, torch
names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
print(json.dumps({"event": "devices", "names": names, "torch": torch.__version__}))
"""


class DeviceProbe:
    """Detects the compute devices once; `poll` until it returns False.

    Parameters
    ----------
    on_detected : callable
        Called with a description for the user.
    """

    def __init__(self, on_detected: Callable[[str], None]) -> None:
        self._on_detected = on_detected
        self._worker = Worker(["-c", _CODE])
        self._description = _("PyTorch could not list the compute devices. Register to see the error.")

    def poll(self) -> bool:
        """Call back when the devices are known; return whether the process is still running."""
        return self._worker.poll({"devices": self._on_devices, "exit": self._on_exit})

    def stop(self) -> None:
        """Stop the process."""
        self._worker.stop()

    def _on_devices(self, event: dict[str, Any]) -> None:
        if event["names"]:
            text = _("GPU available: {names} (PyTorch {version}).")
        else:
            text = _(
                "No GPU available to PyTorch {version}; the CPU is used. For an NVIDIA GPU, install a matching build "
                "with the PyTorch extension."
            )
        self._description = text.format(names=", ".join(event["names"]), version=event["torch"])

    def _on_exit(self, _event: dict[str, Any]) -> None:
        self._on_detected(self._description)
