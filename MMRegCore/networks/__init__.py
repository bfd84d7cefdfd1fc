"""Neural networks: an architecture with its settings in each file, found by its name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from MMRegCore.settings import unknown_name

if TYPE_CHECKING:
    from MMRegCore.networks.protocol import Network


def networks() -> dict[str, type[Network]]:
    """Every network by its name."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    return {module.NETWORK.name: module.NETWORK for module in modules if hasattr(module, "NETWORK")}


def find_network(name: str) -> type[Network]:
    """The network of that name; `InputError` with the nearest one when there is none."""
    known = networks()
    if name not in known:
        raise unknown_name("network", name, list(known))
    return known[name]
