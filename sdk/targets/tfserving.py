"""The platform ``tensorflow-serving``: TensorFlow Serving on Kubernetes, with its versions and labels.

The release that gets the requests has the label ``stable``. One with 0 percent of them is loaded beside it, in the same
servers, under the label ``canary``: labels are names for clients, and share nothing out.

A pod is started with the versions and labels that it is to have, and is replaced when these change. TensorFlow Serving
can load another version while it runs, but what a pod was told then it has forgotten after a restart, and a pod that
the autoscaler adds was never told. So the Deployment alone says what is served, and Kubernetes has pods with other
versions ready before it ends one.

Sources: github.com/tensorflow/serving (tensorflow_serving/model_servers/main.cc, server_core.cc, tools/docker).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, ModelSource, Release, Service, TensorFlowServingOptions, to_plain
from longshore.spec.image import image_name
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
)

__all__ = ["CANARY", "SERVER_IMAGE", "STABLE", "TensorFlowServingTarget", "served_by"]

SERVER_IMAGE: Final = "tensorflow/serving:2.19.1"
"""The server, where a service names no image of its own."""

STABLE: Final = "stable"
"""Label of the version that gets the requests."""

CANARY: Final = "canary"
"""Label of the version that is tried out beside it."""

_GRPC_PORT: Final = 8500
_REST_PORT: Final = 8501
_METRICS_PATH: Final = "/monitoring/prometheus/metrics"
_MODELS: Final = "/models"
_CLAIMS: Final = "/claims"
# it ends no sooner than it is killed, and answers until then
_DRAIN_SECONDS: Final = 10


def served_by(release: Release) -> tuple[Sequence[ModelSource], Mapping[str, str]]:
    """The models of a release that are loaded side by side, the release's own last, and the version of each label."""
    own = release.model
    if release.traffic.percent == 100:
        return [own], {STABLE: own.version or ""}
    before = [one.model for one in release.beside][:1]
    labels = [(STABLE, one.version or "") for one in before]
    return [*before, own], {**dict(labels), CANARY: own.version or ""}


def options_of(service: Service) -> TensorFlowServingOptions:
    """What a service says of TensorFlow Serving, or else the defaults."""
    return service.tfserving or TensorFlowServingOptions()


class TensorFlowServingTarget(DeploymentTarget):
    """TensorFlow Serving in each pod; see :class:`~longshore.targets.deployed.DeploymentTarget`."""

    platform: ClassVar[str] = "tensorflow-serving"
    metrics: ClassVar[tuple[str, str]] = ("http", _METRICS_PATH)

    def ports(self, service: Service) -> Sequence[Port]:
        """REST, and gRPC if it is wanted."""
        rest = Port("http", _REST_PORT, _REST_PORT)
        return (rest, Port("grpc", _GRPC_PORT, _GRPC_PORT)) if options_of(service).grpc else (rest,)

    def monitored(self, service: Service) -> bool:
        """As the service says."""
        return options_of(service).pod_monitor

    def check(self, release: Release) -> None:
        """Refuse a split, versions that cannot stand side by side, and models that pods cannot read."""
        traffic = release.traffic
        if traffic.percent not in (0, 100):
            raise InvalidValue(
                "Traffic.percent",
                traffic.percent,
                "TensorFlow Serving shares nothing out: use 0 for a canary that is asked by its label, 100, or give "
                "the service a router",
            )
        if traffic.mirror_percent:
            raise InvalidValue(
                "Traffic.mirror_percent", traffic.mirror_percent, "TensorFlow Serving copies no requests: use a router"
            )
        models, _ = served_by(release)
        for model in models:
            _check_model(model)
        first, *others = models
        for other in others:
            if other.version == first.version:
                raise InvalidValue(
                    "ModelSource.version", other.version, "what serves has this version: register the canary as another"
                )
            if other.name != first.name:
                raise InvalidValue(
                    "ModelSource.name", other.name, f"a canary is a version of the model that serves, {first.name}"
                )

    def pod(self, release: Release) -> dict[str, Any]:
        """The server; what brings its models; and what holds the pod back until each of them is available."""
        service = release.service
        models, _ = served_by(release)
        claims = sorted({_claim(model)[0] for model in models if model.uri.startswith("pvc://")})
        scratch = {"name": "scratch", "mountPath": "/tmp"}  # noqa: S108 - the pod's own
        return {
            "initContainers": [_loader(release, [scratch, *map(_claim_mount, claims)])],
            "containers": [_server(release, scratch), _watcher(release, scratch)],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "models", "emptyDir": {}},
                *(
                    {"name": f"claim-{name}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
                    for name in claims
                ),
            ],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": LINGER_SECONDS + _DRAIN_SECONDS,
            "securityContext": pod_security(),
            "topologySpreadConstraints": spread(
                {SERVICE_LABEL: release.object_name, REVISION_LABEL: release.revision},
            ),
            **scheduling(service),
        }

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The Service's name in the cluster's DNS; which version is asked is part of the model's name in requests."""
        service, model = release.service, release.model.name
        url = self.url(service)
        # routers share out HTTP
        grpc = options_of(service).grpc and release.lane is None
        return Endpoint(
            name=service.name,
            url=url,
            model=f"{model}/labels/{STABLE}",
            revision=release.revision,
            revision_url=url,
            revision_model=f"{model}/labels/{STABLE if release.traffic.percent == 100 else CANARY}",
            grpc_url=f"http://{service.name}.{service.namespace}.svc:{_GRPC_PORT}" if grpc else None,
            protocols=("tensorflow", "grpc-tensorflow") if grpc else ("tensorflow",),
            takes="tensors",
        )


def _check_model(model: ModelSource) -> None:
    if model.format != "tensorflow":
        raise InvalidValue(
            "ModelSource.format", model.format, "TensorFlow Serving serves SavedModels: use what train_tensorflow makes"
        )
    if not model.version or str(int(model.version)) != model.version:
        raise InvalidValue(
            "ModelSource.version", model.version, "TensorFlow Serving tells versions apart by their number: register it"
        )
    check_remote(model)


def _claim(model: ModelSource) -> tuple[str, str]:
    """A volume claim, and the path in it."""
    name, _, path = model.uri.removeprefix("pvc://").partition("/")
    return name, path


def _claim_mount(name: str) -> dict[str, Any]:
    return {"name": f"claim-{name}", "mountPath": f"{_CLAIMS}/{name}", "readOnly": True}


def _readable(model: ModelSource) -> dict[str, Any]:
    """The model as the pod reads it."""
    plain: dict[str, Any] = to_plain(model)
    if model.uri.startswith("pvc://"):
        name, path = _claim(model)
        plain["uri"] = f"{_CLAIMS}/{name}/{path}".rstrip("/")
    return plain


def _loader(release: Release, mounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    service, options = release.service, options_of(release.service)
    models, labels = served_by(release)
    given = {
        "--to": _MODELS,
        "--models": json.dumps([_readable(model) for model in models], sort_keys=True),
        "--labels": json.dumps(labels, sort_keys=True),
    }
    if options.batching is not None:
        given["--batching"] = json.dumps(to_plain(options.batching), sort_keys=True)
    return {
        "name": "loader",
        **_longshore(service, "fetch", given),
        **environment(service.env, service.secrets),
        "resources": container_resources(service.resources),
        "volumeMounts": [*mounts, {"name": "models", "mountPath": _MODELS}],
    }


def _server(release: Release, scratch: Mapping[str, Any]) -> dict[str, Any]:
    service = release.service
    version = f"/v1/models/{release.model.name}/versions/{release.model.version}"
    # what only a version answers that can be asked: the status is told of one that failed, too
    ready = {"httpGet": {"path": f"{version}/metadata", "port": "http"}}
    ports = [("http", _REST_PORT), ("grpc", _GRPC_PORT)][: 2 if options_of(service).grpc else 1]
    return {
        "name": "server",
        "image": service.image or SERVER_IMAGE,
        # the image's own entry point wants the name of one model
        "command": ["tensorflow_model_server"],
        "args": _arguments(options_of(service)),
        **environment(service.env, service.secrets),
        "ports": [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports],
        "resources": container_resources(service.resources),
        # each is counted as a request
        "readinessProbe": {**ready, "periodSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": _METRICS_PATH, "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        # the ports are opened once a version is loaded, and how long that takes is the release's time-out to judge
        "startupProbe": {**ready, "periodSeconds": 1, "failureThreshold": 3600},
        # requests still arrive until every node knows that the pod is leaving
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LINGER_SECONDS)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [scratch, {"name": "models", "mountPath": _MODELS, "readOnly": True}],
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }


def _arguments(options: TensorFlowServingOptions) -> list[str]:
    given: dict[str, object] = {
        "--port": _GRPC_PORT,
        "--rest_api_port": _REST_PORT,
        "--rest_api_timeout_in_ms": round(options.rest_timeout_seconds * 1000),
        "--model_config_file": f"{_MODELS}/models.config",
        "--monitoring_config_file": f"{_MODELS}/monitoring.config",
        # when it starts, no version is loaded yet
        "--allow_version_labels_for_unavailable_models": "true",
        # what cannot be loaded is told at once: the files do not change
        "--max_num_load_retries": 0,
        "--tensorflow_intra_op_parallelism": options.intra_op_threads,
        "--tensorflow_inter_op_parallelism": options.inter_op_threads,
        "--enable_model_warmup": None if options.warmup else "false",
    }
    if options.batching is not None:
        given |= {"--enable_batching": "true", "--batching_parameters_file": f"{_MODELS}/batching.config"}
    return [*(f"{name}={value}" for name, value in given.items() if value is not None), *options.args]


def _watcher(release: Release, scratch: Mapping[str, Any]) -> dict[str, Any]:
    """Ready once the server says that all versions are available, and ends with its words on one that never is.

    The server itself opens its ports as soon as any of them is.
    """
    models, _ = served_by(release)
    given = {
        "--url": f"http://127.0.0.1:{_REST_PORT}",
        "--name": release.model.name,
        "--versions": ",".join(model.version or "" for model in models),
        "--done": "/tmp/loaded",  # noqa: S108 - the pod's own
    }
    return {
        "name": "watcher",
        **_longshore(release.service, "watch", given),
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"exec": {"command": ["test", "-f", given["--done"]]}, "periodSeconds": 1},
        "volumeMounts": [scratch],
    }


def _longshore(service: Service, command: str, given: Mapping[str, str]) -> dict[str, Any]:
    return {
        "image": options_of(service).loader_image or image_name("python"),
        "command": ["python", "-m", "longshore.serving.tfserving"],
        "args": [command, *(f"{name}={value}" for name, value in given.items())],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }
