"""``longshore predict``: ask a service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from longshore.cli.app import debug_option
from longshore.errors import InputError
from longshore.targets import PLATFORMS

__all__ = ["predict"]


@click.command()
@click.argument("name")
@click.option("--platform", type=click.Choice(PLATFORMS), default="kserve", show_default=True, help="What serves it.")
@click.option("--namespace", "-n", help="Its namespace; by default that of the kubeconfig's context.")
@click.option(
    "--rows",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="JSON or CSV file with rows, '-' for JSON from standard input; by default the model's own examples.",
)
@click.option("--protocol", help="Such as v1, v2, grpc-v2, seldon; by default the first that the service speaks.")
@click.option("--ingress", metavar="URL", help="Ask through this ingress; by default through the API server.")
@click.option("--host", help="Host name by which the ingress knows the service, if not KServe's.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False), help="File with a bearer token.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="Certificates (PEM) to trust.")
@click.option("--timeout", type=click.IntRange(min=1), default=30, show_default=True, help="Seconds to wait.")
@debug_option
def predict(
    name: str,
    platform: str,
    namespace: str | None,
    rows: str | None,
    protocol: str | None,
    ingress: str | None,
    host: str | None,
    token_file: str | None,
    ca_file: str | None,
    timeout: int,
) -> None:
    """Ask the service NAME for predictions, and print them as JSON."""
    from longshore import deployment
    from longshore.client import Access

    given = None if rows is None else _read(rows)
    endpoint = deployment.find_endpoint(name, platform=platform, namespace=namespace)
    if given is None:
        given = deployment.example_rows(name, platform=platform, namespace=namespace)
    if ingress is not None:
        endpoint = endpoint.through(ingress, host)
    answers = deployment.predict(
        endpoint,
        given,
        protocol=protocol,
        access=Access(token_file=token_file, ca_file=ca_file),
        timeout_seconds=timeout,
    )
    click.echo(json.dumps(answers))


def _read(source: str) -> Any:
    if source.lower().endswith(".csv"):
        from longshore.training import read_table

        return read_table(source)
    text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"the rows in {source} are not JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("instances", [content])
    if not isinstance(content, list):
        raise InputError(f'{source} holds no rows: use [{{...}}, ...] or {{"instances": [...]}}')
    return content
