"""The platform ``kserve``: an InferenceService (``serving.kserve.io/v1beta1``) for KServe 0.15 to 0.20."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
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
    Manifest,
    Ref,
    Selection,
)
from longshore.targets.kserve_health import SERVICE_LABEL, inference_service_health
from longshore.targets.kserve_huggingface import (
    check_huggingface,
    server_arguments,
    spoken,
    token_environment,
    token_secret,
)
from longshore.targets.pods import (
    LINGER_SECONDS,
    REVISION_LABEL,
    SERVER_IMAGE,
    container_resources,
    container_security,
    environment,
    pod_security,
    scheduling,
)

__all__ = ["LONGSHORE_RUNTIME", "NEWEST_VERSION", "KServeTarget", "parse_version", "serving_runtime"]

LONGSHORE_RUNTIME: Final = "longshore"
"""Name of the ClusterServingRuntime of ``manifests/kserve/runtime.yaml``."""

NEWEST_VERSION: Final = (0, 20)
_OLDEST_VERSION: Final = (0, 15)

_GROUP: Final = "serving.kserve.io"
_API_VERSION: Final = f"{_GROUP}/v1beta1"
_KIND: Final = "InferenceService"
_PORT: Final = 8080
_DRAIN_SECONDS: Final = 20
_HOST_LABEL: Final = 63
# of what Knative makes of the name: NAME-transformer-00001-deployment is cut, NAME-transformer-00001 is not
_KNATIVE_NAME: Final = _HOST_LABEL - len("-transformer-00001")
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
    """

    name: str
    protocols: tuple[str, ...]
    version: str | None = None
    ready: str | None = "/v2/health/ready"
    since: tuple[int, int] = _OLDEST_VERSION


_OWN: Final = _Runtime(LONGSHORE_RUNTIME, ("v1", "v2"))
_OWN_FORMATS: Final = frozenset({"sklearn", "xgboost", "lightgbm"})

# What KServe brings, by format: the runtime that loads the format's own files without code of the user. KServe's choice
# is by priority alone: it finds none for mlflow unless v2 is asked for, and takes another server for sklearn in v2.
_KSERVE_RUNTIMES: Final[Mapping[str, Sequence[_Runtime]]] = {
    "sklearn": (_Runtime("kserve-sklearnserver", ("v1", "v2"), "1"), _Runtime("kserve-mlserver", ("v2",), "1")),
    "xgboost": (_Runtime("kserve-xgbserver", ("v1", "v2"), "2"), _Runtime("kserve-mlserver", ("v2",), "2")),
    "lightgbm": (_Runtime("kserve-lgbserver", ("v1", "v2"), "4"), _Runtime("kserve-mlserver", ("v2",), "4")),
    "mlflow": (_Runtime("kserve-mlserver", ("v2",), "2"),),
    "pytorch": (_Runtime("kserve-torchserve", ("v1", "v2", "grpc-v2"), "1", ready=None),),
    "tensorflow": (_Runtime("kserve-tensorflow-serving", ("v1", "grpc-v1"), "2", ready=None),),
    "tensorrt": (_Runtime("kserve-tritonserver", ("v2", "grpc-v2"), "8"),),
    "onnx": (_Runtime("kserve-tritonserver", ("v2", "grpc-v2"), "1"),),
    "triton": (_Runtime("kserve-tritonserver", ("v2", "grpc-v2"), "2"),),
    "huggingface": (_Runtime("kserve-huggingfaceserver", ("v1", "v2"), "1"),),
    "pmml": (_Runtime("kserve-pmmlserver", ("v1", "v2"), "4"),),
    "paddle": (_Runtime("kserve-paddleserver", ("v1", "v2"), "2"),),
    "openvino": (_Runtime("kserve-openvino", ("v2", "grpc-v2"), since=(0, 17)),),
    "autogluon": (_Runtime("kserve-autogluonserver", ("v1", "v2"), since=(0, 20)),),
    "vllm": (_Runtime("kserve-vllmserver", ("v1", "v2"), since=(0, 20)),),
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
            "protocolVersions": ["v1", "v2"],
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
                    "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
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

    name: ClassVar[str] = "kserve"
    previews: ClassVar[bool] = False

    def __init__(self, version: tuple[int, int] = NEWEST_VERSION) -> None:
        if version < _OLDEST_VERSION:
            raise InvalidValue("KServe version", ".".join(map(str, version)), "longshore knows KServe from 0.15 on")
        self.version = version

    def render(self, release: Release) -> list[Manifest]:
        """The InferenceService.

        Raises:
            InvalidValue: If the release asks for what KServe, or this version of it, does not have.
        """
        service, options = release.service, _options(release)
        self._check(release, options)
        annotations = {f"{_GROUP}/deploymentMode": self._mode(options), **_autoscaler(service, options)}
        if (secret := options.storage_secret or token_secret(release)) is not None:
            annotations[f"{_GROUP}/storageSecretName"] = secret
        spec: dict[str, Any] = {"predictor": self._predictor(release, options)}
        for kind in ("transformer", "explainer"):
            if (container := getattr(options, kind)) is not None:
                spec[kind] = _component(release, options, container)
        return [
            {
                "apiVersion": _API_VERSION,
                "kind": _KIND,
                "metadata": {
                    "name": service.name,
                    "namespace": service.namespace,
                    "labels": dict(service.labels),
                    "annotations": {**service.annotations, **annotations},
                },
                "spec": spec,
            }
        ]

    def objects(self, service: Service) -> list[Ref]:
        """The InferenceService."""
        return [Ref(_API_VERSION, _KIND, service.name, service.namespace)]

    def children(self, service: Service) -> Sequence[Selection]:
        """What KServe makes of the InferenceService, down to the pods, and the events of the namespace."""
        namespace, labels = service.namespace, {SERVICE_LABEL: service.name}
        made = (
            (
                Selection("serving.knative.dev/v1", "Service", namespace, labels),
                Selection("serving.knative.dev/v1", "Revision", namespace, labels),
            )
            if (service.kserve or KServeOptions()).mode == "Knative"
            else (Selection("apps/v1", "Deployment", namespace, labels),)
        )
        return (*made, Selection("v1", "Pod", namespace, labels), Selection("v1", "Event", namespace))

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the release's own revision: from what was made of it, since the status may be of another."""
        (wanted,) = self.render(release)
        return inference_service_health(wanted, observed)

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """The address in the cluster."""
        service, options = release.service, _options(release)
        status = next((m.get("status") or {} for m in observed if m["kind"] == _KIND), {})
        entry = "transformer" if options.transformer is not None else "predictor"
        usual = f"http://{service.name}-{entry}.{service.namespace}.svc.cluster.local"
        runtime = self._runtime(release, options)
        return Endpoint(
            name=service.name,
            url=(status.get("address") or {}).get("url") or usual,
            # the other servers are told the service's name only
            model=release.model.name if runtime is _OWN else service.name,
            revision=release.revision,
            protocols=spoken(release) or (runtime.protocols if runtime is not None else (options.protocol or "v1",)),
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
        container: dict[str, Any] = {
            "modelFormat": model_format,
            "runtime": runtime.name if runtime is not None else options.runtime,
            "storageUri": model.uri,
            "args": [*(_server_arguments(release) if runtime is _OWN else server_arguments(release)), *options.args],
            **environment(service.env, service.secrets),
            "resources": _resources(service.resources, runtime),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        container["env"] += token_environment(release)
        protocol = options.protocol or (runtime.protocols[0] if runtime is not None else None)
        if protocol is not None:
            container["protocolVersion"] = protocol
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
        service, scaling = release.service, release.service.scaling
        if options.mode == "Standard":
            if release.traffic.percent != 100:
                raise InvalidValue(
                    "Traffic.percent", release.traffic.percent, "KServe's Standard mode has no split: use 100"
                )
            if scaling.min_replicas < 1:
                raise InvalidValue("Scaling.min_replicas", 0, "only KServe's Knative mode scales to zero")
            if scaling.metric in ("concurrency", "rps"):
                raise InvalidValue("Scaling.metric", scaling.metric, "only KServe's Knative mode scales by requests")
        elif scaling.metric == "memory":
            raise InvalidValue("Scaling.metric", scaling.metric, "Knative scales by concurrency, rps or cpu")
        longest = _KNATIVE_NAME if options.mode == "Knative" else _HOST_LABEL - len("-transformer")
        if len(service.name) > longest:
            raise InvalidValue(
                "Service.name", service.name, f"use at most {longest} characters: KServe appends to it (RFC 1035 label)"
            )
        host = f"{service.name}-transformer-{service.namespace}"
        if len(host) > _HOST_LABEL:
            raise InvalidValue(
                "Service.name",
                service.name,
                f"KServe makes the host name {host} of it, which has {len(host)} characters: {_HOST_LABEL} is the most",
            )
        runtime = self._runtime(release, options)
        if runtime is not None and runtime.since > self.version:
            raise InvalidValue("KServeOptions.runtime", runtime.name, self._too_old(runtime.since))
        if runtime is not None and options.protocol not in (None, *runtime.protocols):
            raise InvalidValue(
                "KServeOptions.protocol",
                options.protocol,
                f"the runtime {runtime.name} speaks {', '.join(runtime.protocols)}",
            )
        self._check_uri(release.model.uri)
        check_huggingface(release, self.version)

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


def _server_arguments(release: Release) -> list[str]:
    model = release.model
    options = {
        "--name": model.name,
        "--revision": release.revision,
        "--digest": model.digest,
        "--model-version": model.version,
    }
    return [f"{name}={value}" for name, value in options.items() if value is not None]
