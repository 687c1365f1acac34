"""The platform ``kserve``: an InferenceService (``serving.kserve.io/v1beta1``) for KServe 0.15 to 0.20."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec import Container, Endpoint, Health, KServeOptions, Release, Resources, Service
from longshore.spec.outcome import service_of
from longshore.spec.quantity import quantity
from longshore.targets.base import (
    APPLIED_ANNOTATION,
    PREVIOUS_ANNOTATION,
    RELEASE_ANNOTATION,
    REVISION_LABEL,
    Manifest,
    Ref,
    Selection,
)
from longshore.targets.kserve_health import INFERENCE_SERVICE_LABEL, inference_service_health
from longshore.targets.kserve_huggingface import check_huggingface, token_environment, token_secret
from longshore.targets.kserve_runtimes import (
    DRAIN_SECONDS,
    GROUP,
    GRPC_PORT,
    OLDEST_VERSION,
    PORT,
    KnownRuntime,
    arguments,
    grpc_ports,
    is_own,
    options_of,
    runtime_of,
    spoken,
    variables,
)
from longshore.targets.kserve_tensorflow import (
    check_saved_model,
    is_packaged_saved_model,
    saved_model_container,
    saved_model_storage,
)
from longshore.targets.kserve_torchserve import is_archive, is_packaged_archive, torchserve_container
from longshore.targets.pods import (
    LINGER_SECONDS,
    container_resources,
    container_security,
    environment,
    pod_security,
    scheduling,
    secret_refs,
)
from longshore.targets.routes import Lane

__all__ = ["NEWEST_VERSION", "KServeTarget", "parse_version"]

NEWEST_VERSION: Final = (0, 20)

_API_VERSION: Final = f"{GROUP}/v1beta1"
_KIND: Final = "InferenceService"
_AGENT_PORT: Final = 9081
_HOST_LABEL: Final = 63
_TAG: Final = "latest"
# of what Knative makes of the name: NAME-transformer-00001-deployment is cut, these are not
_KNATIVE_NAME: Final = _HOST_LABEL - max(len("-transformer-00001"), len(f"{_TAG}--transformer"))
_MASK: Final = "-"
_SCHEMES: Final = frozenset(
    {"abfs", "file", "gs", "hdfs", "hf", "http", "https", "oci", "oci+native", "pvc", "s3", "wasb", "webhdfs"}
)
_SINCE: Final = {"oci+native": (0, 20)}


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
        if version < OLDEST_VERSION:
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
        service, options = release.service, options_of(release.service)
        self._check(release, options)
        annotations = {f"{GROUP}/deploymentMode": self._mode(options), **_autoscaler(service, options)}
        if (secret := options.storage_secret or token_secret(release)) is not None:
            annotations[f"{GROUP}/storageSecretName"] = secret
        labels = dict(service.labels)
        if options.mode == "Knative":
            annotations[f"{GROUP}/enable-tag-routing"] = "true"
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
            if options_of(release.service).mode == "Knative"
            else (Selection("apps/v1", "Deployment", namespace, labels),)
        )
        return (*made, Selection("v1", "Pod", namespace, labels), Selection("v1", "Event", namespace))

    def needs(self, release: Release) -> Mapping[str, Ref]:
        """The Secrets of its containers and of the model's storage."""
        options = options_of(release.service)
        named: dict[str, str | None] = {"KServeOptions.storage_secret": options.storage_secret}
        if options.huggingface is not None:
            named["HuggingFaceOptions.token_secret"] = options.huggingface.token_secret
        for kind in ("transformer", "explainer"):
            if (container := getattr(options, kind)) is not None:
                named |= {f"KServeOptions.{kind}.secrets[{i}]": name for i, name in enumerate(container.secrets)}
        return secret_refs(release.service, named)

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: revisions are KServe's own."""
        return ()

    def lane(self, release: Release) -> Lane:
        """The pods that requests come in by."""
        options = options_of(release.service)
        entry = "transformer" if options.transformer is not None else "predictor"
        # KServe puts its agent in front of the predictor
        agent = entry == "predictor" and (options.logger is not None or options.batcher is not None)
        selector = {INFERENCE_SERVICE_LABEL: release.object_name, "component": entry}
        return Lane(selector, _AGENT_PORT if agent else PORT)

    def health(self, release: Release, observed: Sequence[Manifest]) -> Health:
        """The verdict on the release's own revision: from what was made of it, since the status may be of another."""
        (wanted,) = self.render(release)
        return inference_service_health(wanted, observed)

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:
        """The address in the cluster."""
        service, options = release.service, options_of(release.service)
        status = next((m.get("status") or {} for m in observed if m["kind"] == _KIND), {})
        entry = "transformer" if options.transformer is not None else "predictor"
        host = f"{release.object_name}-{entry}.{service.namespace}.svc.cluster.local"
        runtime = runtime_of(release)
        both = is_own(runtime) and options.mode == "Standard" and options.protocol == "grpc-v2"
        protocols, outside = spoken(release, runtime), status.get("url") or ""
        return Endpoint(
            name=service.name,
            url=(status.get("address") or {}).get("url") or f"http://{host}",
            # the other servers are told the service's name only, and TorchServe's archives have their own
            model=release.model.name if is_own(runtime) or is_archive(release) else service.name,
            revision=release.revision,
            revision_url=f"http://{_TAG}-{host}" if options.mode == "Knative" else None,
            grpc_url=f"http://{host}:{GRPC_PORT}" if both and entry == "predictor" else None,
            external_url=None if service_of(outside) else outside or None,
            protocols=protocols,
            takes="rows" if is_own(runtime) or is_packaged_archive(release) else "tensors",
        )

    def _mode(self, options: KServeOptions) -> str:
        if self.version >= (0, 16):
            return options.mode
        return {"Standard": "RawDeployment", "Knative": "Serverless"}[options.mode]

    def _predictor(self, release: Release, options: KServeOptions) -> dict[str, Any]:
        service, model = release.service, release.model
        runtime = runtime_of(release)
        model_format = {"name": (runtime.format if runtime is not None else None) or model.format}
        if runtime is not None and runtime.version is not None:
            model_format["version"] = runtime.version
        container: dict[str, Any] = {
            "modelFormat": model_format,
            "runtime": runtime.name if runtime is not None else options.runtime,
            "storageUri": model.uri,
            "args": [*arguments(release, runtime), *options.args],
            **environment({**variables(release, runtime), **service.env}, service.secrets),
            "resources": _resources(service.resources, runtime),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        container["env"] += token_environment(release)
        protocol = options.protocol or (runtime.protocols[0] if runtime is not None else None)
        if protocol is not None:
            container["protocolVersion"] = protocol
        if is_own(runtime) and protocol == "grpc-v2":
            container["ports"] = grpc_ports(options)
        if service.image is not None:
            container["image"] = service.image
        if runtime is not None and runtime.ready is not None:
            # KServe's own is a connection every 10 seconds
            container["readinessProbe"] = {"httpGet": {"path": runtime.ready, "port": PORT}, "periodSeconds": 1}
        container |= torchserve_container(release) | saved_model_container(release)
        if is_packaged_saved_model(release):
            del container["storageUri"]
        if options.mode == "Standard":
            container["lifecycle"] = _lifecycle()
        if options.logger is not None:
            logger = {"url": options.logger.url, "mode": options.logger.mode}
        predictor = {
            **_replicas(service, options),
            **_pod(release),
            "model": container,
            **saved_model_storage(release),
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
        runtime = runtime_of(release)
        if runtime is not None and runtime.since > self.version:
            raise InvalidValue("KServeOptions.runtime", runtime.name, self._too_old(runtime.since))
        if runtime is not None and options.protocol not in (None, *runtime.protocols):
            raise InvalidValue(
                "KServeOptions.protocol",
                options.protocol,
                f"the runtime {runtime.name} speaks {', '.join(runtime.protocols)}",
            )
        if is_own(runtime) and options.mode == "Knative" and options.protocol == "grpc-v2":
            for name in ("logger", "batcher"):
                if getattr(options, name) is not None:
                    raise InvalidValue(
                        f"KServeOptions.{name}",
                        getattr(options, name),
                        "KServe's reads HTTP, and in Knative mode the predictor has its gRPC port only",
                    )
        self._check_uri(release.model.uri)
        check_huggingface(release, self.version)
        check_saved_model(release, self.version)

    def _check_uri(self, uri: str) -> None:
        scheme, found, rest = uri.partition("://")
        if not found or scheme == "file":
            raise InvalidValue(
                "ModelSource.uri",
                uri,
                "pods cannot read a path of this machine: package the model into a store that they can reach, such as "
                "s3:// (package_model with repository=URI), or give pvc://CLAIM/PATH",
            )
        if self.version < _SINCE.get(scheme, OLDEST_VERSION):
            raise InvalidValue("ModelSource.uri", uri, self._too_old(_SINCE[scheme]))
        if scheme == "hf" and not re.fullmatch(r"[^/:]+/[^/:]+(:[^/]+)?", rest):
            raise InvalidValue("ModelSource.uri", uri, "write hf://OWNER/MODEL or hf://OWNER/MODEL:REVISION")
        if scheme == "pvc" and not urlsplit(uri).netloc:
            raise InvalidValue("ModelSource.uri", uri, "write pvc://CLAIM/PATH")

    def _too_old(self, since: tuple[int, int]) -> str:
        has, needs = (".".join(map(str, version)) for version in (self.version, since))
        return f"the cluster has KServe {has}, and this came with {needs}"


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


def _autoscaler(service: Service, options: KServeOptions) -> dict[str, str]:
    if options.mode == "Knative":
        return {}
    if options.autoscaler is not None:
        return {f"{GROUP}/autoscalerClass": options.autoscaler}
    fixed = service.scaling.max_replicas in (None, service.scaling.min_replicas)
    return {f"{GROUP}/autoscalerClass": "none" if fixed else "hpa"}


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
    if options_of(release.service).mode == "Standard":
        # Knative lets neither through unless its administrator has allowed it
        pod["securityContext"] = pod_security()
        pod["terminationGracePeriodSeconds"] = LINGER_SECONDS + DRAIN_SECONDS + 7
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


def _resources(asked: Resources, runtime: KnownRuntime | None) -> dict[str, dict[str, str]]:
    """The model container's resources; KServe's runtimes have a limit of one CPU, and asking for more needs another."""
    resources = container_resources(asked)
    if not is_own(runtime) and asked.cpu is not None and (quantity(asked.cpu) or 0) > 1:
        resources.setdefault("limits", {})["cpu"] = asked.cpu
    return resources
