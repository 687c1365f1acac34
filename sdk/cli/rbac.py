"""``longshore rbac``: what a deploying step must be allowed to do, for whoever allows it."""

from __future__ import annotations

import click
import yaml

from longshore.cli.app import debug_option
from longshore.rbac import deployer_objects
from longshore.targets import PLATFORMS

__all__ = ["rbac"]


@click.command()
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace that is deployed to.")
@click.option(
    "--service-account",
    metavar="[NAMESPACE/]NAME",
    help="Account that deploys, if it is there already, such as the one that Kubeflow runs steps as.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    type=click.Choice([name for name in PLATFORMS if name != "local"]),
    help="Allow what this platform takes; can be given again. Without it, all.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="A Secret that services name: a deploy may look whether it is there. Can be given again.",
)
@debug_option
def rbac(namespace: str, service_account: str | None, platforms: tuple[str, ...], secrets: tuple[str, ...]) -> None:
    """Write the Role that a deploying step needs, for kubectl apply -f -.

    It allows what the platforms render, in one namespace, and nothing else.
    """
    objects = deployer_objects(namespace, service_account=service_account, platforms=platforms or None, secrets=secrets)
    click.echo(as_yaml(objects), nl=False)


def as_yaml(objects: list[dict[str, object]]) -> str:
    """Objects as the documents of one file, without anchors for what they share."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
            return True

    return yaml.dump_all(objects, Dumper=Plain, sort_keys=False)
