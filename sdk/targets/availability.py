"""What keeps the pods of a Deployment enough in number, apart from each other, watched, and asked at their ports only.

Pure functions, for every platform that runs models in Deployments of its own.

Sources: kubernetes.io/docs, Horizontal Pod Autoscaling, Specifying a Disruption Budget, Network Policies, Pod Topology
Spread Constraints; prometheus-operator.dev, API reference (PodMonitor); istio.io, Ports used by Istio; linkerd.io,
Proxy Configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Health, Resources, Scaling
from longshore.spec.quantity import quantity
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest

__all__ = [
    "AUTOSCALER",
    "DISRUPTION_BUDGET",
    "NETWORK_POLICY",
    "POD_MONITOR",
    "autoscaler",
    "autoscaler_health",
    "check_scaling",
    "disruption_budget",
    "network_policy",
    "pod_monitor",
    "scales",
    "spread",
]

AUTOSCALER: Final = ("autoscaling/v2", "HorizontalPodAutoscaler")
DISRUPTION_BUDGET: Final = ("policy/v1", "PodDisruptionBudget")
NETWORK_POLICY: Final = ("networking.k8s.io/v1", "NetworkPolicy")
POD_MONITOR: Final = ("monitoring.coreos.com/v1", "PodMonitor")

_PERCENT: Final = ("cpu", "memory")
# Nothing listens there in a pod without the mesh's proxy. Istio: tunnels, merged metrics, the proxy's metrics. Linkerd:
# inbound, metrics.
_MESH_PORTS: Final = (15008, 15020, 15090, 4143, 4191)
_TOPOLOGIES: Final = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")

_BEHAVIOR: Final[Mapping[str, Any]] = {
    # a rush is met at once
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    },
    # a lull must last, and half of what is left stays for another minute
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
    },
}


def scales(scaling: Scaling) -> bool:
    """Whether the number of replicas changes by itself."""
    return scaling.max_replicas not in (None, scaling.min_replicas)


def check_scaling(platform: str, scaling: Scaling, resources: Resources) -> None:
    """Refuse what a HorizontalPodAutoscaler cannot do.

    Args:
        platform: Name of the platform, for the message.
        scaling: Number of replicas.
        resources: What a pod requests.

    Raises:
        InvalidValue: If the measure is not one of a pod's resources, or the pod does not request that resource.
    """
    if scaling.min_replicas < 1:
        raise InvalidValue(
            "Scaling.min_replicas", 0, f"the platform '{platform}' does not scale to zero: use at least 1"
        )
    if scaling.metric not in _PERCENT:
        raise InvalidValue(
            "Scaling.metric",
            scaling.metric,
            f"the platform '{platform}' scales by cpu or memory: for {scaling.metric} use KServe's Knative mode",
        )
    if not scales(scaling):
        return
    request = getattr(resources, scaling.metric)
    if not quantity(request or "0"):
        raise InvalidValue(
            f"Resources.{scaling.metric}",
            request,
            "scaling goes by percent of what a pod requests: say how much, or leave Scaling.max_replicas out",
        )


def autoscaler(metadata: Mapping[str, Any], scaling: Scaling) -> Manifest:
    """The HorizontalPodAutoscaler of the Deployment of the same name.

    Args:
        metadata: Metadata of the Deployment.
        scaling: Bounds, and what is aimed at.
    """
    target = {"type": "Utilization", "averageUtilization": scaling.target}
    return _manifest(
        AUTOSCALER,
        metadata,
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": scaling.metric, "target": target}}],
            "behavior": dict(_BEHAVIOR),
        },
    )


def disruption_budget(metadata: Mapping[str, Any], selector: Mapping[str, str]) -> Manifest:
    """The PodDisruptionBudget of a Deployment's pods: one at a time may be evicted, and those that fail always.

    A bound on those that are gone, not on those that stay: a single pod must not hold up the drain of a node.

    Args:
        metadata: Metadata of the Deployment.
        selector: Labels of its pods.
    """
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": dict(selector)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return _manifest(DISRUPTION_BUDGET, metadata, spec)


def network_policy(metadata: Mapping[str, Any], selector: Mapping[str, str], ports: Sequence[int]) -> Manifest:
    """The NetworkPolicy of a Deployment's pods: whoever may reach them reaches their ports, and a mesh's proxy's.

    What they may reach themselves is not restricted: the store of the model, a name server or a collector of traces
    have addresses that nobody knows here. Policies add up, so one that is written for them can.

    Args:
        metadata: Metadata of the Deployment.
        selector: Labels of its pods.
        ports: The ports that they answer at, metrics included.
    """
    opened = [{"protocol": "TCP", "port": number} for number in (*ports, *_MESH_PORTS)]
    spec = {"podSelector": {"matchLabels": dict(selector)}, "policyTypes": ["Ingress"], "ingress": [{"ports": opened}]}
    return _manifest(NETWORK_POLICY, metadata, spec)


def pod_monitor(metadata: Mapping[str, Any], selector: Mapping[str, str], port: str, path: str) -> Manifest:
    """The PodMonitor by which the Prometheus Operator has a Deployment's pods asked for their metrics.

    Each series gets the labels of the service and the revision, which servers that are not longshore's do not know.

    Args:
        metadata: Metadata of the Deployment.
        selector: Labels of its pods.
        port: Name of the port that they are at.
        path: Where they are.
    """
    spec = {
        "selector": {"matchLabels": dict(selector)},
        "podTargetLabels": [SERVICE_LABEL, REVISION_LABEL],
        "podMetricsEndpoints": [{"port": port, "path": path}],
    }
    return _manifest(POD_MONITOR, metadata, spec)


def spread(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Constraints by which pods lie in different zones and on different nodes, as far as there are some.

    Args:
        labels: Labels of the pods that are counted. With that of the revision among them, the pods that it replaces
            do not count, on clusters of all versions.
    """
    return [
        {
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
        for topology in _TOPOLOGIES
    ]


def autoscaler_health(scaling: Scaling, deployment: Manifest, observed: Sequence[Manifest]) -> Health:
    """Whether a Deployment that is otherwise ready has as many replicas as it must have at least.

    That it cannot be scaled beyond, for want of metrics or because it is at its bound, is no failure: it serves.

    Args:
        scaling: The bounds.
        deployment: The Deployment.
        observed: What was observed with it, the HorizontalPodAutoscaler included.
    """
    replicas = deployment["spec"].get("replicas", 1)
    if not scales(scaling) or replicas >= scaling.min_replicas:
        return Health.ready()
    name = deployment["metadata"]["name"]
    ours = (m for m in observed if m["kind"] == AUTOSCALER[1] and m["metadata"]["name"] == name)
    conditions = [c for m in ours for c in (m.get("status") or {}).get("conditions") or ()]
    words = [
        f"{c.get('reason')}: {c.get('message')}"
        for c in conditions
        if c["type"] in ("AbleToScale", "ScalingActive") and c["status"] == "False"
    ]
    why = f"the HorizontalPodAutoscaler {name} has not raised the number of replicas from {replicas} to the least, "
    return Health.progressing(why + str(scaling.min_replicas) + "".join(f"; {one}" for one in words))


def _manifest(kind: tuple[str, str], metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> Manifest:
    return {"apiVersion": kind[0], "kind": kind[1], "metadata": dict(metadata), "spec": dict(spec)}
