"""``longshore local``: the servers on this machine."""

from __future__ import annotations

import os
from typing import Any

import click

from longshore.cli.app import debug_option
from longshore.cli.catalogue import json_option
from longshore.cli.output import columns, echo_json
from longshore.cli.parameters import closest
from longshore.cli.traffic import tell, tell_done
from longshore.errors import ConfigError

__all__ = ["local"]


@click.group()
@debug_option
def local() -> None:
    """Look after the servers on this machine."""


@local.command("ls")
@json_option
@debug_option
def list_(as_json: bool) -> None:
    """List the servers."""
    from longshore.local import list_servers

    servers = list_servers()
    if as_json:
        return echo_json({"servers": servers})
    if not servers:
        return click.echo("no servers on this machine")
    head = ("NAME", "STATE", "SHARE", "URL", "REVISION", "MODEL", "PID", "SINCE")
    return click.echo(columns([head, *(_row(server) for server in servers)]))


def _row(server: Any) -> tuple[str, ...]:
    model = f"{server.model} {server.version}" if server.version else server.model
    share = f"{server.percent}%"
    cells = (server.name, server.state, share, server.url, server.revision, model, server.pid, server.since)
    return tuple("-" if cell is None else str(cell) for cell in cells)


@local.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Stop all of them.")
@debug_option
def stop(name: str | None, every: bool) -> None:
    """Stop the server NAME and forget it; NAME may be left out if there is only one."""
    from longshore import local as servers

    if name is not None and every:
        raise click.UsageError("give the NAME of a server, or --all, not both")
    for each in _names() if every else [_only() if name is None else _known(name)]:
        servers.stop(each)
        click.echo(f"{each} stopped")


_registry = click.option("--registry", help="MLflow tracking URI; by default where the deploy was recorded.")


@local.command()
@click.argument("name")
@click.option("--percent", type=click.IntRange(0, 100), default=100, show_default=True, help="Its share from now on.")
@_registry
@debug_option
def promote(name: str, percent: int, registry: str | None) -> None:
    """Move requests of the server NAME, which has a router, to the revision that was deployed last."""
    from longshore.deployment import promote_service

    tell_done(name, promote_service(_known(name), percent=percent, tracking_uri=registry, on_progress=tell))


@local.command()
@click.argument("name")
@_registry
@debug_option
def rollback(name: str, registry: str | None) -> None:
    """Serve again what the server NAME served before."""
    from longshore.deployment import rollback_service

    tell_done(name, rollback_service(_known(name), tracking_uri=registry, on_progress=tell))


@local.command()
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="How many lines.")
@debug_option
def logs(name: str | None, follow: bool, lines: int) -> None:
    """Show the last lines that the server NAME has written; NAME may be left out if there is only one.

    With a router, those of its Nginx come last.
    """
    from longshore.local import log_paths

    name = _only() if name is None else _known(name)
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, log_paths(name))]
    os.execvp("tail", command)  # noqa: S606, S607 - every POSIX system has it, and it knows how to wait for a file


def _names() -> list[str]:
    from longshore.local import list_servers

    return sorted({server.name for server in list_servers()})


def _only() -> str:
    names = _names()
    if len(names) != 1:
        raise ConfigError("say which server: " + (f"there is {', '.join(names)}" if names else "there is none"))
    return names[0]


def _known(name: str) -> str:
    names = _names()
    if name not in names:
        raise ConfigError(f"there is no server {name!r} on this machine: {closest(name, names)}")
    return name
