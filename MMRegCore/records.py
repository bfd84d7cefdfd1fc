"""JSON: objects from files, and results as frozen dataclasses of numbers, texts, tuples and each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from MMRegCore.errors import InputError

T = TypeVar("T")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read the JSON object in a file; `InputError`, which says that ``what`` was expected, when that cannot be done."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"expected {what}; {path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"expected {what}, a JSON object; got {type(content).__name__} in {path.name}")
    return content


def to_json(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """The record as JSON holds it: dictionaries and lists."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(record)))
    return plain


def from_json(cls: type[T], value: Mapping[str, Any]) -> T:
    """Make a record from what `to_json` gave; keys that a later version added are left out.

    Keys that an earlier version did not write have the default of their field.

    Raises `InputError`, which names the field, when one is missing or of another kind.
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
    if origin is tuple and isinstance(value, list):
        kinds = (inner[0],) * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            return tuple(_as(k, v, where) for k, v in zip(kinds, value, strict=True))
    if origin is Literal and value in inner:
        return value
    if _is_plain(origin or kind, value):
        return float(value) if kind is float else value
    raise InputError(f"expected {where} to be {kind.__name__ if isinstance(kind, type) else kind}; got {value!r}")


def _is_plain(kind: Any, value: Any) -> bool:  # noqa: ANN401
    """Whether a value is of that kind; JSON writes 2.0 as 2, and true is no number."""
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | float) if kind is float else kind in (int, str, dict) and isinstance(value, kind)


def _record(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise InputError(f"expected {where} to be a JSON object; got {value!r}")
    hints = get_type_hints(kind)
    given = [item for item in fields(kind) if item.name in value]
    missing = [item.name for item in fields(kind) if item.name not in value and item.default is MISSING]
    if missing:
        raise InputError(f"expected {where} to have {', '.join(missing)}; got {', '.join(value)}")
    return kind(**{item.name: _as(hints[item.name], value[item.name], f"{where}.{item.name}") for item in given})
