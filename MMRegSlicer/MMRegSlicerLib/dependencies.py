"""Packages that Slicer does not ship: what is missing, asked for once, installed through Slicer's own ways.

SimpleITK, numpy and vtk come with Slicer and are never installed: replacing them breaks it.
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
_SHIPPED = ("SimpleITK", "numpy", "vtk")


class DependencyError(MMRegError):
    """A package that the registration needs is not there, or could not be installed."""


@dataclass(frozen=True)
class Package:
    """A package from PyPI.

    Attributes
    ----------
    name : str
        As it is imported and installed.
    minimum : str
        The oldest version that will do.
    size : str
        About what it takes to download, in words.
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
        """As pip reads it."""
        return f"{self.name}>={self.minimum}"

    @property
    def is_missing(self) -> bool:
        """Whether it cannot be found; nothing is imported to tell."""
        return find_spec(self.name) is None


@cache
def packages() -> tuple[Package, ...]:
    """What the core needs and Slicer does not ship."""
    return (
        Package("torch", "2.2", _("0.2 GB, with GPU support up to 3 GB"), _("computes the registration")),
        Package("safetensors", "0.4", _("0.5 MB"), _("reads trained weights")),
        Package("matplotlib", "3.8", _("10 MB"), _("draws the pictures of the report"), optional=True),
    )


def missing() -> tuple[Package, ...]:
    """The packages that have to be installed before the first registration."""
    return tuple(package for package in packages() if package.is_missing)


def question(lacking: Sequence[Package]) -> str:
    """The text of the one dialog: what would be installed, what for, how large."""
    lines = [f"• {package.requirement} ({package.size}): {package.purpose}" for package in lacking]
    begin = _("MMReg needs packages that Slicer does not ship. These would be downloaded into Slicer's own Python:")
    end = _("SimpleITK, numpy and everything else that Slicer ships stay as they are. Install them now?")
    return "\n".join([begin, "", *lines, "", end])


def ensure(ask: Callable[[str], bool]) -> None:
    """Install what is missing after asking once; nothing happens when nothing is missing.

    Parameters
    ----------
    ask : callable
        Called with the question; True installs.

    Raises
    ------
    DependencyError
        When the person refuses, or the installation fails; the text says what to do.
    """
    lacking = missing()
    if not lacking:
        return
    if not ask(question(lacking)):
        names = ", ".join(package.name for package in lacking)
        raise DependencyError(_("Nothing was installed. MMReg cannot register without {names}.").format(names=names))
    for package in lacking:
        _install(package)
    importlib.invalidate_caches()
    left = ", ".join(package.name for package in missing())
    if left:
        raise DependencyError(
            _("{names} cannot be found after the installation. Restart Slicer and try again.").format(names=left)
        )


def _install(package: Package) -> None:
    try:
        if package.name == "torch":
            _install_torch(package)
        else:
            _install_from_pypi(package)
    except DependencyError:
        raise
    except Exception as error:  # pip's failures come as many kinds
        advice = _("Check the network, then look at Slicer's Python console for what pip said.")
        raise DependencyError(
            _("{name} could not be installed ({error}). {advice}").format(name=package.name, error=error, advice=advice)
        ) from error


def _install_torch(package: Package) -> None:
    """Through the extension PyTorch, which knows the build that fits the graphics driver."""
    try:
        utilities = importlib.import_module("PyTorchUtils")
    except ImportError:
        raise DependencyError(
            _("Install the extension PyTorch from Slicer's Extensions Manager, restart Slicer, and try again.")
        ) from None
    logic = utilities.PyTorchUtilsLogic()
    if logic.installTorch(askConfirmation=False, torchVersionRequirement=f">={package.minimum}") is None:
        raise DependencyError(_("The extension PyTorch did not install torch."))


def _install_from_pypi(package: Package) -> None:
    try:
        packaging = importlib.import_module("slicer.packaging")
    except ImportError:  # before Slicer 5.11
        importlib.import_module("slicer.util").pip_install([package.requirement])
        return
    requirement = importlib.import_module("packaging.requirements").Requirement(package.requirement)
    # The question was asked already, for all packages together.
    packaging.pip_ensure(
        [requirement], requester=_REQUESTER, prompt_install=False, skip_packages=list(_SHIPPED), skip_in_testing=False
    )
