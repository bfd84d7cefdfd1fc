"""Translation of what a person reads; outside the application the texts stay as they are."""

from collections.abc import Callable


def _as_it_is(text: str) -> str:
    return text


try:
    from slicer.i18n import tr as _found
except ImportError:
    _found = _as_it_is

# Slicer finds the context of a text by the file that calls, so this must be its own function and no wrapper.
tr: Callable[[str], str] = _found

__all__ = ["tr"]
