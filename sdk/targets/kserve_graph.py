"""KServe's InferenceGraph (``serving.kserve.io/v1alpha1``), for KServe 0.15 to 0.20: several services, one endpoint.

KServe's own status tells nothing of a graph. In Standard mode it is Ready as soon as the router's Deployment has been
judged at all, whatever the judgement; a step whose service is missing or not ready yet keeps the whole graph as it was,
without a word in status or events. So the verdict comes from the Deployment or Knative Service that carries the
revision, from its pods, and from the InferenceServices that the steps name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import (
    Endpoint,
    GraphNode,
    GraphStep,
    Health,
    HealthState,
    InferenceGraph,
    KServeOptions,
    Service,
)
from longshore.targets.base import REVISION_LABEL, Manifest, Ref, Selection
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_runtimes import GROUP, options_of
from longshore.targets.kserve_versions import NEWEST_VERSION, too_old
from longshore.targets.pods import container_resources, scheduling
from longshore.targets.workload import deployment_health, pod_health

__all__ = ["GRAPH_LABEL", "KServeGraphTarget"]

GRAPH_LABEL: Final = "serving.kserve.io/inferencegraph"
"""KServe's label of all that it makes for an InferenceGraph."""

_API_VERSION: Final = f"{GROUP}/v1alpha1"
_KIND: Final = "InferenceGraph"
_STOP: Final = f"{GROUP}/stop"
_MODES: Final = {"Standard": "RawDeployment", "Knative": "Serverless"}
# of the Service's other fields a router has nothing
_UNUSED: Final = ("env", "secrets", "image", "port", "router")
_UNUSED_OPTIONS: Final = frozenset(KServeOptions.__dataclass_fields__) - {"mode", "autoscaler", "timeout_seconds"}
# what came with it: GraphTimeouts and GraphStep.map_predictions
_FIELDS_SINCE: Final = (0, 16)
_TIMEOUTS: Final = {"read": "serverRead", "write": "serverWrite", "idle": "serverIdle", "step": "serviceClient"}


class KServeGraphTarget:
    """Renders an :class:`~longshore.spec.InferenceGraph`; see :class:`longshore.targets.base.Target`.

    Args:
        version: KServe's version in the cluster, major and minor; what it cannot do is refused.
    """

    def __init__(self, version: tuple[int, int] = NEWEST_VERSION) -> None:
        self.version = KServeTarget(version).version

    def render(self, release: InferenceGraph) -> list[Manifest]:
        """The InferenceGraph.

        Raises:
            InvalidValue: If it asks for what a graph, or this version of KServe, does not have.
        """
        service, options = release.service, options_of(release.service)
        self._check(release, options)
        mode = options.mode if self.version >= (0, 16) else _MODES[options.mode]
        spec: dict[str, Any] = {
            "nodes": {name: _node(node) for name, node in release.nodes.items()},
            **_replicas(service),
            **scheduling(service),
        }
        if resources := container_resources(service.resources):
            spec["resources"] = resources
        if options.timeout_seconds is not None:
            spec["timeout"] = options.timeout_seconds
        limits = {key: getattr(release.timeouts, name) for name, key in _TIMEOUTS.items()}
        if limits := {key: value for key, value in limits.items() if value is not None}:
            spec["routerTimeouts"] = limits
        return [
            {
                "apiVersion": _API_VERSION,
                "kind": _KIND,
                "metadata": {
                    "name": service.name,
                    "namespace": service.namespace,
                    # KServe hands them on to what it makes, in Knative mode without its own
                    "labels": {**service.labels, GRAPH_LABEL: service.name, REVISION_LABEL: release.revision},
                    "annotations": {
                        **service.annotations,
                        f"{GROUP}/deploymentMode": mode,
                        **_autoscaler(service, options),
                    },
                },
                "spec": spec,
            }
        ]

    def objects(self, service: Service) -> list[Ref]:
        """The InferenceGraph."""
        return [Ref(_API_VERSION, _KIND, service.name, service.namespace)]

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """No: a router replaces the one before."""
        return False

    def needs(self, release: InferenceGraph) -> Mapping[str, Ref]:  # noqa: ARG002
        """Nothing: what its steps ask may come later."""
        return {}

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: revisions are KServe's own."""
        return ()

    def children(self, release: InferenceGraph) -> Sequence[Selection]:
        """What KServe makes of the graph, down to the pods; the namespace's InferenceServices and events."""
        service = release.service
        namespace, labels = service.namespace, {GRAPH_LABEL: service.name}
        made = (
            (
                Selection("serving.knative.dev/v1", "Service", namespace, labels),
                Selection("serving.knative.dev/v1", "Revision", namespace, labels),
            )
            if options_of(service).mode == "Knative"
            else (Selection("apps/v1", "Deployment", namespace, labels),)
        )
        return (
            *made,
            Selection("v1", "Pod", namespace, labels),
            Selection(f"{GROUP}/v1beta1", "InferenceService", namespace),
            Selection("v1", "Event", namespace),
        )

    def health(self, release: InferenceGraph, observed: Sequence[Manifest]) -> Health:
        """The verdict on the router's own revision, and on the services that it asks."""
        graph = next((m for m in observed if m["kind"] == _KIND), None)
        if graph is None:
            return Health.progressing("the InferenceGraph is not there yet")
        if str((graph["metadata"].get("annotations") or {}).get(_STOP, "")).lower() == "true":
            return Health.failed(f"the InferenceGraph is stopped: take its annotation {_STOP} away")
        runs = graph["metadata"]["labels"].get(REVISION_LABEL)
        if runs != release.revision:
            return Health.failed(f"somebody else changed the InferenceGraph: it asks for revision {runs}")
        router = _router(release, observed)
        waits = _waits(release, observed)
        if waits is None or router.state in (HealthState.FAILED, HealthState.STALLED):
            return router
        return Health.stalled(waits)

    def endpoint(self, release: InferenceGraph, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The router's Service in the cluster. It answers at every path, in the form that its steps speak."""
        service = release.service
        return Endpoint(
            name=service.name,
            url=f"http://{service.name}.{service.namespace}.svc.cluster.local",
            model=service.name,
            revision=release.revision,
            takes="tensors",
        )

    def _check(self, graph: InferenceGraph, options: KServeOptions) -> None:
        service, scaling = graph.service, graph.service.scaling
        for name in _UNUSED:
            if value := getattr(service, name):
                raise InvalidValue(f"Service.{name}", value, "a router has no use for it: leave it out")
        for name in sorted(_UNUSED_OPTIONS):
            if value := getattr(options, name):
                raise InvalidValue(f"KServeOptions.{name}", value, "this is for a model's service: leave it out")
        if service.resources.gpu:
            raise InvalidValue("Resources.gpu", service.resources.gpu, "a router has no use for it: leave it out")
        if options.mode == "Standard":
            if scaling.min_replicas < 1:
                raise InvalidValue("Scaling.min_replicas", 0, "only KServe's Knative mode scales to zero")
            if scaling.metric in ("concurrency", "rps"):
                raise InvalidValue("Scaling.metric", scaling.metric, "only KServe's Knative mode scales by requests")
            if options.autoscaler == "keda":
                raise InvalidValue("KServeOptions.autoscaler", "keda", "a graph has no metrics for it: use hpa")
        elif scaling.metric == "memory":
            raise InvalidValue("Scaling.metric", scaling.metric, "Knative scales by concurrency, rps or cpu")
        if self.version < _FIELDS_SINCE:
            used = [f"GraphTimeouts.{name}" for name in _TIMEOUTS if getattr(graph.timeouts, name) is not None]
            used += ["GraphStep.map_predictions" for _, step in _steps(graph) if step.map_predictions]
            if used:
                raise InvalidValue(used[0], True, too_old(self.version, _FIELDS_SINCE))


def _node(node: GraphNode) -> dict[str, Any]:
    return {"routerType": node.kind, "steps": [_step(step) for step in node.steps]}


def _step(step: GraphStep) -> dict[str, Any]:
    fields = {
        "name": step.name,
        "serviceName": step.service,
        "nodeName": step.node,
        "serviceUrl": step.url,
        "data": step.data,
        "condition": step.condition,
        "weight": step.weight,
        "dependency": step.dependency,
        "mapPredictionsToInstances": step.map_predictions or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _fixed(service: Service) -> bool:
    return service.scaling.max_replicas in (None, service.scaling.min_replicas)


def _replicas(service: Service) -> dict[str, Any]:
    scaling = service.scaling
    bounds = {"minReplicas": scaling.min_replicas, "maxReplicas": scaling.max_replicas or max(1, scaling.min_replicas)}
    return bounds if _fixed(service) else {**bounds, "scaleMetric": scaling.metric, "scaleTarget": scaling.target}


def _autoscaler(service: Service, options: KServeOptions) -> dict[str, str]:
    if options.mode == "Knative":
        return {}
    return {f"{GROUP}/autoscalerClass": options.autoscaler or ("none" if _fixed(service) else "hpa")}


def _steps(graph: InferenceGraph) -> Iterator[tuple[str, GraphStep]]:
    for name, node in graph.nodes.items():
        for step in node.steps:
            yield name, step


def _waits(graph: InferenceGraph, observed: Sequence[Manifest]) -> str | None:
    """What a step still lacks, None if nothing: KServe makes no router while one lacks its service."""
    services = {m["metadata"]["name"]: m for m in observed if m["kind"] == "InferenceService"}
    for node, step in _steps(graph):
        if step.service is None:
            continue
        where = f"a step of the node {node} asks the InferenceService {step.service}"
        found = services.get(step.service)
        if found is None:
            return f"{where}, which does not exist: deploy it first"
        status = found.get("status") or {}
        if "url" not in (status.get("address") or {}):
            return f"{where}, which has no address yet{_why(status)}"
        # a soft step may fail, and its service may be away
        if step.dependency != "Soft" and _ready(status).get("status") != "True":
            return f"{where}, which is not Ready{_why(status)}"
    return None


def _ready(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})


def _why(status: Mapping[str, Any]) -> str:
    told = [part for part in (_ready(status).get("reason"), _ready(status).get("message")) if part]
    return f" ({': '.join(told)})" if told else ""


def _router(graph: InferenceGraph, observed: Sequence[Manifest]) -> Health:
    name = graph.service.name
    knative = options_of(graph.service).mode == "Knative"
    kind, group = ("Service", "serving.knative.dev/v1") if knative else ("Deployment", "apps/v1")
    kinds = [m for m in observed if (m["apiVersion"], m["kind"]) == (group, kind)]
    made = next((m for m in kinds if m["metadata"]["name"] == name), None)
    what = f"{'Knative Service' if knative else 'Deployment'} {name}"
    if made is None:
        return Health.progressing(f"KServe has not made the {what} yet (if it never does, its log says why)")
    if (made["spec"]["template"]["metadata"].get("labels") or {}).get(REVISION_LABEL) != graph.revision:
        return Health.progressing(f"KServe has not passed this revision on to the {what} yet")
    pods = [m for m in observed if m["kind"] == "Pod"]
    ours = [pod for pod in pods if pod["metadata"]["labels"].get(REVISION_LABEL) == graph.revision]
    events = [m for m in observed if m["kind"] == "Event"]
    if knative:
        return _knative(made, [m for m in observed if m["kind"] == "Revision"], ours, events)
    health = deployment_health(made, ours, events)
    low, scaled = graph.service.scaling.min_replicas, made["spec"].get("replicas", 1)
    if health.state is HealthState.READY and scaled < low:
        return Health.progressing(f"the {what} is for {scaled} pods yet, {low} are asked for")
    if health.state is HealthState.READY and len(ours) < len(pods):
        # until they are gone, nodes that do not know it yet send them requests
        return Health.progressing(f"{len(pods) - len(ours)} pods of another revision are ending")
    return health


def _knative(
    service: Manifest, revisions: Sequence[Manifest], pods: Sequence[Manifest], events: Sequence[Manifest]
) -> Health:
    name, status = service["metadata"]["name"], service.get("status") or {}
    if (status.get("observedGeneration") or 0) < service["metadata"].get("generation", 0):
        return Health.progressing(f"the Knative Service {name} was changed and Knative has not seen that yet")
    created, ready = status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")
    for pod in pods:
        # a revision of the same content from before may still have pods
        if pod["metadata"]["labels"].get("serving.knative.dev/revision") != created:
            continue
        if (health := pod_health(pod, events)) is not None:
            return health
    newest = next((m.get("status") or {} for m in revisions if m["metadata"]["name"] == created), {})
    if _ready(newest).get("status") == "False":
        return Health.failed(f"Knative Revision {created} is not ready{_why(newest)}")
    if created is None or created != ready:
        return Health.progressing(f"Knative Revision {created or f'of {name}'} is not ready yet")
    if _ready(status).get("status") != "True":
        return Health.progressing(f"the Knative Service {name} is not Ready yet{_why(status)}")
    return Health.ready()
