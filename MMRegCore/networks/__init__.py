"""Neural networks: an architecture with its settings in each file, found by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from MMRegCore.settings import named, plugins_of

if TYPE_CHECKING:
    from MMRegCore.networks.protocol import Network


def networks() -> dict[str, type[Network]]:
    """Every network by its name."""
    return {network.name: network for network in plugins_of(__name__, "NETWORK")}


def find_network(name: str) -> type[Network]:
    """The network of that name; `InputError` with the nearest one when there is none."""
    return named("network", name, networks())
