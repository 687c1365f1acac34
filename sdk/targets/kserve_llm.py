"""KServe's LLMInferenceService (``serving.kserve.io``): ``v1alpha1`` in KServe 0.16, ``v1alpha2`` since 0.17.

Pods are known by a variable of their container. Labels and annotations are no use for that: a service's own do not
reach the pods, those of its spec are new in 0.17, and the labels among them become part of the Deployment's selector,
which cannot change any more.

KServe notes down which generation it has seen, so its conditions can be told apart from older ones. But of a Deployment
that is being replaced it says Ready as long as the pods before are there: the verdict on the pods comes from the pods.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Health, HealthState, LLMService, Parallelism, Resources, Service
from longshore.targets.base import Manifest, Ref, Selection
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_runtimes import GROUP
from longshore.targets.kserve_versions import NEWEST_VERSION, dotted
from longshore.targets.pods import container_resources, environment, scheduling, secret_refs
from longshore.targets.workload import deployment_health, pod_health

__all__ = ["KServeLLMTarget"]

_KIND: Final = "LLMInferenceService"
_SINCE: Final = (0, 16)
_ALPHA2_SINCE: Final = (0, 17)
_ARGS_SINCE: Final = (0, 18)
_STOP: Final = f"{GROUP}/stop"
_CONTAINER: Final = "main"
_REVISION: Final = "LONGSHORE_REVISION"
_ARGS: Final = "VLLM_ADDITIONAL_ARGS"
_PORT: Final = 8000
_COMPONENT: Final = "app.kubernetes.io/component"
_SCHEDULER: Final = "llminferenceservice-router-scheduler"
_MAIN: Final = "llminferenceservice-workload"
_PREFILL: Final = "llminferenceservice-workload-prefill"
# of a replica that spans nodes, the leader's and the others' pods
_ACROSS: Final = {
    _MAIN: ("llminferenceservice-workload-leader", "llminferenceservice-workload-worker"),
    _PREFILL: ("llminferenceservice-workload-leader-prefill", "llminferenceservice-workload-worker-prefill"),
}
_SCHEMES: Final = ("hf", "s3", "pvc", "oci")


class KServeLLMTarget:
    """Renders an :class:`~longshore.spec.LLMService`; see :class:`longshore.targets.base.Target`.

    Args:
        version: KServe's version in the cluster, major and minor; what it cannot do is refused.
    """

    def __init__(self, version: tuple[int, int] = NEWEST_VERSION) -> None:
        self.version = KServeTarget(version).version
        if version < _SINCE:
            raise InvalidValue("KServe version", dotted(version), "LLMInferenceService came with KServe 0.16")

    @property
    def api_version(self) -> str:
        """Group and version; ``v1alpha1`` is served by all that have the kind."""
        return f"{GROUP}/{'v1alpha2' if self.version >= _ALPHA2_SINCE else 'v1alpha1'}"

    def render(self, release: LLMService) -> list[Manifest]:
        """The LLMInferenceService.

        Raises:
            InvalidValue: If it asks for what the kind, or this version of KServe, does not have.
        """
        self._check(release)
        service = release.service
        spec: dict[str, Any] = {
            "model": {"uri": release.uri, "name": release.model or service.name},
            "replicas": service.scaling.min_replicas,
            **_workload(release, release.parallelism, service.resources),
        }
        if release.prefill is not None:
            prefill = release.prefill
            workload = _workload(release, prefill.parallelism, prefill.resources)
            spec["prefill"] = {"replicas": prefill.replicas, **workload}
        if release.router is not None:
            spec["router"] = _router(release)
        if release.base_refs:
            spec["baseRefs"] = [{"name": name} for name in release.base_refs]
        metadata = {
            "name": service.name,
            "namespace": service.namespace,
            "labels": dict(service.labels),
            "annotations": dict(service.annotations),
        }
        return [{"apiVersion": self.api_version, "kind": _KIND, "metadata": metadata, "spec": spec}]

    def objects(self, service: Service) -> list[Ref]:
        """The LLMInferenceService."""
        return [Ref(self.api_version, _KIND, service.name, service.namespace)]

    def previews(self, service: Service) -> bool:  # noqa: ARG002
        """No: a rollout replaces the pods before."""
        return False

    def needs(self, release: LLMService) -> Mapping[str, Ref]:
        """The Secrets of its containers."""
        return secret_refs(release.service, {})

    def revisions(self, service: Service) -> Sequence[Selection]:  # noqa: ARG002
        """None: revisions are KServe's own."""
        return ()

    def children(self, release: LLMService) -> Sequence[Selection]:
        """What KServe makes of it, down to the pods, and the events of the namespace."""
        service = release.service
        labels = {"app.kubernetes.io/name": service.name, "app.kubernetes.io/part-of": "llminferenceservice"}
        return (
            Selection("apps/v1", "Deployment", service.namespace, labels),
            Selection("v1", "Service", service.namespace, labels),
            Selection("v1", "Pod", service.namespace, labels),
            Selection("v1", "Event", service.namespace),
        )

    def health(self, release: LLMService, observed: Sequence[Manifest]) -> Health:
        """The verdict on the pods of the release's own revision, then KServe's on the way there."""
        found = next((m for m in observed if m["kind"] == _KIND), None)
        if found is None:
            return Health.progressing("the LLMInferenceService is not there yet")
        if str((found["metadata"].get("annotations") or {}).get(_STOP, "")).lower() == "true":
            return Health.failed(f"the LLMInferenceService is stopped: take its annotation {_STOP} away")
        runs = _revision_of(found["spec"].get("template"))
        if runs != release.revision:
            return Health.failed(f"somebody else changed the LLMInferenceService: it asks for revision {runs}")
        states = list(_workloads(release, observed))
        for state in (HealthState.FAILED, HealthState.STALLED):
            if health := next((one for one in states if one.state is state), None):
                return health
        missing = next((one for one in states if one.state is not HealthState.READY), None)
        said = _conditions(found, observed)
        if missing is not None:
            # of pods that are on their way, KServe has nothing to say that they do not say better
            return said if "KServe has not" in missing.why and said.state is HealthState.STALLED else missing
        return said

    def endpoint(self, release: LLMService, observed: Sequence[Manifest]) -> Endpoint:
        """The address through the gateway, or that of the Service in the cluster."""
        service = release.service
        status = next((m.get("status") or {} for m in observed if m["kind"] == _KIND), {})
        made = next((m for m in observed if m["kind"] == "Service" and _ports(m)), None)
        name = f"{service.name}-kserve-workload-svc" if made is None else made["metadata"]["name"]
        scheme = "http" if made is None else _ports(made)[0]["name"]
        usual = f"{scheme}://{name}.{service.namespace}.svc.cluster.local:{_PORT}"
        return Endpoint(
            name=service.name,
            url=(status.get("url") if release.router is not None else None) or usual,
            model=service.name,
            revision=release.revision,
            protocols=("openai",),
            takes="tensors",
        )

    def _check(self, release: LLMService) -> None:
        service, scaling = release.service, release.service.scaling
        if service.port is not None:
            raise InvalidValue("Service.port", service.port, f"KServe's own is {_PORT}: leave this out")
        if service.router is not None:
            raise InvalidValue("Service.router", service.router, "LLMService.router brings requests here")
        if service.kserve is not None:
            raise InvalidValue("Service.kserve", service.kserve, "this is for an InferenceService: leave it out")
        if scaling.min_replicas < 1:
            raise InvalidValue("Scaling.min_replicas", 0, "use at least 1")
        if scaling.max_replicas not in (None, scaling.min_replicas):
            raise InvalidValue("Scaling.max_replicas", scaling.max_replicas, "the number is fixed: leave this out")
        for key in service.env:
            if key in (_REVISION, _ARGS):
                raise InvalidValue("Service.env key", key, "longshore sets it: use LLMService.args for arguments")
        scheme, found, rest = release.uri.partition("://")
        if not found or scheme not in _SCHEMES or not rest.partition("/")[0]:
            raise InvalidValue("LLMService.uri", release.uri, f"KServe takes {', '.join(f'{s}://' for s in _SCHEMES)}")
        if release.args and self.version < _ARGS_SINCE:
            raise InvalidValue(
                "LLMService.args",
                list(release.args),
                f"KServe's vLLM takes them since {dotted(_ARGS_SINCE)}, and the cluster's schema tells of "
                f"{dotted(self.version)} only: give kserve_version, or a config with them in base_refs",
            )


def _workload(release: LLMService, parallelism: Parallelism, resources: Resources) -> dict[str, Any]:
    """The pods that run the model, laid over what KServe has for them: containers are merged by name."""
    service = release.service
    env = {**service.env, _REVISION: release.revision}
    if release.args:
        # the container's script has a shell read it once more
        env[_ARGS] = shlex.join(release.args)
    container: dict[str, Any] = {"name": _CONTAINER, **environment(env, service.secrets)}
    if given := container_resources(resources):
        container["resources"] = given
    if service.image is not None:
        container["image"] = service.image
    pod = {**scheduling(service), "containers": [container]}
    fields = {
        "tensor": parallelism.tensor,
        "pipeline": parallelism.pipeline,
        "data": parallelism.data,
        "dataLocal": parallelism.data_local,
        "expert": parallelism.expert or None,
    }
    workload: dict[str, Any] = {"template": pod}
    if spread := {name: value for name, value in fields.items() if value is not None}:
        workload["parallelism"] = spread
    if parallelism.nodes > 1:
        workload["worker"] = pod
    return workload


def _router(release: LLMService) -> dict[str, Any]:
    router = release.router
    assert router is not None  # noqa: S101 - for the type checker: it is asked for
    rendered: dict[str, Any] = {"route": {}}
    if router.routes:
        rendered["route"] = {"http": {"refs": [{"name": name} for name in router.routes]}}
    if router.gateways:
        places = [value.rpartition("/") for value in router.gateways]
        refs = [{"name": name, "namespace": namespace or release.service.namespace} for namespace, _, name in places]
        rendered["gateway"] = {"refs": refs}
    elif not router.routes:
        rendered["gateway"] = {}
    if router.scheduler:
        rendered["scheduler"] = {}
    return rendered


def _revision_of(pod: Mapping[str, Any] | None) -> str | None:
    for container in (pod or {}).get("containers") or ():
        for variable in container.get("env") or ():
            if container["name"] == _CONTAINER and variable["name"] == _REVISION:
                value: str | None = variable.get("value")
                return value
    return None


def _ports(service: Manifest) -> Sequence[Mapping[str, Any]]:
    """The ports of the Service before the pods that run the model; none of another."""
    if service["metadata"]["labels"].get(_COMPONENT) != _MAIN:
        return ()
    return [port for port in service["spec"].get("ports") or () if port.get("port") == _PORT]


def _workloads(release: LLMService, observed: Sequence[Manifest]) -> Iterator[Health]:
    """The verdict on the pods that run the model, on those that read prompts, and on the scheduler."""
    parts = [(_MAIN, release.parallelism, release.service.scaling.min_replicas)]
    if release.prefill is not None:
        parts.append((_PREFILL, release.prefill.parallelism, release.prefill.replicas))
    events = [m for m in observed if m["kind"] == "Event"]
    for component, parallelism, replicas in parts:
        if parallelism.nodes > 1:
            pods = [pod for part in _ACROSS[component] for pod in _of("Pod", part, observed)]
            yield _across_nodes(release.revision, pods, replicas * parallelism.nodes, events)
            continue
        pods = _of("Pod", component, observed)
        yield _one_node(release.revision, component, _of("Deployment", component, observed), pods, replicas, events)
    if release.router is not None and release.router.scheduler:
        made = _of("Deployment", _SCHEDULER, observed)
        if not made:
            yield Health.progressing("KServe has not made the scheduler's Deployment yet")
        else:
            yield deployment_health(made[0], _of("Pod", _SCHEDULER, observed), events)


def _of(kind: str, component: str, observed: Sequence[Manifest]) -> list[Manifest]:
    return [m for m in observed if m["kind"] == kind and m["metadata"]["labels"].get(_COMPONENT) == component]


def _one_node(
    revision: str,
    component: str,
    deployments: Sequence[Manifest],
    pods: Sequence[Manifest],
    replicas: int,
    events: Sequence[Manifest],
) -> Health:
    if not deployments:
        return Health.progressing(f"KServe has not made the Deployment of the {component} yet")
    deployment = deployments[0]
    name = deployment["metadata"]["name"]
    if _revision_of(deployment["spec"]["template"]["spec"]) != revision:
        return Health.progressing(f"KServe has not passed this revision on to Deployment {name} yet")
    ours = [pod for pod in pods if _revision_of(pod["spec"]) == revision]
    health = deployment_health(deployment, ours, events)
    if health.state is not HealthState.READY:
        return health
    scaled = deployment["spec"].get("replicas", 1)
    if scaled != replicas:
        return Health.progressing(f"the Deployment {name} is for {scaled} pods yet, {replicas} are asked for")
    return _ending(len(pods) - len(ours))


def _across_nodes(revision: str, pods: Sequence[Manifest], wanted: int, events: Sequence[Manifest]) -> Health:
    ours = [pod for pod in pods if _revision_of(pod["spec"]) == revision]
    for health in (pod_health(pod, events) for pod in ours):
        if health is not None:
            return health
    conditions = [c for pod in ours for c in (pod.get("status") or {}).get("conditions") or ()]
    ready = sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    if not ours:
        return Health.progressing("KServe has not had pods of this revision made yet")
    if ready != wanted:
        return Health.progressing(f"{ready} of {wanted} pods are ready")
    return _ending(len(pods) - len(ours))


def _ending(others: int) -> Health:
    # until they are gone, they may still be sent requests
    return Health.progressing(f"{others} pods of another revision are ending") if others else Health.ready()


def _conditions(service: Manifest, observed: Sequence[Manifest]) -> Health:
    """What KServe says of the generation that is there now."""
    status = service.get("status") or {}
    if (status.get("observedGeneration") or 0) < service["metadata"].get("generation", 0):
        return Health.progressing("KServe has not seen the change of the LLMInferenceService yet")
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if conditions.get("Ready", {}).get("status") == "True":
        return Health.ready()
    # the whole repeats the reason of one of its parts, and of pods that are on their way KServe only knows later
    failed = [c for kind, c in sorted(conditions.items()) if c["status"] == "False" and kind != "Ready"]
    failed = [c for c in failed if "Workload" not in c["type"] or (c.get("reason") or "").endswith("Error")]
    told = next((c for c in failed if c.get("message")), next(iter(failed), None))
    words = _last_error(service, observed)
    if told is None and words is None:
        return Health.progressing("KServe has not said yet that the LLMInferenceService is Ready")
    parts = [] if told is None else [told["type"], told.get("reason"), told.get("message")]
    why = ": ".join(part for part in parts if part)
    return Health.stalled(f"KServe does not get on: {why or words}{f' ({words})' if why and words else ''}")


def _last_error(service: Manifest, observed: Sequence[Manifest]) -> str | None:
    """KServe's last words on why it could not carry the change out."""
    uid = service["metadata"].get("uid")
    said = [m for m in observed if m["kind"] == "Event" and (m.get("involvedObject") or {}).get("uid") == uid]
    said = [m for m in said if m.get("type") == "Warning" and m.get("reason") == "Error"]
    said.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return (said[-1].get("message") or "").strip() or None if said else None
