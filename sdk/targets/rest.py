"""The platform ``rest``: a web server with the model on Kubernetes, without a serving platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Release, Service
from longshore.targets.availability import spread
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest
from longshore.targets.deployed import DeploymentTarget, Port, check_remote
from longshore.targets.pods import (
    LINGER_SECONDS,
    container_resources,
    container_security,
    environment,
    pod_security,
    scheduling,
    server_image,
)

__all__ = ["RestTarget"]

_PORT: Final = 8080
_DRAIN_SECONDS: Final = 20


class RestTarget(DeploymentTarget):
    """A web server in each pod; see :class:`~longshore.targets.deployed.DeploymentTarget`."""

    platform: ClassVar[str] = "rest"

    def ports(self, service: Service) -> Sequence[Port]:  # noqa: ARG002
        """HTTP only."""
        return (Port("http", _PORT, 80),)

    def check(self, release: Release) -> None:
        """Refuse a part of the requests, and a model that pods cannot read."""
        if release.traffic.percent != 100:
            raise InvalidValue(
                "Traffic.percent",
                release.traffic.percent,
                "the platform 'rest' has no split of its own: give the service a router, or use 100",
            )
        check_remote(release.model)

    def pod(self, release: Release) -> dict[str, Any]:
        """The spec of its pods."""
        return _pod(release)

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The Service's name in the cluster's DNS."""
        return Endpoint(
            name=release.service.name,
            url=self.url(release.service),
            model=release.model.name,
            revision=release.revision,
            protocols=("v1", "v2"),
        )


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
