"""Registration methods, one file each: its settings and ``solve``.  Names and settings come without torch.

A module of this package that defines ``METHOD`` adds a method; see docs/extending.md.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from MMRegCore.methods.protocol import Method
from MMRegCore.settings import Settings, unknown_name


def methods() -> dict[str, Method]:
    """Every method by its name."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    return {module.METHOD.name: module.METHOD for module in modules if hasattr(module, "METHOD")}


def method_names() -> tuple[str, ...]:
    """Names of all methods, in alphabetical order."""
    return tuple(sorted(methods()))


def find_method(name: str) -> Method:
    """The method of that name; `InputError` with the nearest one when there is none."""
    known = methods()
    if name not in known:
        raise unknown_name("method", name, method_names())
    return known[name]


def settings_class(method: str) -> type[Settings]:
    """The class of a method's settings."""
    return find_method(method).settings
