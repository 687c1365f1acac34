"""The platform ``kserve``: an InferenceService (``serving.kserve.io/v1beta1``) for KServe 0.15 to 0.20."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec import Container, Endpoint, Health, KServeOptions, Release, Resources, Service
from longshore.spec.checks import check_dns_label, check_image
from longshore.spec.quantity import quantity
from longshore.targets.base import (
    APPLIED_ANNOTATION,
    MANAGED_BY,
    PREVIOUS_ANNOTATION,
    RELEASE_ANNOTATION,
    REVISION_LABEL,
    Manifest,
    Ref,
    Selection,
)
from longshore.targets.kserve_health import INFERENCE_SERVICE_LABEL, inference_service_health
from longshore.targets.pods import (
    LINGER_SECONDS,
    SERVER_IMAGE,
    container_resources,
    container_security,
    environment,
    pod_security,
    scheduling,
)
from longshore.targets.routes import Lane

__all__ = ["LONGSHORE_RUNTIME", "NEWEST_VERSION", "KServeTarget", "parse_version", "serving_runtime"]

LONGSHORE_RUNTIME: Final = "longshore"
"""Name of the ClusterServingRuntime of ``manifests/kserve/runtime.yaml``."""

NEWEST_VERSION: Final = (0, 20)
_OLDEST_VERSION: Final = (0, 15)

_GROUP: Final = "serving.kserve.io"
_API_VERSION: Final = f"{_GROUP}/v1beta1"
_KIND: Final = "InferenceService"
_PORT: Final = 8080
_AGENT_PORT: Final = 9081
_GRPC_PORT: Final = 9000
_DRAIN_SECONDS: Final = 20
_HOST_LABEL: Final = 63
_TAG: Final = "latest"
# of what Knative makes of the name: NAME-transformer-00001-deployment is cut, these are not
_KNATIVE_NAME: Final = _HOST_LABEL - max(len("-transformer-00001"), len(f"{_TAG}--transformer"))
_MASK: Final = "-"
_SCHEMES: Final = frozenset(
    {"abfs", "file", "gs", "hdfs", "hf", "http", "https", "oci", "oci+native", "pvc", "s3", "wasb", "webhdfs"}
)
_SINCE: Final = {"oci+native": (0, 20)}


@dataclass(frozen=True)
class _Runtime:
    """How a ServingRuntime is asked.

    Args:
        name: Its name.
        protocols: What it speaks, the usual one first.
        version: Version of the model format, where the runtime is not found without.
        ready: Path that answers 200 once the model can be asked, None where there is none over HTTP.
        since: KServe version that brought it.
        told: How its server is told the model's name, which is the InferenceService's unless something else is said:
            the argument or the variable; None where the model's files say it.
    """

    name: str
    protocols: tuple[str, ...]
    version: str | None = None
    ready: str | None = "/v2/health/ready"
    since: tuple[int, int] = _OLDEST_VERSION
    told: str | None = "--model_name"


_OWN: Final = _Runtime(LONGSHORE_RUNTIME, ("v1", "v2", "grpc-v2"))
_OWN_FORMATS: Final = frozenset({"sklearn", "xgboost", "lightgbm", "onnx"})

# What KServe brings, by format: the runtime that loads the format's own files without code of the user. KServe's choice
# is by priority alone: it finds none for mlflow unless v2 is asked for, and takes another server for sklearn in v2.
_KSERVE_RUNTIMES: Final[Mapping[str, Sequence[_Runtime]]] = {
    "sklearn": (
        _Runtime("kserve-sklearnserver", ("v1", "v2"), "1"),
        _Runtime("kserve-mlserver", ("v2",), "1", told="MLSERVER_MODEL_NAME"),
    ),
    "xgboost": (
        _Runtime("kserve-xgbserver", ("v1", "v2"), "2"),
        _Runtime("kserve-mlserver", ("v2",), "2", told="MLSERVER_MODEL_NAME"),
    ),
    "lightgbm": (
        _Runtime("kserve-lgbserver", ("v1", "v2"), "4"),
        _Runtime("kserve-mlserver", ("v2",), "4", told="MLSERVER_MODEL_NAME"),
    ),
    "mlflow": (_Runtime("kserve-mlserver", ("v2",), "2", told="MLSERVER_MODEL_NAME"),),
    "pytorch": (_Runtime("kserve-torchserve", ("v1", "v2", "grpc-v2"), "1", ready=None, told=None),),
    "tensorflow": (_Runtime("kserve-tensorflow-serving", ("v1", "grpc-v1"), "2", ready=None),),
    "tensorrt": (_Runtime("kserve-tritonserver", ("v2", "grpc-v2"), "8", told=None),),
    "onnx": (_Runtime("kserve-tritonserver", ("v2", "grpc-v2"), "1", told=None),),
    "triton": (_Runtime("kserve-tritonserver", ("v2", "grpc-v2"), "2", told=None),),
    "huggingface": (_Runtime("kserve-huggingfaceserver", ("v1", "v2"), "1"),),
    "pmml": (_Runtime("kserve-pmmlserver", ("v1", "v2"), "4"),),
    "paddle": (_Runtime("kserve-paddleserver", ("v1", "v2"), "2"),),
    "openvino": (_Runtime("kserve-openvino", ("v2", "grpc-v2"), since=(0, 17)),),
    "autogluon": (_Runtime("kserve-autogluonserver", ("v1", "v2"), since=(0, 20)),),
    "vllm": (_Runtime("kserve-vllmserver", ("v1", "v2"), since=(0, 20), told="--served-model-name"),),
}


def serving_runtime(namespace: str | None = None, *, image: str = SERVER_IMAGE) -> Manifest:
    """The runtime that serves what longshore has packaged, for a cluster's administrator to install once.

    It is never chosen by KServe itself: what runs in a cluster already is left to its runtime.

    Args:
        namespace: For a ServingRuntime in this namespace; None is a ClusterServingRuntime.
        image: Container image of the model server.
    """
    metadata: dict[str, Any] = {"name": LONGSHORE_RUNTIME, "labels": dict(MANAGED_BY)}
    if namespace is not None:
        check_dns_label("namespace", namespace)
        metadata["namespace"] = namespace
    check_image("image", image)
    return {
        "apiVersion": f"{_GROUP}/v1alpha1",
        "kind": "ClusterServingRuntime" if namespace is None else "ServingRuntime",
        "metadata": metadata,
        "spec": {
            "annotations": {"prometheus.kserve.io/port": str(_PORT), "prometheus.kserve.io/path": "/metrics"},
            "supportedModelFormats": [{"name": name, "autoSelect": False} for name in sorted(_OWN_FORMATS)],
            "protocolVersions": list(_OWN.protocols),
            "containers": [
                {
                    "name": "kserve-container",
                    "image": image,
                    "args": [
                        "--model=/mnt/models",
                        "--framework=fastapi",
                        "--host=0.0.0.0",
                        f"--port={_PORT}",
                        f"--drain-seconds={_DRAIN_SECONDS}",
                    ],
                    "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
                    "securityContext": {
                        **container_security(),
                        "readOnlyRootFilesystem": True,
                        "runAsNonRoot": True,
                    },
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }


def parse_version(text: str) -> tuple[int, int]:
    """KServe's version as it is written, such as ``0.17`` or ``v0.17.1``.

    Raises:
        InvalidValue: If it is none.
    """
    found = re.fullmatch(r"v?(\d+)\.(\d+)(\..+)?", text)
    if found is None:
        raise InvalidValue("kserve_version", text, "write it as 0.17 or v0.17.1")
    return int(found[1]), int(found[2])


class KServeTarget:
    """Renders a release as an InferenceService; see :class:`longshore.targets.base.Target`.

    Args:
        version: KServe's version in the cluster, major and minor; what it cannot do is refused.
    """

    def __init__(self, version: tuple[int, int] = NEWEST_VERSION) -> None:
        if version < _OLDEST_VERSION:
            raise InvalidValue("KServe version", ".".join(map(str, version)), "longshore knows KServe from 0.15 on")
        self.version = version

    def previews(self, service: Service) -> bool:
        """In Knative mode, where a revision without traffic has an address by its tag."""
        return service.kserve is not None and service.kserve.mode == "Knative"

    def render(self, release: Release) -> list[Manifest]:
        """The InferenceService.

        Raises:
            InvalidValue: If the release asks for what KServe, or this version of it, does not have.
        """
        service, options = release.service, _options(release)
        self._check(release, options)
        annotations = {f"{_GROUP}/deploymentMode": self._mode(options), **_autoscaler(service, options)}
        if options.storage_secret is not None:
            annotations[f"{_GROUP}/storageSecretName"] = options.storage_secret
        labels = dict(service.labels)
        if options.mode == "Knative":
            annotations[f"{_GROUP}/enable-tag-routing"] = "true"
        if release.lane is not None:
            # clients come in by the router in front of it
            labels["networking.kserve.io/visibility"] = "cluster-local"
        spec: dict[str, Any] = {"predictor": self._predictor(release, options)}
        for kind in ("transformer", "explainer"):
            if (container := getattr(options, kind)) is not None:
                spec[kind] = _component(release, options, container)
        return [
            {
                "apiVersion": _API_VERSION,
                "kind": _KIND,
                "metadata": {
                    "name": release.object_name,
                    "namespace": service.namespace,
                    "labels": labels,
                    "annotations": {**service.annotations, **annotations},
                },
                "spec": spec,
            }
        ]

    def objects(self, service: Service) -> list[Ref]:
        """The InferenceService."""
        return [Ref(_API_VERSION, _KIND, service.name, service.namespace)]

    def children(self, release: Release) -> Sequence[Selection]:
        """What KServe makes of the InferenceService, down to the pods, and the events of the namespace."""
        namespace, labels = release.service.namespace, {INFERENCE_SERVICE_LABEL: release.object_name}
        made = (
            (
                Selection("serving.knative.dev/v1", "Service", namespace, labels),
                Selection("serving.knative.dev/v1", "Revision", namespace, labels),
            )
            if _options(release).mode == "Knative"
            else (Selection("apps/v1", "Deployment", namespace, labels),)
        )
        return (*made, Selection("v1", "Pod", namespace, labels), Selection("v1", "Event", namespace))

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: revisions are KServe's own."""
        return ()

    def lane(self, release: Release) -> Lane:
        """The pods that requests come in by."""
        options = _options(release)
        entry = "transformer" if options.transformer is not None else "predictor"
        # KServe puts its agent in front of the predictor
        agent = entry == "predictor" and (options.logger is not None or options.batcher is not None)
        selector = {INFERENCE_SERVICE_LABEL: release.object_name, "component": entry}
        return Lane(selector, _AGENT_PORT if agent else _PORT)

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the release's own revision: from what was made of it, since the status may be of another."""
        (wanted,) = self.render(release)
        return inference_service_health(wanted, observed)

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """The address in the cluster."""
        service, options = release.service, _options(release)
        status = next((m.get("status") or {} for m in observed if m["kind"] == _KIND), {})
        entry = "transformer" if options.transformer is not None else "predictor"
        host = f"{release.object_name}-{entry}.{service.namespace}.svc.cluster.local"
        runtime = self._runtime(release, options)
        return Endpoint(
            name=service.name,
            url=(status.get("address") or {}).get("url") or f"http://{host}",
            # the other servers are told the service's name only
            model=release.model.name if runtime is _OWN else service.name,
            revision=release.revision,
            revision_url=f"http://{_TAG}-{host}" if options.mode == "Knative" else None,
            protocols=_spoken(runtime, options),
            takes="rows" if runtime is _OWN else "tensors",
        )

    def _mode(self, options: KServeOptions) -> str:
        if self.version >= (0, 16):
            return options.mode
        return {"Standard": "RawDeployment", "Knative": "Serverless"}[options.mode]

    def _runtime(self, release: Release, options: KServeOptions) -> _Runtime | None:
        """The runtime that serves the model; None is one of the user's own."""
        model = release.model
        if options.runtime is None and model.digest is not None and model.format in _OWN_FORMATS:
            return _OWN
        if options.runtime == LONGSHORE_RUNTIME:
            return _OWN
        known = _KSERVE_RUNTIMES.get(model.format, ())
        if options.runtime is not None:
            return next((runtime for runtime in known if runtime.name == options.runtime), None)
        fits = [runtime for runtime in known if options.protocol in (None, *runtime.protocols)]
        if not known:
            raise InvalidValue(
                "ModelSource.format",
                model.format,
                f"KServe brings a runtime for {', '.join(_KSERVE_RUNTIMES)}: name a runtime of your own",
            )
        if not fits:
            spoken = sorted({protocol for runtime in known for protocol in runtime.protocols})
            raise InvalidValue(
                "KServeOptions.protocol", options.protocol, f"for {model.format}, KServe speaks {', '.join(spoken)}"
            )
        return fits[0]

    def _predictor(self, release: Release, options: KServeOptions) -> dict[str, Any]:
        service, model = release.service, release.model
        runtime = self._runtime(release, options)
        model_format = {"name": model.format}
        if runtime is not None and runtime.version is not None:
            model_format["version"] = runtime.version
        told, env = _model_name(release, runtime)
        container: dict[str, Any] = {
            "modelFormat": model_format,
            "runtime": runtime.name if runtime is not None else options.runtime,
            "storageUri": model.uri,
            "args": [*(_server_arguments(release, options) if runtime is _OWN else told), *options.args],
            **environment({**env, **service.env}, service.secrets),
            "resources": _resources(service.resources, runtime),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        protocol = options.protocol or (runtime.protocols[0] if runtime is not None else None)
        if protocol is not None:
            container["protocolVersion"] = protocol
        if runtime is _OWN and protocol == "grpc-v2":
            container["ports"] = _grpc_ports(options)
        if service.image is not None:
            container["image"] = service.image
        if runtime is not None and runtime.ready is not None:
            # KServe's own is a connection every 10 seconds
            container["readinessProbe"] = {"httpGet": {"path": runtime.ready, "port": _PORT}, "periodSeconds": 1}
        if options.mode == "Standard":
            container["lifecycle"] = _lifecycle()
        if options.logger is not None:
            logger = {"url": options.logger.url, "mode": options.logger.mode}
        predictor = {
            **_replicas(service, options),
            **_pod(release),
            "model": container,
        }
        if options.logger is not None:
            predictor["logger"] = logger
        if options.batcher is not None:
            predictor["batcher"] = {
                "maxBatchSize": options.batcher.max_size,
                "maxLatency": options.batcher.max_latency_ms,
                "timeout": options.batcher.timeout_seconds,
            }
        if options.timeout_seconds is not None:
            predictor["timeout"] = options.timeout_seconds
        if options.mode == "Knative" and release.traffic.percent < 100:
            predictor["canaryTrafficPercent"] = release.traffic.percent
        return predictor

    def _check(self, release: Release, options: KServeOptions) -> None:
        scaling = release.service.scaling
        if options.mode == "Standard":
            if release.traffic.percent != 100:
                raise InvalidValue(
                    "Traffic.percent",
                    release.traffic.percent,
                    "KServe's Standard mode has no split: give the service a router, or use 100",
                )
            if scaling.min_replicas < 1:
                raise InvalidValue("Scaling.min_replicas", 0, "only KServe's Knative mode scales to zero")
            if scaling.metric in ("concurrency", "rps"):
                raise InvalidValue("Scaling.metric", scaling.metric, "only KServe's Knative mode scales by requests")
        elif release.traffic.mirror_percent:
            raise InvalidValue(
                "Traffic.mirror_percent",
                release.traffic.mirror_percent,
                "Knative copies no requests: use the mode Standard",
            )
        elif scaling.metric == "memory":
            raise InvalidValue("Scaling.metric", scaling.metric, "Knative scales by concurrency, rps or cpu")
        _check_name(release, options)
        runtime = self._runtime(release, options)
        if runtime is not None and runtime.since > self.version:
            raise InvalidValue("KServeOptions.runtime", runtime.name, self._too_old(runtime.since))
        if runtime is not None and options.protocol not in (None, *runtime.protocols):
            raise InvalidValue(
                "KServeOptions.protocol",
                options.protocol,
                f"the runtime {runtime.name} speaks {', '.join(runtime.protocols)}",
            )
        if runtime is _OWN and options.mode == "Knative" and options.protocol == "grpc-v2":
            for name in ("logger", "batcher"):
                if getattr(options, name) is not None:
                    raise InvalidValue(
                        f"KServeOptions.{name}",
                        getattr(options, name),
                        "KServe's reads HTTP, and in Knative mode the predictor has its gRPC port only",
                    )
        self._check_uri(release.model.uri)

    def _check_uri(self, uri: str) -> None:
        scheme, found, rest = uri.partition("://")
        if not found or scheme == "file":
            raise InvalidValue(
                "ModelSource.uri",
                uri,
                "pods cannot read a path of this machine: package the model into a store that they can reach, such as "
                "s3:// (package_model with repository=URI), or give pvc://CLAIM/PATH",
            )
        if self.version < _SINCE.get(scheme, _OLDEST_VERSION):
            raise InvalidValue("ModelSource.uri", uri, self._too_old(_SINCE[scheme]))
        if scheme == "hf" and not re.fullmatch(r"[^/:]+/[^/:]+(:[^/]+)?", rest):
            raise InvalidValue("ModelSource.uri", uri, "write hf://OWNER/MODEL or hf://OWNER/MODEL:REVISION")
        if scheme == "pvc" and not urlsplit(uri).netloc:
            raise InvalidValue("ModelSource.uri", uri, "write pvc://CLAIM/PATH")

    def _too_old(self, since: tuple[int, int]) -> str:
        has, needs = (".".join(map(str, version)) for version in (self.version, since))
        return f"the cluster has KServe {has}, and this came with {needs}"


def _model_name(release: Release, runtime: _Runtime | None) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables by which a server that is not longshore's keeps the service's name for the model."""
    if release.lane is None or runtime is None or runtime.told is None:
        return [], {}
    if runtime.told.startswith("--"):
        return [f"{runtime.told}={release.service.name}"], {}
    return [], {runtime.told: release.service.name}


def _check_name(release: Release, options: KServeOptions) -> None:
    """Refuse names that become too long with what KServe and Knative append."""
    service = release.service
    longest = _KNATIVE_NAME if options.mode == "Knative" else _HOST_LABEL - len("-transformer")
    longest -= len(release.object_name) - len(service.name)
    if len(service.name) > longest:
        raise InvalidValue(
            "Service.name", service.name, f"use at most {longest} characters: KServe appends to it (RFC 1035 label)"
        )
    host = f"{release.object_name}-transformer-{service.namespace}"
    if len(host) > _HOST_LABEL:
        raise InvalidValue(
            "Service.name",
            service.name,
            f"KServe makes the host name {host} of it, which has {len(host)} characters: {_HOST_LABEL} is the most",
        )


def _options(release: Release) -> KServeOptions:
    return release.service.kserve or KServeOptions()


def _autoscaler(service: Service, options: KServeOptions) -> dict[str, str]:
    if options.mode == "Knative":
        return {}
    if options.autoscaler is not None:
        return {f"{_GROUP}/autoscalerClass": options.autoscaler}
    fixed = service.scaling.max_replicas in (None, service.scaling.min_replicas)
    return {f"{_GROUP}/autoscalerClass": "none" if fixed else "hpa"}


def _replicas(service: Service, options: KServeOptions) -> dict[str, Any]:
    scaling = service.scaling
    largest = scaling.max_replicas or max(1, scaling.min_replicas)
    bounds: dict[str, Any] = {"minReplicas": scaling.min_replicas, "maxReplicas": largest}
    if scaling.max_replicas in (None, scaling.min_replicas):
        return bounds
    if options.autoscaler == "keda":
        target = {"type": "Utilization", "averageUtilization": scaling.target}
        metric = {"type": "Resource", "resource": {"name": scaling.metric, "target": target}}
        return {**bounds, "autoScaling": {"metrics": [metric]}}
    return {**bounds, "scaleMetric": scaling.metric, "scaleTarget": scaling.target}


def _pod(release: Release) -> dict[str, Any]:
    """What the pods of all components have."""
    service = release.service
    pod: dict[str, Any] = {
        "labels": {REVISION_LABEL: release.revision},
        # KServe copies the service's annotations into the pods: what longshore notes down would restart them
        "annotations": dict.fromkeys((APPLIED_ANNOTATION, RELEASE_ANNOTATION, PREVIOUS_ANNOTATION), _MASK),
        **scheduling(service),
    }
    if _options(release).mode == "Standard":
        # Knative lets neither through unless its administrator has allowed it
        pod["securityContext"] = pod_security()
        pod["terminationGracePeriodSeconds"] = LINGER_SECONDS + _DRAIN_SECONDS + 7
    return pod


def _component(release: Release, options: KServeOptions, container: Container) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "name": "kserve-container",
        "image": container.image,
        "args": list(container.args),
        **environment(container.env, container.secrets),
        "resources": container_resources(container.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
    }
    if container.command:
        rendered["command"] = list(container.command)
    if options.mode == "Standard":
        rendered["lifecycle"] = _lifecycle()
    return {**_replicas(release.service, options), **_pod(release), "containers": [rendered]}


def _lifecycle() -> dict[str, Any]:
    # requests still arrive until every node knows that the pod is leaving; not every image has a command to sleep
    return {"preStop": {"sleep": {"seconds": LINGER_SECONDS}}}


def _resources(asked: Resources, runtime: _Runtime | None) -> dict[str, dict[str, str]]:
    """The model container's resources; KServe's runtimes have a limit of one CPU, and asking for more needs another."""
    resources = container_resources(asked)
    if runtime is not _OWN and asked.cpu is not None and (quantity(asked.cpu) or 0) > 1:
        resources.setdefault("limits", {})["cpu"] = asked.cpu
    return resources


def _spoken(runtime: _Runtime | None, options: KServeOptions) -> tuple[str, ...]:
    """What is spoken at the endpoint."""
    if runtime is None:
        return (options.protocol or "v1",)
    if runtime is not _OWN:
        return runtime.protocols
    if options.protocol != "grpc-v2":
        return tuple(protocol for protocol in runtime.protocols if protocol != "grpc-v2")
    return runtime.protocols if options.mode == "Standard" else ("grpc-v2",)


def _grpc_ports(options: KServeOptions) -> list[dict[str, Any]]:
    """The ports of longshore's server where it speaks gRPC.

    The runtime declares none, since what it declares could not be taken away here. KServe's Service in Standard mode
    has all of the container's ports, the first one as 80, and marks one named h2c as HTTP/2 for gateways: REST stays
    where it is and gRPC comes beside it. Knative has one port, and its name says what is spoken there.
    """
    grpc = {"containerPort": _GRPC_PORT, "name": "h2c", "protocol": "TCP"}
    if options.mode == "Knative":
        return [grpc]
    return [{"containerPort": _PORT, "name": "http1", "protocol": "TCP"}, grpc]


def _server_arguments(release: Release, options: KServeOptions) -> list[str]:
    model = release.model
    arguments = {
        "--name": model.name,
        "--revision": release.revision,
        "--digest": model.digest,
        "--model-version": model.version,
        "--grpc-port": _GRPC_PORT if options.protocol == "grpc-v2" else None,
    }
    return [f"{name}={value}" for name, value in arguments.items() if value is not None]
