"""Python packages that Slicer does not include: detected, and installed after one confirmation.

SimpleITK, numpy, pydicom and vtk come with Slicer and are never installed: replacing them breaks it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from MMRegCore.errors import MMRegError
from MMRegSlicerLib.translation import tr as _

_REQUESTER = "MMReg"
_INCLUDED_IN_SLICER = ("SimpleITK", "numpy", "pydicom", "vtk")


class DependencyError(MMRegError):
    """A required package is missing or could not be installed."""


@dataclass(frozen=True)
class Package:
    """A package from PyPI.

    Attributes
    ----------
    name : str
        As it is installed; it is imported in lower case.
    minimum : str
        The minimum version.
    size : str
        Approximate download size, for the user.
    purpose : str
    optional : bool
        Whether registration works without it.
    """

    name: str
    minimum: str
    size: str
    purpose: str
    optional: bool = False

    @property
    def requirement(self) -> str:
        """The requirement specifier for pip."""
        return f"{self.name}>={self.minimum}"

    @property
    def is_missing(self) -> bool:
        """Whether the package cannot be found; it is not imported."""
        return find_spec(self.name.lower()) is None


@cache
def packages() -> tuple[Package, ...]:
    """The packages that the core needs and Slicer does not include."""
    return (
        Package("torch", "2.4", _("0.2 GB, with GPU support up to 3 GB"), _("computes the registration")),
        Package("safetensors", "0.4", _("0.5 MB"), _("reads trained network weights")),
        Package("Jinja2", "3.1", _("0.1 MB"), _("writes the report")),
        Package("matplotlib", "3.8", _("10 MB"), _("draws the figures of the report"), optional=True),
    )


def missing_packages() -> tuple[Package, ...]:
    """The packages that are installed before the first registration."""
    return tuple(package for package in packages() if package.is_missing)


def missing_required() -> str:
    """The names of the missing packages without which nothing can be registered, separated by commas."""
    return ", ".join(package.name for package in missing_packages() if not package.optional)


def ensure_installed(confirm: Callable[[str], bool]) -> bool:
    """Install the missing packages after one confirmation; return whether there were any.

    Parameters
    ----------
    confirm : callable
        Called with the question if any package is missing; True installs.

    Raises
    ------
    DependencyError
        When the user declines or the installation fails; the message says what to do.
    """
    missing = missing_packages()
    if not missing:
        return False
    if not confirm(_question(missing)):
        names = ", ".join(package.name for package in missing)
        raise DependencyError(_("Nothing was installed. Registration requires {names}.").format(names=names))
    for package in missing:
        _install(package)
    importlib.invalidate_caches()
    still_missing = ", ".join(package.name for package in missing_packages())
    if still_missing:
        raise DependencyError(
            _("{names} cannot be found after the installation. Restart Slicer and try again.").format(
                names=still_missing
            )
        )
    return True


def _question(missing: Sequence[Package]) -> str:
    lines = [f"• {package.requirement} ({package.size}): {package.purpose}" for package in missing]
    begin = _("MMReg requires Python packages that Slicer does not include:")
    end = _("SimpleITK, numpy and all other packages included in Slicer are not changed. Download and install now?")
    return "\n".join([begin, "", *lines, "", end])


def _install(package: Package) -> None:
    try:
        if package.name == "torch":
            _install_torch(package)
        else:
            _install_from_pypi(package)
    except DependencyError:
        raise
    except Exception as error:  # pip fails with many kinds of exceptions
        advice = _("Check the network connection and the pip output in Slicer's Python console.")
        raise DependencyError(
            _("{name} could not be installed ({error}). {advice}").format(name=package.name, error=error, advice=advice)
        ) from error


def _install_torch(package: Package) -> None:
    """Install through the PyTorch extension, which knows the build that fits the graphics driver."""
    try:
        utilities = importlib.import_module("PyTorchUtils")
    except ImportError:
        raise DependencyError(
            _("Install the PyTorch extension from Slicer's Extensions Manager, restart Slicer, and try again.")
        ) from None
    logic = utilities.PyTorchUtilsLogic()
    if logic.installTorch(askConfirmation=False, torchVersionRequirement=f">={package.minimum}") is None:
        raise DependencyError(_("The PyTorch extension did not install torch."))


def _install_from_pypi(package: Package) -> None:
    try:
        packaging = importlib.import_module("slicer.packaging")
    except ImportError:  # before Slicer 5.11
        importlib.import_module("slicer.util").pip_install([package.requirement])
        return
    requirement = importlib.import_module("packaging.requirements").Requirement(package.requirement)
    # The user has confirmed already, for all packages together.
    packaging.pip_ensure(
        [requirement],
        requester=_REQUESTER,
        prompt_install=False,
        skip_packages=list(_INCLUDED_IN_SLICER),
        skip_in_testing=False,
    )
