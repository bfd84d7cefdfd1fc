"""Results as JSON: frozen dataclasses of numbers, texts, tuples and each other, written and read with their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from MMRegCore.errors import InputError

T = TypeVar("T")


def to_json(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """The record as the json module writes it: dictionaries and tuples."""
    return asdict(record)


def from_json(cls: type[T], value: Mapping[str, Any]) -> T:
    """Make a record from what `to_json` gave; keys that a later version added are left out.

    Raises
    ------
    InputError
        When a field is missing or of another kind; the message names it.
    """
    made: T = _as(cls, value, cls.__name__)
    return made


def _as(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if is_dataclass(kind):
        return _record(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        wanted = next(k for k in inner if k is not NoneType)
        return None if value is None else _as(wanted, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            return tuple(_as(k, v, where) for k, v in zip(kinds, value, strict=True))
    if origin is Literal and value in inner:
        return value
    plain = origin or kind
    if plain is float and isinstance(value, int | float):
        return float(value)
    if plain in (int, str, bool, dict) and isinstance(value, plain):
        return value
    raise InputError(f"expected {where} to be {getattr(kind, '__name__', kind)}; got {value!r}")


def _record(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise InputError(f"expected {where} to be a JSON object; got {value!r}")
    hints = get_type_hints(kind)
    missing = [item.name for item in fields(kind) if item.name not in value]
    if missing:
        raise InputError(f"expected {where} to have {', '.join(missing)}; got {', '.join(value)}")
    return kind(**{item.name: _as(hints[item.name], value[item.name], f"{where}.{item.name}") for item in fields(kind)})
