"""MMReg: registers preoperative MR to intraoperative ultrasound.

Research software, not a medical device.

The public names are fetched when they are first used (PEP 562): ``mmreg --help`` and ``mmreg presets`` pass through
this file too, and must not wait seconds for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from MMRegCore.version import __version__ as __version__

if TYPE_CHECKING:
    from MMRegCore.config import RegistrationSettings as RegistrationSettings
    from MMRegCore.config import load_preset as load_preset
    from MMRegCore.displacement import DisplacementField as DisplacementField
    from MMRegCore.errors import Cancelled as Cancelled
    from MMRegCore.errors import DeviceError as DeviceError
    from MMRegCore.errors import GeometryError as GeometryError
    from MMRegCore.errors import InputError as InputError
    from MMRegCore.errors import MMRegError as MMRegError
    from MMRegCore.evaluate.landmarks import target_registration_error as target_registration_error
    from MMRegCore.geometry import Grid as Grid
    from MMRegCore.io.landmarks import read_landmarks as read_landmarks
    from MMRegCore.io.transforms import read_transform as read_transform
    from MMRegCore.io.transforms import write_transform as write_transform
    from MMRegCore.io.volumes import read_volume as read_volume
    from MMRegCore.io.volumes import write_volume as write_volume
    from MMRegCore.monitor import Monitor as Monitor
    from MMRegCore.pipeline import register as register
    from MMRegCore.result import RegistrationResult as RegistrationResult
    from MMRegCore.transform import SpatialTransform as SpatialTransform
    from MMRegCore.volume import Volume as Volume

_HOME = {
    "Cancelled": "errors",
    "DeviceError": "errors",
    "DisplacementField": "displacement",
    "GeometryError": "errors",
    "Grid": "geometry",
    "InputError": "errors",
    "MMRegError": "errors",
    "Monitor": "monitor",
    "RegistrationResult": "result",
    "RegistrationSettings": "config",
    "SpatialTransform": "transform",
    "Volume": "volume",
    "load_preset": "config",
    "read_landmarks": "io.landmarks",
    "read_transform": "io.transforms",
    "read_volume": "io.volumes",
    "register": "pipeline",
    "target_registration_error": "evaluate.landmarks",
    "write_transform": "io.transforms",
    "write_volume": "io.volumes",
}

__all__ = [*_HOME]  # noqa: PLE0604 - the names above


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'MMRegCore' has no attribute '{name}'")
    value: object = getattr(import_module(f"MMRegCore.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
