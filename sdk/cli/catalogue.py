"""``longshore pipelines``, ``components`` and ``compile``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from longshore.cli.app import debug_option
from longshore.cli.output import columns, echo_json, plain
from longshore.cli.parameters import closest, parameters_of, parse_settings
from longshore.errors import ConfigError
from longshore.reference import Field, describe

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


@click.command()
@click.argument("name", required=False)
@json_option
@debug_option
def pipelines(name: str | None, as_json: bool) -> None:
    """List the pipelines, or describe the one called NAME."""
    from longshore import pipelines as known

    if name is not None:
        return _describe(find_pipeline(name), as_json=as_json)
    told = [describe(known.get(each)) for each in known.names()]
    if as_json:
        return echo_json(told)
    return click.echo(columns([(each.name, unquoted(each.summary)) for each in told]))


@click.command()
@click.argument("name", required=False)
@json_option
@debug_option
def components(name: str | None, as_json: bool) -> None:
    """List the components by stage, or describe the one called NAME."""
    from longshore import components as known

    if name is not None:
        return _describe(find_component(name), as_json=as_json)
    told = [describe(known.get(each)) for each in known.names()]
    if as_json:
        return echo_json([{**plain(each), "stage": known.stage(each.name)} for each in told])
    return click.echo(columns([(known.stage(each.name), each.name, unquoted(each.summary)) for each in told]))


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


def _describe(item: Any, *, as_json: bool) -> None:
    told = describe(item)
    if as_json:
        return echo_json(told)
    click.echo("\n\n".join(unquoted(part) for part in (told.name, told.summary, told.text) if part))
    for title, fields in (("Inputs", told.inputs), ("Outputs", told.outputs)):
        if fields:
            rows = [(field.name, _type_of(field), unquoted(field.text)) for field in fields]
            click.echo(f"\n{title}\n{columns(rows, indent='  ')}")
    if told.raises:
        click.echo("\nErrors\n" + columns([(error, unquoted(when)) for error, when in told.raises], indent="  "))
    return None


def _type_of(field: Field) -> str:
    if field.required:
        return f"{field.type}, required"
    return field.type if field.default is None else f"{field.type} = {field.default}"


def unquoted(text: str) -> str:
    """A docstring's text without its marks of code."""
    return text.replace("``", "")
