"""Translation of the texts that a user reads; outside the application they are returned unchanged."""

from collections.abc import Callable


def _untranslated(text: str) -> str:
    return text


try:
    from slicer.i18n import tr as _translated
except ImportError:
    _translated = _untranslated

# Slicer finds the context of a text by the file that calls, so this must be its own function and no wrapper.
tr: Callable[[str], str] = _translated

__all__ = ["tr"]
