"""Registration methods, one file each: its settings and ``solve``.  Names and settings come without torch.

A module of this package that defines ``METHOD`` adds a method; see docs/extending.md.
"""

from __future__ import annotations

from MMRegCore.methods.protocol import Method
from MMRegCore.settings import Settings, named, plugins_of


def methods() -> dict[str, Method]:
    """Every method by its name."""
    return {method.name: method for method in plugins_of(__name__, "METHOD")}


def method_names() -> tuple[str, ...]:
    """Names of all methods, in alphabetical order."""
    return tuple(sorted(methods()))


def find_method(name: str) -> Method:
    """The method of that name; `InputError` with the nearest one when there is none."""
    return named("method", name, methods())


def settings_class(method: str) -> type[Settings]:
    """The class of a method's settings."""
    return find_method(method).settings
