"""Similarity measures, one file each; docs/extending.md tells how to add one.  Their names come without torch."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import TYPE_CHECKING, cast

from MMRegCore.settings import unknown_name
from MMRegCore.similarity import descriptors

if TYPE_CHECKING:
    from MMRegCore.similarity.protocol import Descriptor, Similarity
    from MMRegCore.similarity.settings import DescriptorSettings, SimilaritySettings

_NO_MEASURES = ("protocol", "settings")


def descriptor_names() -> tuple[str, ...]:
    """Names of the measures that compare descriptors, position by position."""
    return tuple(sorted(module.name for module in iter_modules(descriptors.__path__)))


def similarity_names() -> tuple[str, ...]:
    """Names of all measures."""
    others = (module.name for module in iter_modules(__path__) if not module.ispkg)
    return tuple(sorted({*others, *descriptor_names()}.difference(_NO_MEASURES)))


def make_similarity(settings: SimilaritySettings | DescriptorSettings) -> Similarity:
    """Make the measure that the settings name; its parameters are the settings that begin with its name.

    Raises
    ------
    InputError
        When there is no such measure, or it cannot be made with these parameters.
    """
    prefix, values = f"{settings.name}_", settings.to_dict()
    parameters = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    return _find(settings.name)(**parameters)


def make_descriptor(settings: DescriptorSettings) -> Descriptor:
    """The same for a measure that is known to compare descriptors."""
    return cast("Descriptor", make_similarity(settings))


def patch_similarity(name: str, half_width: int) -> Similarity:
    """The measure of that name; where it compares patches, in patches of that half-width."""
    measure = _find(name)
    patchwise = "half_width" in signature(measure.__init__).parameters
    return measure(half_width=half_width) if patchwise else measure()  # type: ignore[call-arg]


def _find(name: str) -> type[Similarity]:
    if name not in similarity_names():
        raise unknown_name("similarity", name, similarity_names())
    package = f"{__name__}.descriptors" if name in descriptor_names() else __name__
    return cast("type[Similarity]", import_module(f"{package}.{name}").MEASURE)
