"""Typed settings that check themselves: what every parameter class of MMReg is built on.

A parameter class is a frozen dataclass that derives from `Settings` and makes its fields with `setting`; whole numbers,
numbers, switches, choices, texts, lists of them and other `Settings` classes are the kinds of field there are.  A field
made with `variant` holds the settings of whatever plug-in another field names.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from fractions import Fraction
from importlib import import_module
from pkgutil import iter_modules
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from MMRegCore.errors import InputError

S = TypeVar("S", bound="Settings")
T = TypeVar("T")
Tier = Literal["basic", "expert"]

# A longer list of names would bury the suggestion.
_LISTED = 10
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_KINDS = {bool: "switch", int: "integer", float: "number", str: "text"}
# What a field's name may end in, and the unit that it says.
_UNITS = {"mm": "mm", "voxel": "voxel", "deg": "°", "db": "dB"}
_EXAMPLES = {"switch": "true", "integer": "4", "number": "0.5", "text": "name"}


def setting(
    default: object,
    help: str,  # noqa: A002 - the word that argparse uses for it
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    label: str = "",
    tier: Tier = "expert",
    choices: Callable[[], Sequence[str]] | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field, whose place it takes
    """Make a dataclass field that explains itself.

    Parameters
    ----------
    help : str
        One sentence.
    unit : str
        Where the field's name does not end in it.
    minimum, maximum : float, optional
        Bounds of a number, or of every number of a list.
    label : str
        What a form shows; made from the field's name when empty.
    tier : {'basic', 'expert'}
        Who should see it.
    choices : callable, optional
        Gives the names that a text may hold, where they depend on the plug-ins that there are.
    """
    about = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum}
    return field(default=default, metadata={**about, "label": label, "tier": tier, "choices": choices})


def variant(chosen_by: str, class_of: Callable[[str], type[Settings]]) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Make a field for the settings of the plug-in that the field ``chosen_by`` names; keys begin with that name.

    Parameters
    ----------
    chosen_by : str
        A text field of the same class, before this one.
    class_of : callable
        From a name to its class of settings; raises `InputError` for a name that is not known.
    """
    return field(default=None, metadata={"chosen_by": chosen_by, "class_of": class_of})


@dataclass(frozen=True)
class SettingInfo:
    """One setting as a command line or a form shows it."""

    key: str  # dotted
    kind: str  # switch, integer, number, text or choice: of the value, or of the elements of a list
    is_list: bool
    choices: tuple[str, ...]  # what a choice is made from; for other kinds, words that are allowed beside a value
    default: object  # the value in the settings that were described
    label: str
    help: str
    unit: str
    tier: Tier
    minimum: float | None
    maximum: float | None

    @property
    def expected(self) -> str:
        """The kind of value in words."""
        words = {**{name: _WORDS[kind] for kind, name in _KINDS.items()}, "choice": ""}[self.kind]
        words = " or ".join(filter(None, [words, *(f"'{choice}'" for choice in self.choices)]))
        return f"a list ({words}, …)" if self.is_list else words

    @property
    def range(self) -> str:
        """The range of a number in words, with its unit; empty where there is none."""
        bounds = ((word, bound) for word, bound in (("from", self.minimum), ("to", self.maximum)) if bound is not None)
        return " ".join([*(f"{word} {bound:g}" for word, bound in bounds), *filter(None, [self.unit])])

    @property
    def example(self) -> str:
        """A value as a command line takes it."""
        one = self.choices[0] if self.choices else _EXAMPLES[self.kind]
        return f"{one},{one}" if self.is_list else one

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """Base of the parameter classes; `InputError` names the setting of a value of the wrong kind or out of range."""

    def __post_init__(self) -> None:
        for item, hint in _typed_fields(type(self)):
            value = getattr(self, item.name)
            if _is_variant(item):
                value = self._variant(item, value)
            object.__setattr__(self, item.name, _checked(value, hint, item, item.name))
        self.check_together()

    def check_together(self) -> None:
        """Raise `InputError` when values that are right one by one do not fit each other."""

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON holds them: nested dictionaries, lists, numbers, text."""
        return {_key(item, self): _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, object], *, prefix: str = "") -> S:
        """Make settings from nested dictionaries; what is not given keeps its default.

        Raises `InputError` for an unknown key (the nearest known one is suggested), a wrong kind, a value out of range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"expected {prefix.rstrip('.') or 'the settings'} to be a JSON object; got {values!r}")
        known = {f"{prefix}{_key_in(item, cls, values)}": (item, hint) for item, hint in _typed_fields(cls)}
        arguments: dict[str, Any] = {}
        for name, value in values.items():
            key = f"{prefix}{name}"
            item, hint = named("setting", key, known)
            kind = item.metadata["class_of"](name) if _is_variant(item) else hint
            if isinstance(kind, type) and issubclass(kind, Settings) and not isinstance(value, Settings):
                arguments[item.name] = kind.from_dict(_over(item.default, value), prefix=f"{key}.")
            else:
                arguments[item.name] = _checked(value, hint, item, key)
        return cls(**arguments)

    def _variant(self, item: Field[Any], value: object) -> Settings:
        name = getattr(self, item.metadata["chosen_by"])
        wanted: type[Settings] = item.metadata["class_of"](name)
        if value is None:
            return wanted()
        if not isinstance(value, wanted):
            raise InputError(f"expected {item.name} of {name} ({wanted.__name__}); got {type(value).__name__}")
        return value


def unknown_name(what: str, name: str, known: Sequence[str]) -> InputError:
    """Make the error for a name that is not known, with the nearest one that is."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    choice = f" out of {', '.join(known)}" if len(known) <= _LISTED else ""
    return InputError(f"expected the name of a {what}{choice}; got '{name}'{hint}")


def named(what: str, name: str, known: Mapping[str, T]) -> T:
    """What is known under that name; `InputError` with the nearest name where nothing is."""
    if name not in known:
        raise unknown_name(what, name, list(known))
    return known[name]


def plugins_of(package: str, attribute: str) -> list[Any]:
    """Plug-ins are found by being there: the attribute of every module of a package that defines it."""
    modules = [import_module(f"{package}.{found.name}") for found in iter_modules(import_module(package).__path__)]
    return [getattr(module, attribute) for module in modules if hasattr(module, attribute)]


def describe(settings: Settings) -> Iterator[SettingInfo]:
    """Go through every setting, the nested ones too, under its dotted key."""
    for key, value, item, hint in _leaves(settings):
        yield _info(key, value, item, hint)


def with_changes(settings: S, changes: Mapping[str, object]) -> S:
    """Give the same settings but for some.

    Parameters
    ----------
    changes : mapping
        Dotted keys to values; a text is read as the setting's own kind: ``{"mcbo.strides": "2,4,6"}``.  Another plug-in
        begins with its own defaults.  Errors are those of `Settings.from_dict`.
    """
    choosers = {item.metadata["chosen_by"]: item for item in fields(settings) if _is_variant(item)}
    chosen = {key: changes[key] for key in choosers if key in changes and changes[key] != getattr(settings, key)}
    if chosen:
        kept = {k: v for k, v in settings.to_dict().items() if k not in {_key(choosers[c], settings) for c in chosen}}
        settings = type(settings).from_dict({**kept, **chosen})
    known = {key: (item, hint, current) for key, current, item, hint in _leaves(settings)}
    values = settings.to_dict()
    for key, value in changes.items():
        item, hint, current = named("setting", key, known)
        *parents, last = key.split(".")
        branch = values
        for parent in parents:
            branch = branch[parent]
        branch[last] = _from_text(value, item, hint, current, key) if isinstance(value, str) else value
    try:
        return type(settings).from_dict(values)
    except InputError as error:
        works = " ".join(f"{key}={as_text(known[key][2])}" for key in changes)
        raise InputError(f"{error}; this works: {works}") from error


def as_text(value: object) -> str:
    """Write a value as `with_changes` reads it."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(as_text(element) for element in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _over(default: object, values: Any) -> Any:  # noqa: ANN401
    """The values of a group over its defaults, which may differ from those of its class."""
    if isinstance(default, Settings) and isinstance(values, Mapping):
        return {**default.to_dict(), **values}
    return values


def _typed_fields(cls: type[Settings]) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(cls)
    return [(item, hints[item.name]) for item in fields(cls)]


def _leaves(settings: Settings, prefix: str = "") -> Iterator[tuple[str, object, Field[Any], Any]]:
    """Key, value, field and type of every setting that is no group."""
    for item, hint in _typed_fields(type(settings)):
        value, key = getattr(settings, item.name), f"{prefix}{_key(item, settings)}"
        if isinstance(value, Settings):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value, item, hint


def _is_variant(item: Field[Any]) -> bool:
    return "chosen_by" in item.metadata


def _key(item: Field[Any], settings: Settings) -> str:
    """The name of a field in JSON."""
    return str(getattr(settings, item.metadata["chosen_by"])) if _is_variant(item) else item.name


def _key_in(item: Field[Any], cls: type[Settings], values: Mapping[str, object]) -> str:
    """The name of a field in JSON that may leave out what is as by default."""
    if not _is_variant(item):
        return item.name
    chooser = next(other for other in fields(cls) if other.name == item.metadata["chosen_by"])
    return str(values.get(chooser.name, None if chooser.default is MISSING else chooser.default))


def _plain(value: object) -> object:
    if isinstance(value, Settings):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _options(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _info(key: str, value: object, item: Field[Any], hint: Any) -> SettingInfo:  # noqa: ANN401
    options = _options(hint)
    is_list = any(get_origin(option) is tuple for option in options)
    flat = [get_args(option)[0] if get_origin(option) is tuple else option for option in options]
    choices = [name for option in flat if get_origin(option) is Literal for name in get_args(option)]
    choices += ["none"] if type(None) in flat else []
    about = item.metadata
    kinds = [_KINDS[option] for option in flat if option in _KINDS]
    if about.get("choices"):
        kinds, choices = [], list(about["choices"]())
    return SettingInfo(
        key=key,
        kind=kinds[0] if kinds else "choice",
        is_list=is_list,
        choices=tuple(choices),
        default=value,
        label=about.get("label") or _label(item.name, _unit(item)),
        help=about.get("help", ""),
        unit=_unit(item),
        tier=about.get("tier", "expert"),
        minimum=about.get("minimum"),
        maximum=about.get("maximum"),
    )


def _unit(item: Field[Any]) -> str:
    return item.metadata.get("unit") or _UNITS.get(item.name.rpartition("_")[2], "")


def _label(name: str, unit: str) -> str:
    words = name.removesuffix(f"_{unit}").replace("_", " ")
    return words[:1].upper() + words[1:]


def _checked(value: object, hint: Any, item: Field[Any], key: str) -> object:  # noqa: ANN401
    for option in _options(hint):
        good, result = _as_kind(value, option)
        if good:
            _check_range(result, item, key)
            _check_name(result, item)
            return result
    raise InputError(f"expected {key} to be {_info(key, value, item, hint).expected}; got {value!r}")


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
    minimum, maximum, unit = item.metadata.get("minimum"), item.metadata.get("maximum"), _unit(item)
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, int | float) or isinstance(part, bool):
            continue
        low, high = minimum is not None and part < minimum, maximum is not None and part > maximum
        if low or high:
            bound = f"at least {minimum:g}" if low else f"at most {maximum:g}"
            raise InputError(f"expected {key} to be {bound}{f' {unit}' if unit else ''}; got {part:g}")


def _check_name(value: object, item: Field[Any]) -> None:
    known = item.metadata.get("choices")
    if known and value not in known():
        what = item.metadata.get("label") or _label(item.name, "")
        raise unknown_name(what.lower(), str(value), list(known()))


def _from_text(text: str, item: Field[Any], hint: Any, current: object, key: str) -> object:  # noqa: ANN401
    for option in _options(hint):
        try:
            return _parsed(text.strip(), option)
        except (ValueError, ZeroDivisionError):
            continue
    about = _info(key, None, item, hint)
    # What the setting is now is sure to fit the others.
    example = f"{key}={about.example if current is None else as_text(current)}"
    if about.is_list:
        example += f" or '{key}=[{as_text(current)}]'"
    raise InputError(f"expected {key} to be {about.expected}, such as {example}; got '{text}'")


def _parsed(text: str, option: Any) -> object:  # noqa: ANN401
    """Read a text as one kind; ``ValueError`` when it is not of it."""
    if get_origin(option) is tuple:
        parts = json.loads(text) if text.startswith("[") else text.split(",")
        return [_parsed(str(part).strip(), get_args(option)[0]) for part in parts]
    if get_origin(option) is Literal:
        return get_args(option)[get_args(option).index(text)]
    if option is type(None):
        if text != "none":
            raise ValueError(text)
        return None
    if option is bool:
        if text.lower() not in _SWITCH:
            raise ValueError(text)
        return _SWITCH[text.lower()]
    # A fraction takes 0.27, 1e-3 and 1/3 alike, and refuses nan and inf.
    return float(Fraction(text)) if option is float else option(text)
