"""The platform ``rest``: a web server with the model on Kubernetes, without a serving platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, HealthState, Release, Service
from longshore.targets.availability import (
    AUTOSCALER,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    autoscaler,
    autoscaler_health,
    check_scaling,
    disruption_budget,
    network_policy,
    scales,
    spread,
)
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Ref, Selection
from longshore.targets.pods import (
    LINGER_SECONDS,
    container_resources,
    container_security,
    environment,
    pod_security,
    scheduling,
    secret_refs,
    server_image,
)
from longshore.targets.routes import Lane
from longshore.targets.workload import deployment_health

__all__ = ["RestTarget"]

_PORT: Final = 8080
_DRAIN_SECONDS: Final = 20


class RestTarget:
    """Renders a release as a Deployment and a Service; see :class:`longshore.targets.base.Target`.

    Pods are replaced one by one as the new ones become ready, which they do once they have loaded the model and
    checked its digest: what does not come up never gets a request. A NetworkPolicy leaves only their port open; where
    there can be several, a PodDisruptionBudget keeps them from being evicted together, and where their number changes,
    a HorizontalPodAutoscaler changes it.
    """

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """No: a Deployment replaces its pods."""
        return False

    def render(self, release: Release) -> list[Manifest]:
        """The Deployment, the Service and the NetworkPolicy; the autoscaler and the budget where they have a use.

        Raises:
            InvalidValue: If the release asks for what this platform does not have.
        """
        _check(release)
        service = release.service
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
                        },
                        "spec": _pod(release),
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
                    "ports": [{"name": "http", "port": service.port or 80, "targetPort": "http", "protocol": "TCP"}],
                },
            },
            network_policy(metadata, selector, _PORT),
        ]
        if scales(scaling):
            manifests.append(autoscaler(metadata, scaling))
        if max(scaling.min_replicas, scaling.max_replicas or 0) > 1:
            manifests.append(disruption_budget(metadata, selector))
        return manifests

    def objects(self, service: Service) -> list[Ref]:
        """All that a release may have; the Deployment bears it."""
        kinds = (("apps/v1", "Deployment"), ("v1", "Service"), NETWORK_POLICY, AUTOSCALER, DISRUPTION_BUDGET)
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
        return Lane({SERVICE_LABEL: release.object_name}, "http")

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

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The Service's name in the cluster's DNS."""
        service = release.service
        port = "" if service.port in (None, 80) else f":{service.port}"
        return Endpoint(
            name=service.name,
            url=f"http://{service.name}.{service.namespace}.svc{port}",
            model=release.model.name,
            revision=release.revision,
            protocols=("v1", "v2"),
        )


def _check(release: Release) -> None:
    service, model = release.service, release.model
    if release.traffic.percent != 100:
        raise InvalidValue(
            "Traffic.percent",
            release.traffic.percent,
            "the platform 'rest' has no split of its own: give the service a router, or use 100",
        )
    check_scaling("rest", service.scaling, service.resources)
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


def _pod(release: Release) -> dict[str, Any]:
    service = release.service
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": "/tmp"}]  # noqa: S108 - the pod's own
    where = release.model.uri
    if where.startswith("pvc://"):
        claim, _, path = where.removeprefix("pvc://").partition("/")
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "model", "mountPath": "/mnt/models", "readOnly": True})
        where = f"/mnt/models/{path}".rstrip("/")
    container: dict[str, Any] = {
        "name": "server",
        "image": service.image or server_image(service.framework),
        "args": _arguments(release, where),
        **environment(service.env, service.secrets),
        "ports": [{"name": "http", "containerPort": _PORT, "protocol": "TCP"}],
        "resources": container_resources(service.resources),
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        # the port is opened once the model is loaded, and how long that takes is the release's time-out to judge
        "startupProbe": {
            "httpGet": {"path": "/v2/health/ready", "port": "http"},
            "periodSeconds": 1,
            "failureThreshold": 3600,
        },
        # requests still arrive until every node knows that the pod is leaving
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LINGER_SECONDS)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }
    return {
        "containers": [container],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": LINGER_SECONDS + _DRAIN_SECONDS + 7,
        "securityContext": pod_security(),
        "topologySpreadConstraints": spread(
            {SERVICE_LABEL: release.object_name, REVISION_LABEL: release.revision},
        ),
        **scheduling(service),
    }


def _arguments(release: Release, where: str) -> list[str]:
    model = release.model
    options = {
        "--model": where,
        "--framework": release.service.framework,
        "--name": model.name,
        "--revision": release.revision,
        "--digest": model.digest,
        "--model-version": model.version,
        "--host": "0.0.0.0",  # noqa: S104 - the pod's own network
        "--port": str(_PORT),
        "--drain-seconds": str(_DRAIN_SECONDS),
    }
    return [f"{name}={value}" for name, value in options.items() if value is not None]
