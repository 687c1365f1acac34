"""``longshore fleet``: many services at once, from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from longshore.cli.app import debug_option
from longshore.cli.output import echo_json, plain
from longshore.cli.rbac import as_yaml
from longshore.errors import ConfigError
from longshore.targets import PLATFORMS

if TYPE_CHECKING:
    from longshore.spec import ModelSource, Service

__all__ = ["fleet"]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--platform",
    type=click.Choice([name for name in PLATFORMS if name != "local"]),
    default="seldon-v2",
    show_default=True,
    help="What serves them.",
)
@click.option("--namespace", "-n", help="Namespace of services that name none; by default the kubeconfig context's.")
@click.option("--registry", help="MLflow tracking URI where the outcome is recorded; by default this machine's.")
@click.option("--timeout", type=click.IntRange(min=1), default=600, show_default=True, help="Seconds to wait.")
@click.option("--patience", type=click.IntRange(min=0), default=30, show_default=True, help="Seconds for what stalls.")
@click.option("--force", is_flag=True, help="Take over what somebody else has set.")
@click.option("--dry-run", is_flag=True, help="Write the objects, and ask no cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON document.")
@debug_option
def fleet(
    file: Path,
    platform: str,
    namespace: str | None,
    registry: str | None,
    timeout: int,
    patience: int,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Serve the models in FILE, a YAML file with "services" and, if need be, "defaults" for all of them.

    Each has a "name", a "model" with "uri" and "format", and the fields of Service. A service that does not come up
    keeps what it served, and holds up no other; the command ends with 1 then.
    """
    from longshore.deployment import default_namespace
    from longshore.fleet import deploy_models, render_models

    place = namespace or ("default" if dry_run else default_namespace(platform))
    services = list(_services(file, place))
    if dry_run:
        click.echo(as_yaml(render_models(services, platform=platform, tracking_uri=registry)), nl=False)
        return 0
    report = deploy_models(
        services,
        platform=platform,
        tracking_uri=registry,
        timeout_seconds=timeout,
        patience_seconds=patience,
        force=force,
        on_progress=lambda sentence: click.echo(sentence, err=True),
    )
    if as_json:
        echo_json(plain(report))
    else:
        for key, why in report.failed.items():
            click.echo(f"{key} failed: {why}", err=True)
        for key, why in report.unrecorded.items():
            click.echo(f"{key} serves, but this could not be recorded: {why}", err=True)
        counts = f"{len(report.deployed)} deployed, {len(report.unchanged)} unchanged, {len(report.failed)} failed"
        click.echo(f"{counts} in {report.seconds:.1f} s")
    return 1 if report.failed else 0


def _services(file: Path, namespace: str) -> Iterator[tuple[ModelSource, Service]]:
    from longshore.spec import ModelSource, Service, from_plain

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML: {error}") from error
    content = {"services": content} if isinstance(content, list) else content
    entries = content.get("services") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{file} has no services: use a list of them, or a mapping with 'services' and 'defaults'")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), Mapping):
            raise ConfigError(f"{file}, service {number}: use a mapping with a name, a model and the fields of Service")
        given: dict[str, Any] = _merged({"namespace": namespace}, content.get("defaults") or {})
        given = _merged(given, entry)
        model = {"name": given.get("name"), **given.pop("model")}
        try:
            yield from_plain(ModelSource, model), from_plain(Service, given)
        except ConfigError as error:
            raise ConfigError(f"{file}, service {number} ({entry.get('name')}): {error}") from error


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values of ``above``, and those of ``below`` that it does not give; mappings are merged in turn."""
    merged = {**below, **above}
    for key, value in merged.items():
        if isinstance(below.get(key), Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(below[key], value)
    return merged
