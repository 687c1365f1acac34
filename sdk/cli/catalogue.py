"""``longshore pipelines``, ``components`` and ``compile``."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

import click

from longshore.cli.app import debug_option
from longshore.cli.output import columns, echo_json
from longshore.cli.parameters import Parameter, closest, parameters_of, parse_settings
from longshore.errors import ConfigError

__all__ = ["compile", "compiled", "components", "find_pipeline", "pipelines"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
set_option = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a parameter; lists and objects as JSON."
)


def find_pipeline(name: str) -> Any:
    """The pipeline of that name, written with ``_`` or ``-``.

    Raises:
        ConfigError: If there is none, with the names that are near.
    """
    from longshore import pipelines as known

    wanted = name.replace("-", "_")
    if wanted not in known.names():
        raise ConfigError(f"there is no pipeline {name!r}: {closest(wanted, known.names())}")
    return known.get(wanted)


def find_component(name: str) -> Any:
    """The component of that name, written with ``_`` or ``-``.

    Raises:
        ConfigError: If there is none, with the names that are near.
    """
    from longshore import components as known

    wanted = name.replace("-", "_")
    if wanted not in known.names():
        raise ConfigError(f"there is no component {name!r}: {closest(wanted, known.names())}")
    return known.get(wanted)


def summary_of(item: Any) -> str:
    """The first line of what is documented of a pipeline or component."""
    return _unquoted(item.component_spec.description).partition("\n")[0]


def _unquoted(text: str | None) -> str:
    """A docstring's text without its marks of code."""
    return (text or "").strip().replace("``", "")


@click.command()
@click.argument("name", required=False)
@json_option
@debug_option
def pipelines(name: str | None, as_json: bool) -> None:
    """List the pipelines, or describe the one called NAME."""
    from longshore import pipelines as known

    if name is not None:
        return _describe(find_pipeline(name), as_json=as_json)
    items = [(each, known.get(each)) for each in known.names()]
    if as_json:
        return echo_json([_as_plain(each, item) for each, item in items])
    return click.echo(columns([(each, summary_of(item)) for each, item in items]))


@click.command()
@click.argument("name", required=False)
@json_option
@debug_option
def components(name: str | None, as_json: bool) -> None:
    """List the components by stage, or describe the one called NAME."""
    from longshore import components as known

    if name is not None:
        return _describe(find_component(name), as_json=as_json)
    items = [(each, known.get(each)) for each in known.names()]
    if as_json:
        return echo_json([{**_as_plain(each, item), "stage": known.stage(each)} for each, item in items])
    return click.echo(columns([(known.stage(each), each, summary_of(item)) for each, item in items]))


@click.command()
@click.argument("name")
@click.option("-o", "--output", required=True, metavar="FILE", help="File to write, .yaml or .yml; - for the output.")
@set_option
@debug_option
def compile(name: str, output: str, settings: tuple[str, ...]) -> None:  # noqa: A001 - the command's name
    """Write the pipeline or component NAME as Kubeflow YAML.

    --set changes the default of a parameter.
    """
    from longshore import components as known_components
    from longshore import pipelines as known_pipelines

    wanted = name.replace("-", "_")
    both = (*known_pipelines.names(), *known_components.names())
    if wanted not in both:
        raise ConfigError(f"there is no pipeline or component {name!r}: {closest(wanted, both)}")
    item = find_pipeline(name) if wanted in known_pipelines.names() else find_component(name)
    text = compiled(item, parse_settings(settings, parameters_of(item)))
    if output == "-":
        return click.echo(text, nl=False)
    path = Path(output)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{output}: Kubeflow takes files whose names end in .yaml or .yml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}") from error
    return click.echo(f"{output} written", err=True)


def compiled(item: Any, values: dict[str, Any]) -> str:
    """The YAML of a pipeline or component with ``values`` as defaults of its parameters."""
    from kfp import compiler

    given = {name: value for name, value in values.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="longshore-") as folder:
        path = Path(folder) / "compiled.yaml"
        compiler.Compiler().compile(item, str(path), pipeline_parameters=given)
        return path.read_text(encoding="utf-8")


def _as_plain(name: str, item: Any) -> dict[str, Any]:
    return {
        "name": name,
        "summary": summary_of(item),
        "parameters": parameters_of(item),
        "artifacts": [{"name": key, "type": kind} for key, kind in _artifacts(item.component_spec.inputs)],
        "outputs": [
            {"name": key, "type": _type(spec.type), "description": spec.description or ""}
            for key, spec in (item.component_spec.outputs or {}).items()
        ],
    }


def _describe(item: Any, *, as_json: bool) -> None:
    function = getattr(item, "python_func", None) or item.pipeline_func
    if as_json:
        documentation = inspect.getdoc(function) or ""
        return echo_json({**_as_plain(function.__name__, item), "documentation": documentation})
    click.echo(f"{function.__name__}\n\n{_unquoted(item.component_spec.description)}")
    sections = (
        ("Artifacts", [(key, kind, "") for key, kind in _artifacts(item.component_spec.inputs)]),
        ("Parameters", [(p.name, _shown(p), _unquoted(p.description)) for p in parameters_of(item)]),
        (
            "Outputs",
            [
                (key, _type(spec.type), " ".join(_unquoted(spec.description).split()))
                for key, spec in (item.component_spec.outputs or {}).items()
            ],
        ),
    )
    for title, rows in sections:
        if rows:
            click.echo(f"\n{title}\n{columns(rows, indent='  ')}")
    return None


def _shown(parameter: Parameter) -> str:
    if parameter.required:
        return f"{parameter.type}, required"
    return parameter.type if parameter.default is None else f"{parameter.type} = {parameter.default}"


def _artifacts(specs: Any) -> list[tuple[str, str]]:
    from kfp.dsl.types import type_utils

    return [
        (name, _type(spec.type)) for name, spec in (specs or {}).items() if not type_utils.is_parameter_type(spec.type)
    ]


def _type(name: str) -> str:
    """``system.Model@0.0.1`` as ``system.Model``, ``typing.Dict[str, float]`` as ``Dict[str, float]``."""
    return name.partition("@")[0].removeprefix("typing.")
