"""``python -m harness parts|up|down``: what the tests take, and clusters for a person to play with."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

from harness.builds import PROGRAMS, build, built
from harness.cluster import Cluster
from harness.containers import CONTAINER_COMMANDS
from harness.fleet import start_fleet
from harness.images import Images
from harness.keeper import Keeper, end_detached
from harness.nodes import NodesCluster
from harness.plane import Plane
from harness.store import Store
from harness.system import NODE_COMMANDS, Missing, install, need_root


def _parts() -> None:
    """Build and install all that the tests take, as far as it is not there."""
    for module in PROGRAMS:
        _timed(f"programs of {module}", lambda module=module: build(module))  # type: ignore[misc]
    try:
        need_root()
    except Missing as error:
        print(f"no images: {error}", file=sys.stderr)
        return
    _timed("system packages", lambda: install({**NODE_COMMANDS, **CONTAINER_COMMANDS}))
    _timed("images", _images)


def _images() -> None:
    images = Images()
    with images.built() as names:
        Store.prepare(images, names)


def _timed(what: str, do: Callable[[], object]) -> None:
    started = time.monotonic()
    do()
    seconds = time.monotonic() - started
    if seconds > 1:
        print(f"{what}: {seconds:.0f} s", file=sys.stderr, flush=True)


def _up(nodes: int) -> None:
    """Start a cluster that stays, and say how to use it."""
    keeper = Keeper(detached=True)
    try:
        cluster = _fake(keeper) if nodes == 0 else NodesCluster(keeper, nodes).cluster
    except BaseException:
        keeper.close()
        raise
    keeper.let_go()
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    print(f"# kubectl is {built('kubernetes')}/kubectl; 'make cluster-down' ends the cluster")


def _fake(keeper: Keeper) -> Cluster:
    plane = Plane(keeper)
    cluster = plane.start()
    start_fleet(keeper, plane, cluster)
    return cluster


def main() -> int:
    """Carry the command out; 1 if a part of the machine is missing."""
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("parts", help=_parts.__doc__)
    up = commands.add_parser("up", help=_up.__doc__)
    up.add_argument("--nodes", type=int, default=1 if os.getuid() == 0 else 0, help="real nodes; 0 takes fake ones")
    commands.add_parser("down", help="End the clusters that stay.")
    options = parser.parse_args()
    try:
        if options.command == "parts":
            _parts()
        elif options.command == "up":
            _up(options.nodes)
        else:
            for folder in end_detached():
                print(f"ended {folder}", file=sys.stderr)
    except Missing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
