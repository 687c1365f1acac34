"""Reading Deployments and their pods: pure functions, for every platform that runs models in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from longshore.spec import Health
from longshore.targets.base import Manifest

__all__ = ["deployment_health", "pod_health"]

_CONFIG: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_IMAGE: Final = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_MOUNT: Final = frozenset({"FailedMount", "FailedAttachVolume"})
_CRASH: Final = "CrashLoopBackOff"
_SYNC: Final = re.compile(r"failed to sync \w+ cache")
"""What a kubelet says that has not heard of an object yet."""

_GROWING: Final = frozenset({"TriggeredScaleUp", "Nominated"})
"""Reasons of the events by which cluster-autoscaler and Karpenter say that a node is on its way."""

_MESSAGE_LINES: Final = 12


def deployment_health(deployment: Manifest, pods: Sequence[Manifest], events: Sequence[Manifest] = ()) -> Health:
    """Whether a Deployment has rolled out as it is asked for now.

    Args:
        deployment: The Deployment.
        pods: Pods of the revision that it asks for; those of others say nothing of it.
        events: Events of its namespace.

    Returns:
        Ready once all replicas are of this revision, are available, and none of another is left.
    """
    status = deployment.get("status") or {}
    if (status.get("observedGeneration") or 0) < deployment["metadata"].get("generation", 0):
        return Health.progressing("the Deployment was changed and its controller has not seen that yet")
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    wanted = deployment["spec"].get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    left = status.get("replicas", 0) - updated
    if updated == wanted and available >= wanted and left <= 0 and not status.get("unavailableReplicas"):
        return Health.ready()
    for health in (pod_health(pod, events) for pod in pods):
        if health is not None:
            return health
    refused = conditions.get("ReplicaFailure")
    if refused is not None and refused["status"] == "True":
        return Health.stalled(f"its pods are refused: {refused.get('message', refused.get('reason'))}")
    progress = conditions.get("Progressing")
    if progress is not None and progress.get("reason") == "ProgressDeadlineExceeded":
        return Health.failed(f"{progress.get('message', 'it made no progress in time')}{_warnings(pods, events)}")
    ready = sum(_condition(pod, "Ready").get("status") == "True" for pod in pods)
    if ready >= wanted and left > 0:
        return Health.progressing(f"{left} pods of the revision before are still there")
    return Health.progressing(f"{ready} of {wanted} pods are ready{_warnings(pods, events)}")


def pod_health(pod: Manifest, events: Sequence[Manifest] = ()) -> Health | None:
    """What keeps a pod from ever becoming ready, as failed or stalled; None if nothing is known to.

    A container that crashed once may come up at the second start; one that is being held back (CrashLoopBackOff)
    crashed twice.

    Args:
        pod: The pod; the message of a termination has the end of the log.
        events: Events of its namespace.
    """
    name = pod["metadata"]["name"]
    if "deletionTimestamp" in pod["metadata"]:
        return None
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        why = status.get("message") or status.get("reason") or _terminations(status) or "no reason is given"
        return Health.failed(f"pod {name} failed: {why}")
    for container, waiting in _waiting(status):
        reason, message = waiting.get("reason", ""), waiting.get("message") or ""
        where = f"pod {name}, container {container['name']}"
        if reason in _IMAGE or (reason == "ErrImagePull" and _hopeless(message)):
            known = "" if container["image"] in message else f" {container['image']}"
            return Health.failed(f"{where}: the image{known} cannot be pulled: {message or reason}")
        if reason in _CONFIG:
            why = f"{where}: {reason}: {message}"
            if _SYNC.search(message):
                # it has not even looked: what it finds is told next, if anything is amiss
                return Health.progressing(why)
            return Health.stalled(why) if _passing(message) else Health.failed(why)
        if reason == _CRASH:
            return Health.failed(f"{where} crashes again and again: {_crash(container)}")
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        if any(event.get("reason") in _GROWING for event in _about(pod, events)):
            return Health.progressing(f"pod {name} waits for a node that is being added")
        return Health.stalled(f"pod {name} cannot be scheduled: {scheduled.get('message', 'no node fits')}")
    mounts = [event for event in _about(pod, events) if event.get("reason") in _MOUNT]
    if mounts and not any(_ran(container) for container in _containers(status)):
        message = mounts[-1].get("message", "")
        why = f"pod {name}: a volume cannot be mounted: {message}"
        return Health.progressing(why) if _SYNC.search(message) else Health.stalled(why)
    return None


def _ran(container: Mapping[str, Any]) -> bool:
    """Whether a container runs or did, for which its pod's volumes were mounted."""
    states = (container.get("state") or {}, container.get("lastState") or {})
    return any("running" in state or "terminated" in state for state in states)


def _condition(pod: Manifest, kind: str) -> Mapping[str, Any]:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _containers(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(kind) or ()


def _waiting(status: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            yield container, waiting


def _hopeless(message: str) -> bool:
    """Whether a registry's words say that asking again is of no use; ErrImagePull alone may be a broken connection."""
    words = ("not found", "manifest unknown", "unauthorized", "denied", "invalid reference", "no match for platform")
    return any(word in message.lower() for word in words)


def _passing(message: str) -> bool:
    """Whether a kubelet's words tell of a time-out of its own: it tries again by itself."""
    return any(words in message.lower() for words in ("timed out", "timeout", "deadline exceeded"))


def _crash(container: Mapping[str, Any]) -> str:
    terminated = (container.get("lastState") or {}).get("terminated") or {}
    code = terminated.get("exitCode")
    how = (
        "killed for using more memory than its limit"
        if terminated.get("reason") == "OOMKilled"
        else f"exit code {code}"
    )
    lines = (terminated.get("message") or "").strip().splitlines()
    return f"{how}; its log ends with: " + "\n".join(lines[-_MESSAGE_LINES:]) if lines else how


def _terminations(status: Mapping[str, Any]) -> str:
    ended = ((container.get("state") or {}).get("terminated") for container in _containers(status))
    return "; ".join(t.get("message") or t.get("reason", "") for t in ended if t and t.get("exitCode"))


def _about(pod: Manifest, events: Sequence[Manifest]) -> list[Manifest]:
    """A pod's events, oldest first."""
    uid = pod["metadata"].get("uid")
    about = [event for event in events if (event.get("involvedObject") or {}).get("uid") == uid]
    return sorted(about, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")


def _warnings(pods: Sequence[Manifest], events: Sequence[Manifest]) -> str:
    """The newest warning on a pod that is not ready, such as the answer that its readiness probe gets."""
    for pod in pods:
        if _condition(pod, "Ready").get("status") != "True":
            warnings = [event for event in _about(pod, events) if event.get("type") == "Warning"]
            if warnings:
                return f"; pod {pod['metadata']['name']}: {warnings[-1].get('message', '').strip()}"
    return ""
