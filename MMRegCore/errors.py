"""The errors that MMReg raises at its public edge; each message says what was expected and what came."""


class MMRegError(Exception):
    """Base of every error that MMReg raises on purpose."""


class InputError(MMRegError):
    """An input (file, image, mask, landmark, setting) cannot be used as it is."""


class GeometryError(InputError):
    """Grids, spacings or transforms do not describe a usable space."""


class DeviceError(MMRegError):
    """The device or the memory that was asked for is not there."""


class Cancelled(MMRegError):
    """The caller asked to stop; nothing was written."""
