"""Typed settings that check themselves: what every parameter class of MMReg is built on.

A parameter class is a frozen dataclass that derives from `Settings` and makes its fields with `setting`; whole numbers,
numbers, switches, choices, lists of them and other `Settings` classes are the kinds of field there are.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from fractions import Fraction
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from MMRegCore.errors import InputError

S = TypeVar("S", bound="Settings")

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
# A longer list of names would bury the suggestion.
_LISTED = 10
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def setting(
    default: object,
    *,
    help: str,  # noqa: A002 - the word that argparse uses for it
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field, whose place it takes
    """Make a dataclass field that explains itself; the bounds hold for every element of a list."""
    return field(default=default, metadata={"help": help, "unit": unit, "minimum": minimum, "maximum": maximum})


@dataclass(frozen=True)
class Described:
    """One setting as it is shown to a person: on the command line, in a form."""

    key: str
    value: object
    kind: str
    help: str
    unit: str
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Settings:
    """Base of the parameter classes.

    Raises
    ------
    InputError
        When a value is of the wrong kind or out of its range; the message names the setting.
    """

    def __post_init__(self) -> None:
        for item, hint in _typed_fields(type(self)):
            object.__setattr__(self, item.name, _checked(getattr(self, item.name), hint, item, item.name))
        self.check_together()

    def check_together(self) -> None:
        """Raise `InputError` when values that are right one by one do not fit each other."""

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON holds them: nested dictionaries, lists, numbers, text."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, object], *, prefix: str = "") -> S:
        """Make settings from nested dictionaries; what is not given keeps its default.

        Raises
        ------
        InputError
            For an unknown key (the nearest known one is suggested), a wrong kind, a value out of range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"expected {prefix.rstrip('.') or 'the settings'} to be a JSON object; got {values!r}")
        known = {item.name: (item, hint) for item, hint in _typed_fields(cls)}
        arguments = {}
        for name, value in values.items():
            key = f"{prefix}{name}"
            if name not in known:
                raise unknown_name("setting", key, [f"{prefix}{other}" for other in known])
            item, hint = known[name]
            if _is_settings(hint) and not isinstance(value, Settings):
                arguments[name] = hint.from_dict(value, prefix=f"{key}.")
            else:
                arguments[name] = _checked(value, hint, item, key)
        return cls(**arguments)


def unknown_name(what: str, name: str, known: Sequence[str]) -> InputError:
    """Make the error for a name that is not known, with the nearest one that is."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    choice = f" out of {', '.join(known)}" if len(known) <= _LISTED else ""
    return InputError(f"expected the name of a {what}{choice}; got '{name}'{hint}")


def describe(settings: Settings, prefix: str = "") -> Iterator[Described]:
    """Go through every setting, the nested ones too, under its dotted key."""
    for item, hint in _typed_fields(type(settings)):
        value = getattr(settings, item.name)
        if isinstance(value, Settings):
            yield from describe(value, f"{prefix}{item.name}.")
        else:
            about = item.metadata
            bounds = {name: about.get(name) for name in ("minimum", "maximum")}
            unit, words = about.get("unit", ""), about.get("help", "")
            yield Described(f"{prefix}{item.name}", value, _kind(hint), words, unit, **bounds)


def with_changes(settings: S, changes: Mapping[str, object]) -> S:
    """Give the same settings but for some.

    Parameters
    ----------
    settings : Settings
    changes : mapping
        Dotted keys to values; a text is read as the setting's own kind: ``{"mcbo.strides": "2,4,6"}``.

    Raises
    ------
    InputError
        For an unknown key (the nearest known one is suggested), a wrong kind, a value out of range.
    """
    known = {shown.key: hint for shown, hint in zip(describe(settings), _hints(type(settings)), strict=True)}
    values = settings.to_dict()
    for key, value in changes.items():
        if key not in known:
            raise unknown_name("setting", key, list(known))
        *parents, last = key.split(".")
        branch = values
        for parent in parents:
            branch = branch[parent]
        branch[last] = _from_text(value, known[key], key) if isinstance(value, str) else value
    return type(settings).from_dict(values)


def as_text(value: object) -> str:
    """Write a value as `with_changes` reads it."""
    if isinstance(value, tuple):
        return ",".join(as_text(element) for element in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _typed_fields(cls: type[Settings]) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(cls)
    return [(item, hints[item.name]) for item in fields(cls)]


def _hints(cls: type[Settings]) -> Iterator[Any]:
    for _, hint in _typed_fields(cls):
        if _is_settings(hint):
            yield from _hints(hint)
        else:
            yield hint


def _is_settings(hint: Any) -> bool:  # noqa: ANN401 - a type hint can be anything
    return isinstance(hint, type) and issubclass(hint, Settings)


def _plain(value: object) -> object:
    if isinstance(value, Settings):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _options(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _kind(hint: Any) -> str:  # noqa: ANN401
    words = []
    for option in _options(hint):
        if get_origin(option) is Literal:
            words += [f"'{choice}'" for choice in get_args(option)]
        elif get_origin(option) is tuple:
            words.append(f"a list ({_kind(get_args(option)[0])}, …)")
        else:
            words.append(_KINDS.get(option, "a group of settings"))
    return " or ".join(words)


def _checked(value: object, hint: Any, item: Field[Any], key: str) -> object:  # noqa: ANN401
    for option in _options(hint):
        good, result = _as_kind(value, option)
        if good:
            _check_range(result, item, key)
            return result
    raise InputError(f"expected {key} to be {_kind(hint)}; got {value!r}")


def _as_kind(value: object, option: Any) -> tuple[bool, object]:  # noqa: ANN401
    """Whether the value is of that kind, and the value as that kind holds it."""
    if get_origin(option) is Literal:
        return isinstance(value, str) and value in get_args(option), value
    if get_origin(option) is tuple:
        return _as_tuple(value, get_args(option)[0])
    if option is bool or isinstance(value, bool):
        return option is bool and isinstance(value, bool), value
    if option in (int, float):
        return _as_number(value, option)
    return isinstance(value, option), value


def _as_tuple(value: object, element: Any) -> tuple[bool, object]:  # noqa: ANN401
    if not isinstance(value, list | tuple) or not value:
        return False, value
    converted = [_as_kind(part, element) for part in value]
    return all(good for good, _ in converted), tuple(part for _, part in converted)


def _as_number(value: object, kind: type[int] | type[float]) -> tuple[bool, object]:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return False, value
    return (True, kind(value)) if kind is float or value == int(value) else (False, value)


def _check_range(value: object, item: Field[Any], key: str) -> None:
    minimum, maximum, unit = (item.metadata.get(name) for name in ("minimum", "maximum", "unit"))
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, int | float) or isinstance(part, bool):
            continue
        low, high = minimum is not None and part < minimum, maximum is not None and part > maximum
        if low or high:
            bound = f"at least {minimum:g}" if low else f"at most {maximum:g}"
            raise InputError(f"expected {key} to be {bound}{f' {unit}' if unit else ''}; got {part:g}")


def _from_text(text: str, hint: Any, key: str) -> object:  # noqa: ANN401
    for option in _options(hint):
        try:
            return _parsed(text.strip(), option)
        except (ValueError, ZeroDivisionError):
            continue
    raise InputError(f"expected {key} to be {_kind(hint)}; got '{text}'")


def _parsed(text: str, option: Any) -> object:  # noqa: ANN401
    """Read a text as one kind; ``ValueError`` when it is not of it."""
    if get_origin(option) is tuple:
        return [_parsed(part.strip(), get_args(option)[0]) for part in text.split(",")]
    if get_origin(option) is Literal:
        return get_args(option)[get_args(option).index(text)]
    if option is bool:
        if text.lower() not in _SWITCH:
            raise ValueError(text)
        return _SWITCH[text.lower()]
    # A fraction takes 0.27, 1e-3 and 1/3 alike, and refuses nan and inf.
    return float(Fraction(text)) if option is float else cast(type, option)(text)
