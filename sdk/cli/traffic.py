"""``longshore promote`` and ``longshore rollback``: who answers the requests of a service on Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from longshore.cli.app import debug_option
from longshore.targets import PLATFORMS

if TYPE_CHECKING:
    from longshore.release import Deployment
    from longshore.spec import Release

__all__ = ["promote", "rollback", "tell", "tell_done"]


def _service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        debug_option,
        click.option("--timeout", type=click.IntRange(min=1), default=600, show_default=True, help="Seconds to wait."),
        click.option("--registry", help="MLflow tracking URI; by default where the deploy was recorded."),
        click.option("--namespace", "-n", help="Its namespace; by default that of the kubeconfig's context."),
        click.option(
            "--platform",
            type=click.Choice([name for name in PLATFORMS if name != "local"]),
            default="kserve",
            show_default=True,
            help="What serves it.",
        ),
        click.argument("name"),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--percent", type=click.IntRange(0, 100), default=100, show_default=True, help="Its share from now on.")
@click.option("--revision", help="A revision that stands beside it, in place of the one that was deployed last.")
@_service_options
def promote(
    name: str,
    platform: str,
    namespace: str | None,
    registry: str | None,
    timeout: int,
    percent: int,
    revision: str | None,
) -> None:
    """Move requests of the service NAME to the revision that was deployed last."""
    from longshore.deployment import promote_service

    done = promote_service(
        name,
        percent=percent,
        revision=revision,
        platform=platform,
        namespace=namespace,
        tracking_uri=registry,
        timeout_seconds=timeout,
        on_progress=tell,
    )
    tell_done(name, done)


@click.command()
@_service_options
def rollback(name: str, platform: str, namespace: str | None, registry: str | None, timeout: int) -> None:
    """Serve again what the service NAME served before."""
    from longshore.deployment import rollback_service

    done = rollback_service(
        name,
        platform=platform,
        namespace=namespace,
        tracking_uri=registry,
        timeout_seconds=timeout,
        on_progress=tell,
    )
    tell_done(name, done)


def tell(sentence: str) -> None:
    """Pass on what is known of a deploy under way."""
    click.echo(sentence, err=True)


def tell_done(name: str, done: Deployment[Release]) -> None:
    """Say what serves now."""
    percent = done.release.traffic.percent
    share = "" if percent == 100 else f" to {percent} % of the requests"
    click.echo(f"{name} serves revision {done.endpoint.revision}{share} at {done.endpoint.url}")
