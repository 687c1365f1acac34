"""Reading a SeldonDeployment: pure functions on it and on what Seldon has made of it.

Seldon writes no ``observedGeneration``. Right after a change the state is that of before, and where nothing changes in
it, nothing is written at all, so no later word can be waited for. ``Failed`` may be over in a moment: any error in
carrying it out sets it. So the verdict on a revision comes from the Deployments that bear its label, and from their
pods; Seldon's own word counts where it refuses to make them.

Requests are shared out anew only once the Deployments of all predictors are available, so a revision beside the new one
can hold that up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.spec import Health, HealthState, Release
from longshore.targets.availability import autoscaler_health
from longshore.targets.base import REVISION_LABEL, Manifest
from longshore.targets.workload import deployment_health

__all__ = ["DEPLOYMENT_LABEL", "VIRTUAL_SERVICE", "seldon_health"]

DEPLOYMENT_LABEL: Final = "seldon-deployment-id"
"""Seldon's label of all that it makes for a SeldonDeployment, its pods included."""

VIRTUAL_SERVICE: Final = ("networking.istio.io/v1beta1", "VirtualService")
"""What Seldon has Istio share requests out by, in the version that all of Istio's serve."""

_SHADOW: Final = "seldon.io/shadow"
_BAD: Final = (HealthState.FAILED, HealthState.STALLED)


def seldon_health(release: Release, wanted: Manifest, observed: Sequence[Manifest], *, routed: bool = False) -> Health:
    """Whether a SeldonDeployment serves the release as it was last asked to.

    Args:
        release: The release.
        wanted: The SeldonDeployment as it was applied; its last predictor is the release's.
        observed: The SeldonDeployment; the Deployments, pods and autoscalers with its label; the VirtualServices and
            events of its namespace.
        routed: Whether Istio shares its requests out.
    """
    found = next((m for m in observed if m["kind"] == "SeldonDeployment"), None)
    if found is None:
        return Health.progressing("the SeldonDeployment is not there yet")
    if "deletionTimestamp" in found["metadata"]:
        return Health.progressing("the SeldonDeployment of before is still being deleted")
    if (other := _changed(wanted, found)) is not None:
        return Health.failed(f"somebody else changed the SeldonDeployment: it asks for {other}")
    seen = _Seen(release, wanted, found, observed)
    own = seen.revision()
    if own.state is not HealthState.READY:
        return own
    if seen.waits_for_nobody:
        return own
    whole = seen.whole()
    return seen.routes() if routed and whole.state is HealthState.READY else whole


def _changed(wanted: Manifest, found: Manifest) -> str | None:
    """What the SeldonDeployment asks for, where that is not what was applied."""

    def shares(manifest: Manifest) -> dict[str, tuple[int, bool]]:
        predictors = manifest["spec"].get("predictors") or ()
        return {one["name"]: (one.get("traffic") or 0, bool(one.get("shadow"))) for one in predictors}

    asks = shares(found)
    if asks == shares(wanted):
        return None
    return ", ".join(f"{traffic} % to {name}{' as a copy' * shadow}" for name, (traffic, shadow) in asks.items())


class _Seen:
    """A SeldonDeployment with all that belongs to it."""

    def __init__(self, release: Release, wanted: Manifest, found: Manifest, observed: Sequence[Manifest]) -> None:
        self.release, self.observed = release, observed
        self.predictor: Mapping[str, Any] = wanted["spec"]["predictors"][-1]
        self.status: Mapping[str, Any] = found.get("status") or {}
        self.deployments = [m for m in observed if m["kind"] == "Deployment"]
        self.pods = [m for m in observed if m["kind"] == "Pod"]
        self.events = [m for m in observed if m["kind"] == "Event"]

    @property
    def waits_for_nobody(self) -> bool:
        """Whether the revision gets no requests and no copies: who gets them does not matter to it."""
        return bool(self.release.beside) and not self.predictor["traffic"]

    def revision(self) -> Health:
        """The verdict on the release's own Deployments."""
        deployments = [one for one in self.deployments if _revision_of(one) == self.release.revision]
        states = [self._deployment(one) for one in deployments]
        if bad := next((one for one in states if one.state in _BAD), None):
            return bad
        explainer = 1 if "explainer" in self.predictor else 0
        if len(deployments) < 1 + explainer:
            what = "Deployment" if not deployments else "explainer's Deployment"
            return self._refusal() or Health.progressing(
                f"Seldon has not made the {what} of {self.release.revision} yet (if it never does, its log says why)"
            )
        return next((one for one in states if one.state is not HealthState.READY), Health.ready())

    def whole(self) -> Health:
        """Seldon's own word, once the revision's Deployments are as they should be."""
        state = self.status.get("state")
        if state == "Available":
            return Health.ready()
        for other in (one for one in self.deployments if _revision_of(one) != self.release.revision):
            health = self._rollout(other)
            if health.state is not HealthState.READY:
                return Health.stalled(
                    "Seldon shares requests out once all revisions are available, and "
                    f"{_revision_of(other) or other['metadata']['name']} is not: {health.why}"
                )
        return self._refusal() or Health.progressing(
            f"the SeldonDeployment is {state} yet" if state else "Seldon has not said yet how the SeldonDeployment is"
        )

    def routes(self) -> Health:
        """Whether Istio was told the new shares."""
        service = self.release.service
        route = next(
            (m for m in self.observed if m["kind"] == "VirtualService" and m["metadata"]["name"] == service.name), None
        )
        if route is None:
            return Health.stalled(
                "Seldon has made no VirtualService: was its operator installed for Istio (istio.enabled)?"
            )
        host = f"{self.release.revision}.{service.namespace}.svc.cluster.local"
        rule: Mapping[str, Any] = next(iter(route["spec"].get("http") or ()), {})
        if self.predictor.get("shadow"):
            told = (rule.get("mirror") or {}).get("host") == host and (rule.get("mirrorPercentage") or {}).get("value")
        else:
            told = sum(one.get("weight", 100) for one in rule.get("route") or () if one["destination"]["host"] == host)
        share = self.predictor["traffic"]
        if told == share:
            return Health.ready()
        return Health.progressing(f"the VirtualService sends {told or 0:g} % of the requests to it yet, not {share} %")

    def _deployment(self, deployment: Manifest) -> Health:
        template = deployment["spec"]["template"]["metadata"]
        labels = template.get("labels") or {}
        passed_on = (
            _covers(labels, self.predictor["labels"])
            and _covers(template.get("annotations") or {}, self.predictor["annotations"])
            and (labels.get(_SHADOW) == "true") == bool(self.predictor.get("shadow"))
        )
        name = deployment["metadata"]["name"]
        if not passed_on:
            return Health.progressing(f"Seldon has not passed this revision on to the Deployment {name} yet")
        health = self._rollout(deployment)
        if health.state is not HealthState.READY or name.endswith("-explainer"):
            return health
        scaling, number = self.release.service.scaling, deployment["spec"].get("replicas", 1)
        if "replicas" in self.predictor and number != scaling.min_replicas:
            return Health.progressing(
                f"the Deployment {name} is for {number} pods yet, {scaling.min_replicas} are asked for"
            )
        return autoscaler_health(scaling, deployment, self.observed)

    def _rollout(self, deployment: Manifest) -> Health:
        labels = deployment["spec"]["template"]["metadata"].get("labels") or {}
        # a Deployment's pods have its name and the revision among their labels
        mine = {key: labels[key] for key in ("app", REVISION_LABEL) if key in labels}
        pods = [pod for pod in self.pods if _covers(pod["metadata"].get("labels") or {}, mine)]
        return deployment_health(deployment, pods, self.events)

    def _refusal(self) -> Health | None:
        """Why Seldon does not carry out what it is asked, None if it does not say."""
        if self.status.get("state") != "Failed":
            return None
        # even if it is of before: were it said once more, nothing would be written
        why = self.status.get("description") or "it gives no reason"
        return Health.stalled(f"Seldon cannot carry the SeldonDeployment out: {why}")


def _revision_of(deployment: Manifest) -> str | None:
    revision: str | None = (deployment["metadata"].get("labels") or {}).get(REVISION_LABEL)
    return revision


def _covers(has: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(has.get(key) == value for key, value in wanted.items())
