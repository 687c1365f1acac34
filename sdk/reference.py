"""What a component or pipeline takes and gives, read from its signature and docstring: one source for help and docs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

__all__ = ["Field", "Reference", "describe"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input or output.

    Args:
        name: Its name.
        type: Kubeflow's name of the type, such as ``String`` or ``system.Model``.
        artifact: Whether it is an artifact and not a parameter.
        required: Whether a caller must give it; False for outputs.
        default: Default of an optional parameter.
        text: What the docstring says of it.
    """

    name: str
    type: str
    artifact: bool
    required: bool
    default: Any
    text: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The documentation of a component or pipeline.

    Args:
        name: Name of the Python function.
        summary: The docstring's first line.
        text: The rest of its description.
        inputs: Inputs, in the order of the signature.
        outputs: Outputs: artifacts, then parameters.
        raises: Error and when it is raised.
    """

    name: str
    summary: str
    text: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    raises: tuple[tuple[str, str], ...]


def describe(component: Any) -> Reference:
    """Read the documentation of a ``kfp.dsl`` component or pipeline made of a Python function."""
    import docstring_parser

    function = getattr(component, "python_func", None) or component.pipeline_func
    spec = component.component_spec
    parsed = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    told = {parameter.arg_name: _one_line(parameter.description) for parameter in parsed.params}
    # kfp reads named returns from the docstring itself, a single one it does not
    told |= {name: _one_line(item.description) for name, item in (spec.outputs or {}).items() if item.description}
    if parsed.returns is not None:
        told.setdefault("Output", _one_line(parsed.returns.description))
    declared = {name: position for position, name in enumerate(inspect.signature(function).parameters)}
    inputs = sorted((spec.inputs or {}).items(), key=lambda item: declared.get(item[0], len(declared)))
    outputs = sorted((spec.outputs or {}).items(), key=lambda item: declared.get(item[0], len(declared)))
    return Reference(
        name=function.__name__,
        summary=parsed.short_description or "",
        text=parsed.long_description or "",
        inputs=tuple(
            _field(name, item.type, told, required=not item.optional, default=item.default) for name, item in inputs
        ),
        outputs=tuple(_field(name, item.type, told, required=False, default=None) for name, item in outputs),
        raises=tuple((item.type_name or "", _one_line(item.description)) for item in parsed.raises),
    )


def _field(name: str, kind: str, told: dict[str, str], *, required: bool, default: Any) -> Field:
    kind, _, version = kind.partition("@")
    return Field(
        name=name,
        type=kind.replace("typing.", ""),
        artifact=bool(version),
        required=required,
        default=default,
        text=told.get(name, ""),
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
