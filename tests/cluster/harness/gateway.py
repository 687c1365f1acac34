"""Routes of Gateway API and Istio: their CRDs, and a stand-in for a Gateway's controller.

Such controllers come as images only. The stand-in takes or refuses HTTPRoutes and says so in their status, as Gateway
API asks for; it forwards nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import yaml
from kubernetes.client.rest import ApiException

from harness.builds import module_folder
from harness.cluster import Cluster, eventually
from harness.standin import StandIn

__all__ = ["Gateway", "install_route_kinds"]

_ROUTES = "/apis/gateway.networking.k8s.io/v1"
_VIRTUAL_SERVICES = "/apis/networking.istio.io/v1"


def install_route_kinds(cluster: Cluster) -> None:
    """HTTPRoutes and VirtualServices, with the whole schema that their projects publish."""
    gateway = module_folder("kserve", "sigs.k8s.io/gateway-api") / "config" / "crd" / "standard"
    istio = module_folder("kserve", "istio.io/api") / "kubernetes" / "customresourcedefinitions.gen.yaml"
    texts = [(gateway / "gateway.networking.k8s.io_httproutes.yaml").read_text(), istio.read_text()]
    wanted = {"HTTPRoute", "VirtualService"}
    for text in texts:
        for definition in yaml.safe_load_all(text):
            if definition and definition["spec"]["names"]["kind"] in wanted:
                definition.pop("status", None)
                cluster.apply(definition)
    paths = (f"{_ROUTES}/httproutes", f"{_VIRTUAL_SERVICES}/virtualservices")
    eventually(lambda: all(cluster.get(path) is not None for path in paths), "the kinds of routes")


class Gateway(StandIn):
    """Answers for all Gateways as long as it is entered.

    Args:
        cluster: A cluster with Gateway API's CRDs.
        takes: Name of the Gateway that takes routes; all others refuse them.
    """

    def __init__(self, cluster: Cluster, takes: str) -> None:
        super().__init__("gateway")
        self._cluster, self._takes = cluster, takes

    def look(self) -> None:
        """Judge every HTTPRoute."""
        for route in self._cluster.request("GET", f"{_ROUTES}/httproutes")["items"]:
            self._judge(route)

    def _judge(self, route: Mapping[str, Any]) -> None:
        metadata, generation = route["metadata"], route["metadata"]["generation"]
        place = f"/api/v1/namespaces/{metadata['namespace']}/services"
        backends = [backend["name"] for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
        resolved = all(self._cluster.get(f"{place}/{name}") is not None for name in backends)
        parents = []
        for parent in route["spec"]["parentRefs"]:
            taken = parent["name"] == self._takes
            accepted = _condition("Accepted", taken, "Accepted" if taken else "NoMatchingParent", generation)
            found = _condition("ResolvedRefs", resolved, "ResolvedRefs" if resolved else "BackendNotFound", generation)
            name = "test.longshore.dev/gateway"
            parents.append({"parentRef": parent, "controllerName": name, "conditions": [accepted, found]})
        if (route.get("status") or {}).get("parents") != parents:
            path = f"{_ROUTES}/namespaces/{metadata['namespace']}/httproutes/{metadata['name']}/status"
            # somebody else changed it or took it away meanwhile
            with contextlib.suppress(ApiException):
                self._cluster.request("PUT", path, {**route, "status": {"parents": parents}})


def _condition(kind: str, holds: bool, reason: str, generation: int) -> dict[str, Any]:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": "",
        "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
