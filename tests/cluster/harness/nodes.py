"""A cluster with real nodes, a registry and DNS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.builds import built
from harness.cluster import eventually
from harness.images import Images
from harness.keeper import Keeper
from harness.network import Network
from harness.node import Node
from harness.plane import Plane
from harness.store import Store
from harness.system import NODE_COMMANDS, cache_folder, need_commands, need_root

__all__ = ["NodesCluster"]

_COREFILE = """\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa {
        pods insecure
        ttl 1
    }
}
"""


class NodesCluster:
    """Starts everything; it ends with its keeper.

    Args:
        keeper: Holds it.
        count: Number of nodes.

    Attributes:
        keeper: Holds it.
        cluster: For the tests.
        plane: Its control plane.
        network: Its network.
        nodes: Its nodes.
        registry: Address of the registry that its nodes pull from.

    Raises:
        Missing: If the machine lacks a part.
    """

    def __init__(self, keeper: Keeper, count: int = 1) -> None:
        need_root()
        need_commands(NODE_COMMANDS)
        self.keeper = keeper
        store = Store.ready()
        programs = built("images")
        self.network = Network(keeper)
        self.network.start()
        self.registry = f"{self.network.address}:5000"
        layers = cache_folder() / "layers"
        layers.mkdir(parents=True, exist_ok=True)
        keeper.spawn("registry", [programs / "registry", self.registry, layers], net=self.network.hub)
        self.plane = Plane(keeper, address=self.network.address, services=self.network.services, net=self.network.hub)
        self.cluster = self.plane.start()
        self.nodes = [Node(keeper, self.plane, self.network, n + 1, self.registry, store) for n in range(count)]
        for node in self.nodes:
            node.start()
        self._start_dns()
        for node in self.nodes:
            node.wait_ready(self.cluster)
        eventually(self._dns_ready, "DNS", 60)

    def spawn(self, name: str, argv: Sequence[str]) -> None:
        """Start a process beside the control plane: pods reach it at the network's address."""
        self.keeper.spawn(name, argv, net=self.network.hub, kill=True)

    def push(self, image: str, path: str) -> None:
        """Push an image that was built here to the registry, under another path and tag: nodes have to pull it."""
        Images().push(image, self.registry, path)

    def _dns_ready(self) -> bool:
        status = self.cluster.request("GET", "/apis/apps/v1/namespaces/kube-system/deployments/coredns")["status"]
        return bool(status.get("availableReplicas"))

    def _start_dns(self) -> None:
        for manifest in _dns(self.network.dns):
            self.cluster.apply(manifest)


def _dns(address: str) -> list[dict[str, Any]]:
    """The objects of the cluster's DNS."""
    name = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    container = {
        "name": "coredns",
        "image": "registry.local/coredns:1",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    ports = [{"name": kind.lower(), "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **name}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": name,
            "data": {"Corefile": _COREFILE},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": name,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": address, "selector": labels, "ports": ports},
        },
    ]
