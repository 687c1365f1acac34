"""Parameters of pipelines and components, and their values as they are typed on a command line."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from longshore.errors import ConfigError

__all__ = ["Parameter", "Type", "closest", "parameters_of", "parse_settings", "parse_value"]

Type = Literal["string", "integer", "number", "boolean", "list", "object"]

_TYPES: Final[Mapping[str, Type]] = {
    "STRING": "string",
    "NUMBER_INTEGER": "integer",
    "NUMBER_DOUBLE": "number",
    "BOOLEAN": "boolean",
    "LIST": "list",
    "STRUCT": "object",
}
_TAKES: Final[Mapping[Type, str]] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": 'a JSON list such as ["a", "b"]',
    "object": 'a JSON object such as {"key": 1}',
}
_BOOLEANS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a pipeline or component.

    Args:
        name: Its name.
        type: What it takes.
        required: Whether it must be given.
        default: Its value if it is not given; None if it is then unset.
    """

    name: str
    type: Type
    required: bool
    default: Any = None


def parameters_of(component: Any) -> tuple[Parameter, ...]:
    """The parameters of a kfp pipeline or component, in the order of its signature; artifacts are none."""
    from kfp.dsl.types import type_utils

    return tuple(
        Parameter(
            name=name,
            type=_TYPES[type_utils.get_parameter_type_name(spec.type)],
            required=not spec.optional,
            default=spec.default,
        )
        for name, spec in (component.component_spec.inputs or {}).items()
        if type_utils.is_parameter_type(spec.type) and not type_utils.is_task_final_status_type(spec.type)
    )


def parse_settings(settings: Iterable[str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Values of ``NAME=VALUE`` arguments, of the types that the parameters take.

    Raises:
        ConfigError: If one is not of that form, names no parameter, names one twice or has the wrong type.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {setting}: write NAME=VALUE")
        if name not in known:
            raise ConfigError(f"there is no parameter {name!r}: {closest(name, known)}")
        if name in values:
            raise ConfigError(f"parameter {name} is set twice")
        values[name] = parse_value(text, known[name])
    return values


def closest(name: str, known: Iterable[str]) -> str:
    """The names most like ``name``, or all of them, as the end of a sentence."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there is {', '.join(names)}" if names else "there is none"


def parse_value(text: str, parameter: Parameter) -> Any:
    """The value that a text stands for; ``null`` is None where a parameter may be unset.

    Raises:
        ConfigError: If it stands for none of the parameter's type.
    """
    if text == "null" and parameter.type != "string" and not parameter.required:
        return None
    try:
        return _PARSERS[parameter.type](text)
    except (ValueError, KeyError) as error:
        why = f" ({error.msg} at column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"parameter {parameter.name} takes {_TAKES[parameter.type]}, not {text!r}{why}") from error


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text.strip()):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.strip().lower()]


def _json(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise ValueError(text)
        return value

    return parse


_PARSERS: Final[Mapping[Type, Callable[[str], Any]]] = {
    "string": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "list": _json(list),
    "object": _json(dict),
}
