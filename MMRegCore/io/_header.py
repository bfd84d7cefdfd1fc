"""What the header of an image says of its space, and the rules that all formats share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.volume import Known, Reading

NO_PLACE = "the file does not say where it lies: its origin was taken as 0"
NO_SPACING = "the file does not say how large its voxels are: they were taken as 1 mm"
_MM_PER = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "millimeters": 1.0,
    "m": 1000.0,
    "meter": 1000.0,
    "metre": 1000.0,
    "cm": 10.0,
    "um": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "micrometers": 1e-3,
    "nm": 1e-6,
}
_TRACKED = (
    "expected a volume; got {path}, tracked 2-D frames (it holds Seq_Frame… fields or an axis of frames): reconstruct "
    "a volume first, with PLUS's VolumeReconstructor or Slicer's module Volume Reconstruction"
)


@dataclass(frozen=True)
class Header:
    """What a file says of its space.

    Attributes
    ----------
    format, space : str
    spacing, origin : {'stated', 'assumed'}
    mm_per_unit : float
        What ITK's numbers are multiplied with, where it does not honour the unit.
    warnings : tuple of str
    """

    format: str
    space: str
    spacing: Known = "stated"
    origin: Known = "stated"
    mm_per_unit: float = 1.0
    warnings: tuple[str, ...] = ()

    def reading(self, *more: str) -> Reading:
        """As the image keeps it."""
        notes = [NO_SPACING] if self.spacing == "assumed" else []
        notes += [NO_PLACE] if self.origin == "assumed" else []
        return Reading(self.format, self.space, self.spacing, self.origin, warnings=(*notes, *self.warnings, *more))


def mm_per(units: list[str], path: Path) -> float:
    """How many mm the one unit of all axes has; 1 where none is given.

    Raises
    ------
    GeometryError
        For a unit that is not known, or several.
    """
    given = {unit.strip().strip('"').lower() for unit in units} - {""}
    unknown = given - set(_MM_PER)
    factors = {_MM_PER[unit] for unit in given - unknown}
    if unknown or len(factors) > 1:
        raise GeometryError(f"expected one unit of length for all axes; got {', '.join(sorted(given))} in {path}")
    return factors.pop() if factors else 1.0


def tracked_frames(path: Path) -> InputError:
    """The error for a sweep of an ultrasound probe, which is a sequence of frames and no volume."""
    return InputError(_TRACKED.format(path=path))


def check_data_file(name: str, path: Path) -> Path:
    """The file beside a header that holds its voxels; raises `InputError` where that is not below the header's folder.

    A header from elsewhere must not make us read other files of this computer.
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.is_absolute() or windows.drive or posix.is_absolute() or ".." in (*windows.parts, *posix.parts):
        raise InputError(
            f"expected the voxels of {path} in its own folder; got '{name}' elsewhere: move them beside it"
        )
    found = path.parent / name
    if not found.resolve().is_relative_to(path.parent.resolve()):
        raise InputError(f"expected the voxels of {path} in its own folder; got '{name}', a link that leads elsewhere")
    return found
