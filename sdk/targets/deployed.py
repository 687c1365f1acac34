"""Models in a Deployment of their own, with what keeps it up: what platforms without an operator have in common."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, HealthState, ModelSource, Release, Service
from longshore.targets.availability import (
    AUTOSCALER,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    POD_MONITOR,
    autoscaler,
    autoscaler_health,
    check_scaling,
    disruption_budget,
    network_policy,
    pod_monitor,
    scales,
)
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Ref, Selection
from longshore.targets.pods import secret_refs
from longshore.targets.routes import Lane
from longshore.targets.workload import deployment_health

__all__ = ["DeploymentTarget", "Port", "check_remote"]


@dataclass(frozen=True)
class Port:
    """What a pod listens on.

    Args:
        name: Its name, in the pod and in the Service.
        number: Number in the pod.
        usual: Number in the Service; the first one may be another there (``Service.port``).
    """

    name: str
    number: int
    usual: int


class DeploymentTarget(abc.ABC):
    """Renders a release as a Deployment and a Service; see :class:`longshore.targets.base.Target`.

    Pods are replaced one by one as the new ones become ready, which they do once they have loaded the model and
    checked its digest: what does not come up never gets a request. A NetworkPolicy leaves only their port open; where
    there can be several, a PodDisruptionBudget keeps them from being evicted together, and where their number changes,
    a HorizontalPodAutoscaler changes it.

    Attributes:
        platform: Its name.
        metrics: Name of the port with the metrics, and their path there.
    """

    platform: ClassVar[str]
    metrics: ClassVar[tuple[str, str]] = ("http", "/metrics")

    @abc.abstractmethod
    def ports(self, service: Service) -> Sequence[Port]:
        """What its pods listen on, first what is asked over HTTP."""

    def monitored(self, service: Service) -> bool:  # noqa: ARG002
        """Whether the Prometheus Operator is to collect the metrics."""
        return False

    @abc.abstractmethod
    def check(self, release: Release) -> None:
        """Refuse what this platform does not have, beyond what none of these has."""

    @abc.abstractmethod
    def pod(self, release: Release) -> dict[str, Any]:
        """The spec of its pods."""

    def notes(self, release: Release) -> dict[str, Any]:  # noqa: ARG002
        """What the metadata of its pods has beside labels."""
        return {}

    @abc.abstractmethod
    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """Where the release answers, once it is healthy."""

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """No: a Deployment replaces its pods."""
        return False

    def render(self, release: Release) -> list[Manifest]:
        """The Deployment, the Service and the NetworkPolicy; what scales, guards and watches them where it has a use.

        Raises:
            InvalidValue: If the release asks for what this platform does not have.
        """
        service = release.service
        self.check(release)
        check_scaling(self.platform, service.scaling, service.resources)
        scaling = service.scaling
        metadata = {
            "name": release.object_name,
            "namespace": service.namespace,
            "labels": {**service.labels, SERVICE_LABEL: service.name},
            "annotations": dict(service.annotations),
        }
        selector = {SERVICE_LABEL: release.object_name}
        # the number belongs to the autoscaler where there is one
        replicas = {} if scales(scaling) else {"replicas": scaling.min_replicas}
        manifests: list[Manifest] = [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {
                    **replicas,
                    "revisionHistoryLimit": 3,
                    # one more while pods are replaced, never one less
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                    "selector": {"matchLabels": selector},
                    "template": {
                        "metadata": {
                            "labels": {**service.labels, **selector, REVISION_LABEL: release.revision},
                            **self.notes(release),
                        },
                        "spec": self.pod(release),
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {
                    "type": "ClusterIP",
                    "selector": selector,
                    "ports": self._service_ports(service),
                },
            },
            network_policy(metadata, selector, [port.number for port in self.ports(service)]),
        ]
        if scales(scaling):
            manifests.append(autoscaler(metadata, scaling))
        if max(scaling.min_replicas, scaling.max_replicas or 0) > 1:
            manifests.append(disruption_budget(metadata, selector))
        if self.monitored(service):
            manifests.append(pod_monitor(metadata, selector, *self.metrics))
        return manifests

    def objects(self, service: Service) -> list[Ref]:
        """All that a release may have; the Deployment bears it."""
        kinds = [("apps/v1", "Deployment"), ("v1", "Service"), NETWORK_POLICY, AUTOSCALER, DISRUPTION_BUDGET]
        if self.monitored(service):
            # a cluster without the operator is not asked for what it cannot know
            kinds.append(POD_MONITOR)
        return [Ref(api_version, kind, service.name, service.namespace) for api_version, kind in kinds]

    def children(self, release: Release) -> Sequence[Selection]:
        """The service's pods, and the events of the namespace."""
        namespace = release.service.namespace
        return (
            Selection("v1", "Pod", namespace, {SERVICE_LABEL: release.object_name}),
            Selection("v1", "Event", namespace),
        )

    def needs(self, release: Release) -> Mapping[str, Ref]:
        """The Secrets of its environment."""
        return secret_refs(release.service, {})

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: a Deployment replaces its pods itself."""
        return ()

    def lane(self, release: Release) -> Lane:
        """The Deployment's pods."""
        return Lane({SERVICE_LABEL: release.object_name}, self.ports(release.service)[0].name)

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the pods of the release's own revision."""
        kinds: dict[str, list[Manifest]] = {}
        for manifest in observed:
            kinds.setdefault(manifest["kind"], []).append(manifest)
        deployment = next(iter(kinds.get("Deployment", ())), None)
        if deployment is None:
            return Health.progressing("the Deployment is not there yet")
        runs = deployment["spec"]["template"]["metadata"]["labels"].get(REVISION_LABEL)
        if runs != release.revision:
            return Health.failed(f"somebody else changed the Deployment: it runs revision {runs}")
        pods = kinds.get("Pod", [])
        ours = [pod for pod in pods if pod["metadata"]["labels"].get(REVISION_LABEL) == release.revision]
        health = deployment_health(deployment, ours, kinds.get("Event", ()))
        if health.state is HealthState.READY and len(ours) < len(pods):
            # until they are gone, nodes that do not know it yet send them requests
            return Health.progressing(f"{len(pods) - len(ours)} pods of another revision are ending")
        if health.state is HealthState.READY:
            return autoscaler_health(release.service.scaling, deployment, observed)
        return health

    def url(self, service: Service) -> str:
        """The Service's name in the cluster's DNS, where it is asked over HTTP."""
        number = service.port or self.ports(service)[0].usual
        port = "" if number == 80 else f":{number}"
        return f"http://{service.name}.{service.namespace}.svc{port}"

    def _service_ports(self, service: Service) -> list[dict[str, Any]]:
        first, *others = self.ports(service)
        numbers = {first.name: service.port or first.usual, **{port.name: port.usual for port in others}}
        return [
            {"name": name, "port": number, "targetPort": name, "protocol": "TCP"} for name, number in numbers.items()
        ]


def check_remote(model: ModelSource) -> None:
    """Refuse a model that pods cannot read.

    Raises:
        InvalidValue: If it lies on this machine, or names no claim.
    """
    scheme, found, rest = model.uri.partition("://")
    if not found or scheme == "file":
        raise InvalidValue(
            "ModelSource.uri",
            model.uri,
            "pods cannot read a path of this machine: package the model into a store that they can reach, such as "
            "s3:// (package_model with repository=URI), or give pvc://CLAIM/PATH",
        )
    if scheme == "pvc" and not rest.partition("/")[0]:
        raise InvalidValue("ModelSource.uri", model.uri, "write pvc://CLAIM/PATH")
