"""Results as JSON: frozen dataclasses of numbers, texts, tuples and each other, written and read back with their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from MMRegCore.errors import InputError

T = TypeVar("T")


def to_json(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """The record as JSON holds it: dictionaries and lists."""
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
        return None if value is None and NoneType in inner else _as(next(k for k in inner if k is not NoneType), value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_as(k, v, where) for k, v in zip(kinds, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    good = value in inner if origin is Literal else isinstance(value, int if kind is int else (int, float) if kind is float else kind)
    if not good:
        raise InputError(f"expected {where} to be {getattr(kind, '__name__', kind)}; got {value!r}")
    return float(value) if kind is float else value


def _record(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise InputError(f"expected {where} to be a JSON object; got {value!r}")
    hints = get_type_hints(kind)
    missing = [item.name for item in fields(kind) if item.name not in value]
    if missing:
        raise InputError(f"expected {where} to have {', '.join(missing)}; got {', '.join(value)}")
    return kind(**{item.name: _as(hints[item.name], value[item.name], f"{where}.{item.name}") for item in fields(kind)})
