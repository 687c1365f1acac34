"""Reading an InferenceService: pure functions on it and on what KServe has made of it.

Its own status lags: right after a change it is that of the revision before, ``observedGeneration`` counts the child's
generations, and a crash loop of the new pods shows as Ready for ten minutes. So the verdict comes from the Deployment
or Knative Service that carries the revision, and from its pods; KServe's word counts where it refuses to make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from longshore.spec import Health, HealthState
from longshore.targets.base import REVISION_LABEL, Manifest
from longshore.targets.workload import deployment_health, pod_health

__all__ = ["INFERENCE_SERVICE_LABEL", "inference_service_health"]

INFERENCE_SERVICE_LABEL: Final = "serving.kserve.io/inferenceservice"
"""KServe's label of all that it makes for an InferenceService."""

_COMPONENT_LABEL: Final = "component"
_STOP: Final = "serving.kserve.io/stop"
_COMPONENTS: Final = ("predictor", "transformer", "explainer")
_KNATIVE: Final = "serving.knative.dev/"
_REFUSALS: Final = frozenset({"InternalError", "ServerlessModeRejected", "UpdateFailed"})
# words of what trying again does not mend
_HOPELESS: Final = ("storageuri not supported", "is invalid", "must be no more than", "not available")


def inference_service_health(wanted: Manifest, observed: Sequence[Manifest]) -> Health:
    """Whether an InferenceService serves what it was last asked to.

    Args:
        wanted: The InferenceService as it was applied; the predictor's labels name the revision.
        observed: The InferenceService, and everything with its label: Deployments or Knative Services and Revisions,
            pods; and the events of its namespace.
    """
    made = _Made(wanted, observed)
    service = made.service
    if service is None:
        return Health.progressing("the InferenceService is not there yet")
    metadata = service["metadata"]
    if str((metadata.get("annotations") or {}).get(_STOP, "")).lower() == "true":
        return Health.failed(f"the InferenceService is stopped: take its annotation {_STOP} away")
    runs = (service["spec"]["predictor"].get("labels") or {}).get(REVISION_LABEL)
    if runs != made.revision:
        return Health.failed(f"somebody else changed the InferenceService: it asks for revision {runs}")
    names = [name for name in _COMPONENTS if name in wanted["spec"]]
    missing = {name: why for name in names if (why := made.missing(name)) is not None}
    states = [made.component(name) for name in names if name not in missing]
    for state in (HealthState.FAILED, HealthState.STALLED):
        if found := next((health for health in states if health.state is state), None):
            return found
    if missing:
        return made.refusal() or Health.progressing(next(iter(missing.values())))
    if found := next((health for health in states if health.state is not HealthState.READY), None):
        return found
    return _conditions(service)


class _Made:
    """An InferenceService with all that belongs to it."""

    def __init__(self, wanted: Manifest, observed: Sequence[Manifest]) -> None:
        self.wanted = wanted
        self.name: str = wanted["metadata"]["name"]
        self.revision: str = wanted["spec"]["predictor"]["labels"][REVISION_LABEL]
        self.service = next((m for m in observed if m["kind"] == "InferenceService"), None)
        self.events = [m for m in observed if m["kind"] == "Event"]
        self.pods = [m for m in observed if m["kind"] == "Pod"]
        self.deployments = _by_name(m for m in observed if m["kind"] == "Deployment")
        self.knative = _mode(wanted) == "Knative"
        knative = [m for m in observed if m["apiVersion"].startswith(_KNATIVE)]
        self.knative_services = _by_name(m for m in knative if m["kind"] == "Service")
        self.knative_revisions = _by_name(m for m in knative if m["kind"] == "Revision")

    def missing(self, component: str) -> str | None:
        """What KServe has still to do before there is anything of this revision to look at, None if nothing."""
        child = self._child(component)
        if child is None:
            kind = "Knative Service" if self.knative else "Deployment"
            return f"KServe has not made the {kind} {self.name}-{component} yet (if it never does, its log says why)"
        template = child["spec"]["template"]["metadata"]
        asked = self.wanted["spec"][component]
        labels = {**self.wanted["metadata"].get("labels", {}), **asked["labels"]}
        annotations = dict(asked["annotations"])
        if self.knative:
            annotations["autoscaling.knative.dev/min-scale"] = str(asked["minReplicas"])
        if _covers(template.get("labels") or {}, labels) and _covers(template.get("annotations") or {}, annotations):
            return None
        return f"KServe has not passed this revision on to {child['kind']} {child['metadata']['name']} yet"

    def component(self, name: str) -> Health:
        """The verdict on the predictor, the transformer or the explainer, which is there."""
        pods = [pod for pod in self.pods if pod["metadata"]["labels"].get(_COMPONENT_LABEL) == name]
        ours = [pod for pod in pods if pod["metadata"]["labels"].get(REVISION_LABEL) == self.revision]
        child = self._child(name)
        assert child is not None  # noqa: S101 - for the type checker: nothing is missing
        if self.knative:
            return self._knative_health(child, self.wanted["spec"][name], ours)
        health = deployment_health(child, ours, self.events)
        if health.state in (HealthState.FAILED, HealthState.STALLED):
            return health
        low, scaled = self.wanted["spec"][name]["minReplicas"], child["spec"].get("replicas", 1)
        if scaled < low or (scaled > low and self._annotation("serving.kserve.io/autoscalerClass") == "none"):
            where = child["metadata"]["name"]
            return Health.progressing(f"the Deployment {where} is for {scaled} pods yet, {low} are asked for")
        if health.state is HealthState.READY and len(ours) < len(pods):
            # until they are gone, nodes that do not know it yet send them requests
            return Health.progressing(f"{len(pods) - len(ours)} pods of another revision are ending")
        return health

    def _child(self, component: str) -> Manifest | None:
        name = f"{self.name}-{component}"
        return self.knative_services.get(name) if self.knative else self.deployments.get(name)

    def _annotation(self, key: str) -> str | None:
        value: str | None = self.wanted["metadata"].get("annotations", {}).get(key)
        return value

    def _knative_health(self, service: Manifest, asked: Mapping[str, Any], pods: Sequence[Manifest]) -> Health:
        name, status = service["metadata"]["name"], service.get("status") or {}
        if (status.get("observedGeneration") or 0) < service["metadata"].get("generation", 0):
            return Health.progressing(f"the Knative Service {name} was changed and Knative has not seen that yet")
        created, ready = status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")
        for pod in pods:
            # a revision from before a change of nothing but scale has this label too
            if created is not None and pod["metadata"]["labels"].get("serving.knative.dev/revision") != created:
                continue
            if (health := pod_health(pod, self.events)) is not None:
                return health
        if created is None or created != ready:
            return self._knative_revision(name, created)
        return _knative_traffic(name, asked.get("canaryTrafficPercent", 100), status)

    def _knative_revision(self, child: str, created: str | None) -> Health:
        revision = self.knative_revisions.get(created or "")
        for condition in _conditions_of(revision):
            if condition["type"] == "Ready" and condition["status"] == "False":
                why = condition.get("message") or condition.get("reason") or "no reason is given"
                return Health.failed(f"Knative Revision {created}: {why}")
        return Health.progressing(f"Knative Revision {created or f'of {child}'} is not ready yet")

    def refusal(self) -> Health | None:
        """Why KServe does not make of the InferenceService what it asks for, None if it does not say."""
        service = self.service or {}
        applied = _applied(service)
        said = [event for event in self._own_events() if event.get("reason") in _REFUSALS]
        # another writer came first: KServe tries again by itself
        said = [event for event in said if "the object has been modified" not in (event.get("message") or "")]
        said = [event for event in said if _time(event.get("lastTimestamp") or event.get("eventTime")) >= applied]
        words = (said[-1].get("message") or "").strip() if said else ""
        status = (service.get("status") or {}).get("modelStatus") or {}
        if status.get("transitionStatus") == "InvalidSpec":
            info = status.get("lastFailureInfo") or {}
            told = ": ".join(part for part in (info.get("reason"), info.get("message")) if part)
            why = f"KServe refuses it: {told}{f' ({words})' if words and words not in told else ''}"
            # the word may be on the revision before; events show that it is on this one
            return Health.failed(why) if words or _status_time(service) >= applied else Health.stalled(why)
        if not words:
            return None
        why = f"KServe cannot carry it out: {words}"
        return Health.failed(why) if any(hint in words.lower() for hint in _HOPELESS) else Health.stalled(why)

    def _own_events(self) -> list[Manifest]:
        """The InferenceService's own events, oldest first."""
        uid = (self.service or {}).get("metadata", {}).get("uid")
        own = [event for event in self.events if (event.get("involvedObject") or {}).get("uid") == uid]
        return sorted(own, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")


def _mode(wanted: Manifest) -> str:
    mode = wanted["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    return "Knative" if mode in ("Knative", "Serverless") else "Standard"


def _knative_traffic(child: str, percent: int, status: Mapping[str, Any]) -> Health:
    for condition in status.get("conditions") or ():
        if condition["type"] == "RoutesReady" and condition["status"] != "True":
            why = condition.get("message") or condition.get("reason") or "no reason is given"
            return Health.progressing(f"Knative Service {child}: routes are not ready: {why}")
    newest = [entry for entry in status.get("traffic") or () if entry.get("latestRevision")]
    # a first revision has nothing to share with
    alone = len(status.get("traffic") or ()) == 1
    if any((entry.get("percent") or 0) == percent or alone for entry in newest):
        return Health.ready()
    return Health.progressing(f"Knative Service {child} does not send {percent} % of the requests to it yet")


def _conditions(service: Manifest) -> Health:
    """KServe's own word on the whole, once everything that it made is as it should be.

    Its modelStatus is not asked: KServe does not look again when the last pod of a failed revision has gone, and then
    calls a restored one BlockedByFailedLoad for good; one that was scaled to zero stays InProgress.
    """
    for condition in _conditions_of(service):
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return Health.ready()
            why = ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
            return Health.progressing(f"the InferenceService is not Ready yet{f': {why}' if why else ''}")
    return Health.progressing("KServe has not said yet whether the InferenceService is Ready")


def _conditions_of(manifest: Manifest | None) -> Sequence[Mapping[str, Any]]:
    return ((manifest or {}).get("status") or {}).get("conditions") or ()


def _covers(has: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(has.get(key) == value for key, value in wanted.items())


def _by_name(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests}


def _applied(service: Manifest) -> float:
    """When the InferenceService was last asked for something, in seconds; whole ones, as Kubernetes notes them."""
    entries = service["metadata"].get("managedFields") or ()
    return max((_time(entry.get("time")) for entry in entries if entry.get("operation") == "Apply"), default=0.0)


def _status_time(service: Manifest) -> float:
    entries = service["metadata"].get("managedFields") or ()
    return max((_time(entry.get("time")) for entry in entries if entry.get("subresource") == "status"), default=0.0)


def _time(text: str | None) -> float:
    return 0.0 if text is None else datetime.fromisoformat(text).timestamp()
