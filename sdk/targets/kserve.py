"""The platform ``kserve``: an InferenceService (``serving.kserve.io/v1beta1``) for KServe 0.15 to 0.20."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
from longshore.targets.kserve_checks import check_release
from longshore.targets.kserve_health import INFERENCE_SERVICE_LABEL, inference_service_health
from longshore.targets.kserve_huggingface import token_environment, token_secret
from longshore.targets.kserve_runtimes import (
    DRAIN_SECONDS,
    GROUP,
    GRPC_PORT,
    KNATIVE_TAG,
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
    is_packaged_saved_model,
    saved_model_container,
    saved_model_storage,
)
from longshore.targets.kserve_torchserve import is_archive, is_packaged_archive, torchserve_container
from longshore.targets.kserve_versions import NEWEST_VERSION, OLDEST_VERSION, dotted
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

__all__ = ["KServeTarget"]

_API_VERSION: Final = f"{GROUP}/v1beta1"
_KIND: Final = "InferenceService"
_AGENT_PORT: Final = 9081
_MASK: Final = "-"


class KServeTarget:
    """Renders a release as an InferenceService; see :class:`longshore.targets.base.Target`.

    Args:
        version: KServe's version in the cluster, major and minor; what it cannot do is refused.
    """

    def __init__(self, version: tuple[int, int] = NEWEST_VERSION) -> None:
        if version < OLDEST_VERSION:
            raise InvalidValue("KServe version", dotted(version), "longshore knows KServe from 0.15 on")
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
        check_release(release, self.version)
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
            revision_url=f"http://{KNATIVE_TAG}-{host}" if options.mode == "Knative" else None,
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
