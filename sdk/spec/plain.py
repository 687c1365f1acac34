"""Values of this package as JSON, and back."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from longshore.errors import InvalidValue

__all__ = ["from_plain", "to_plain"]

_T = TypeVar("_T")


def to_plain(value: Any) -> Any:
    """Turn a value of this package into dicts, lists and scalars that JSON can hold."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: to_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def from_plain(kind: type[_T], plain: Mapping[str, Any]) -> _T:
    """Build a value of a type of this package from what :func:`to_plain` made of it, or a person wrote as JSON.

    What was written before a field existed has its default; a field that is not known here is an error, since
    leaving it out would be another value.

    Raises:
        InvalidValue: If a field is not valid, not known or missing.
    """
    if not isinstance(plain, Mapping):
        raise InvalidValue(kind.__name__, plain, "use a mapping of its fields")
    hints = _hints(kind)  # type: ignore[arg-type]
    known: dict[str, Field[Any]] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    for name in plain:
        if name not in known:
            raise InvalidValue(f"{kind.__name__}.{name}", plain[name], f"its fields are {', '.join(known)}")
    for name, field in known.items():
        if name not in plain and field.default is MISSING and field.default_factory is MISSING:
            raise InvalidValue(f"{kind.__name__}.{name}", None, "give a value")
    return kind(**{name: _value(hints.get(name), value) for name, value in plain.items()})


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(hint) in (Union, types.UnionType):
        hint = next((one for one in get_args(hint) if one is not types.NoneType), None)
    if hasattr(hint, "__dataclass_fields__"):
        return from_plain(hint, value)
    arguments = get_args(hint)
    if isinstance(value, list) and arguments:
        return [_value(arguments[0], one) for one in value]
    if isinstance(value, Mapping) and len(arguments) == 2:
        return {key: _value(arguments[1], one) for key, one in value.items()}
    return value
