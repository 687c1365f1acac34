"""``longshore runtime``: KServe's ServingRuntime for what longshore has packaged, for whoever may install it."""

from __future__ import annotations

import click

from longshore.cli.app import debug_option
from longshore.cli.rbac import as_yaml
from longshore.targets.kserve_runtimes import KSERVE_SERVER_RUNTIME, LONGSHORE_RUNTIME, serving_runtime

__all__ = ["runtime"]


@click.command()
@click.option("--namespace", "-n", help="For one namespace; without it, for the whole cluster.")
@click.option(
    "--name",
    type=click.Choice([LONGSHORE_RUNTIME, KSERVE_SERVER_RUNTIME]),
    default=LONGSHORE_RUNTIME,
    show_default=True,
    help=f"Which one: {KSERVE_SERVER_RUNTIME} has KServe's own model server.",
)
@click.option("--image", help="Image of the model server, in place of longshore's.")
@debug_option
def runtime(namespace: str | None, name: str, image: str | None) -> None:
    """Write a ServingRuntime that the platform kserve takes, for kubectl apply -f -.

    KServe never chooses it by itself: what runs in the cluster already keeps its runtime.
    """
    click.echo(as_yaml([serving_runtime(namespace, name=name, image=image)]), nl=False)
