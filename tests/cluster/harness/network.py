"""The network of a cluster with real nodes: a switch in a namespace of its own, and one cable to the machine.

All addresses are from 198.18.0.0/15, which RFC 2544 sets aside for tests. A cluster has sixteen /24 of it, by its
keeper's slot: the nodes and the API server in the first, the pods of node N in the N-th, Services in the upper half.
"""

from __future__ import annotations

from harness.keeper import Keeper

__all__ = ["NODES", "Network"]

NODES = 7
"""Nodes that a cluster has addresses for."""

_BRIDGE = "switch"


class Network:
    """Makes the switch; everything goes when the keeper ends.

    Attributes:
        hub: Namespace of the switch; the control plane and the registry listen in it, at ``address``.
        address: The hub's address.
        machine: The machine's address on the switch.
        services: Range of the Services.
        pods: Range of all pods.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._name = f"ls{keeper.slot}"
        self._third = 16 * keeper.slot
        self.hub = f"{self._name}-hub"
        self.address = self._in(0, 1)
        self.machine = self._in(0, 254)
        self.services = f"{self._in(8, 0)}/21"
        self.dns = self._in(8, 10)
        self.pods = f"{self._in(0, 0)}/21"

    def start(self) -> None:
        """Make the switch and lay the cable."""
        run, hub = self._keeper.run, self.hub
        run("ip", "netns", "add", hub, undo=["ip", "netns", "del", hub])
        self._inside(hub, "link", "set", "lo", "up")
        self._inside(hub, "link", "add", _BRIDGE, "type", "bridge")
        self._inside(hub, "addr", "add", f"{self.address}/24", "dev", _BRIDGE)
        self._inside(hub, "link", "set", _BRIDGE, "up")
        cable = f"{self._name}-m"
        self._plug("machine", cable)
        run("ip", "addr", "add", f"{self.machine}/24", "dev", cable)
        run("ip", "link", "set", cable, "up")

    def node_name(self, index: int) -> str:
        """Name of a node, of its namespace and of its control groups."""
        return f"{self._name}-n{index}"

    def node_address(self, index: int) -> str:
        """Address of a node."""
        return self._in(0, 10 + index)

    def node_pods(self, index: int) -> str:
        """Range of a node's pods."""
        return f"{self._in(index, 0)}/24"

    def add_node(self, index: int) -> None:
        """Make a node's namespace, and tell everybody the way to its pods."""
        name, address = self.node_name(index), self.node_address(index)
        self._keeper.run("ip", "netns", "add", name, undo=["ip", "netns", "del", name])
        self._plug(f"n{index}", "eth0", name)
        self._inside(name, "link", "set", "lo", "up")
        self._inside(name, "addr", "add", f"{address}/24", "dev", "eth0")
        self._inside(name, "link", "set", "eth0", "up")
        self._inside(name, "route", "add", "default", "via", self.address)
        for other in range(1, NODES + 1):
            if other != index:
                self._inside(name, "route", "add", self.node_pods(other), "via", self.node_address(other))
        settings = ["net.ipv4.ip_forward=1"]
        self._keeper.run("nsenter", f"--net=/run/netns/{name}", "sysctl", "-qw", *settings)
        for route in [self.node_pods(index), *([self.services] if index == 1 else [])]:
            self._inside(self.hub, "route", "replace", route, "via", address)
            self._keeper.run("ip", "route", "replace", route, "via", address)

    def _plug(self, port: str, end: str, namespace: str | None = None) -> None:
        """Lay a cable from the switch to a namespace, or to the machine."""
        where = [] if namespace is None else ["netns", namespace]
        undo = ["ip", "link", "del", end] if namespace is None else []
        self._keeper.run(
            "ip", "link", "add", end, *where, "type", "veth", "peer", "name", port, "netns", self.hub, undo=undo
        )
        self._inside(self.hub, "link", "set", port, "master", _BRIDGE)
        self._inside(self.hub, "link", "set", port, "up")

    def _inside(self, namespace: str, *command: str) -> None:
        self._keeper.run("ip", "-n", namespace, *command)

    def _in(self, third: int, last: int) -> str:
        return f"198.18.{self._third + third}.{last}"
