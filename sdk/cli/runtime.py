"""``longshore runtime``: KServe's ServingRuntime for what longshore has packaged, for whoever may install it."""

from __future__ import annotations

import click

from longshore.cli.app import debug_option
from longshore.cli.rbac import as_yaml
from longshore.targets.kserve_runtimes import serving_runtime
from longshore.targets.pods import SERVER_IMAGE

__all__ = ["runtime"]


@click.command()
@click.option("--namespace", "-n", help="For one namespace; without it, for the whole cluster.")
@click.option("--image", default=SERVER_IMAGE, show_default=True, help="Image of the model server.")
@debug_option
def runtime(namespace: str | None, image: str) -> None:
    """Write the ServingRuntime that the platform kserve takes, for kubectl apply -f -.

    KServe never chooses it by itself: what runs in the cluster already keeps its runtime.
    """
    click.echo(as_yaml([serving_runtime(namespace, image=image)]), nl=False)
