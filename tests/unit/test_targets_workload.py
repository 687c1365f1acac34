"""Reading Deployments and pods: the verdict, and the words of whoever knows."""

import pytest

from longshore.spec import HealthState
from longshore.targets.workload import deployment_health, pod_health

READY = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def deployment(**status):
    return {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {**READY, **status}}


def pod(*containers, init=(), phase="Pending", conditions=(), **metadata):
    return {
        "metadata": {"name": "iris-1", "uid": "u1", **metadata},
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": list(containers),
            "initContainerStatuses": list(init),
        },
    }


def container(reason=None, message="", *, last=None, image="server:1", state=None):
    made = {"name": "server", "image": image, "state": state or {}}
    if reason is not None:
        made["state"] = {"waiting": {"reason": reason, "message": message}}
    if last is not None:
        made["lastState"] = {"terminated": last}
    return made


def event(reason, message="", kind="Warning", uid="u1", at="2026-01-01T00:00:00Z"):
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message, "type": kind, "lastTimestamp": at}


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 1},
        {"updatedReplicas": 1},
        {"availableReplicas": 1},
        {"replicas": 3},
        {"unavailableReplicas": 1},
    ],
)
def test_a_deployment_is_ready_only_when_nothing_is_missing(status):
    assert deployment_health(deployment(), []).state is HealthState.READY
    assert deployment_health(deployment(**status), []).state is HealthState.PROGRESSING


def test_a_deployment_without_a_status_has_not_been_seen():
    new = {"metadata": {"generation": 1}, "spec": {"replicas": 1}}
    assert "has not seen that yet" in deployment_health(new, []).why


def test_refused_pods_are_told_with_the_quota():
    condition = {"type": "ReplicaFailure", "status": "True", "message": "pods are forbidden: exceeded quota: small"}
    health = deployment_health(deployment(updatedReplicas=0, conditions=[condition]), [])
    assert health.state is HealthState.STALLED
    assert "exceeded quota: small" in health.why


def test_the_deployments_own_deadline_is_a_failure():
    condition = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet has timed out progressing.",
    }
    health = deployment_health(deployment(updatedReplicas=1, conditions=[condition]), [])
    assert health.state is HealthState.FAILED
    assert "timed out progressing" in health.why


def test_what_is_missing_is_told_with_the_newest_warning():
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])
    events = [
        event("Unhealthy", "second", at="2026-01-01T00:00:02Z"),
        event("Unhealthy", "first"),
        event("Unhealthy", "of another", uid="u2", at="2026-01-01T00:00:09Z"),
    ]
    health = deployment_health(deployment(availableReplicas=1), [ready, pod()], events)
    assert health.why == "1 of 2 pods are ready; pod iris-1: second"


def test_old_pods_that_are_left_are_told():
    ready = pod(conditions=[{"type": "Ready", "status": "True"}])
    assert "1 pods of the revision before" in deployment_health(deployment(replicas=3), [ready, ready]).why
    # what is missing comes first
    assert "1 of 2 pods are ready" in deployment_health(deployment(replicas=3), [ready, pod()]).why


CRASHED = {"exitCode": 1, "message": "Traceback\nValueError: bad model"}
FAILED = {
    "image": (pod(container("ImagePullBackOff", 'Back-off pulling image "server:1"')), "the image cannot be pulled"),
    "image name": (pod(container("InvalidImageName", "no", image="A")), "the image A cannot be pulled: no"),
    "image that is nowhere": (
        pod(container("ErrImagePull", "server:1: not found")),
        "the image cannot be pulled: server:1: not found",
    ),
    "config": (pod(container("CreateContainerConfigError", 'secret "x" not found')), 'secret "x" not found'),
    "command": (pod(container("RunContainerError", 'exec: "x": executable file not found')), "executable file not"),
    "crash": (pod(container("CrashLoopBackOff", last=CRASHED)), "its log ends with: Traceback\nValueError: bad model"),
    "crash without a log": (pod(container("CrashLoopBackOff", last={"exitCode": 3})), "exit code 3"),
    "memory": (
        pod(container("CrashLoopBackOff", last={"exitCode": 137, "reason": "OOMKilled"})),
        "killed for using more memory than its limit",
    ),
    "init container": (
        pod(container("PodInitializing"), init=[container("CrashLoopBackOff", last=CRASHED)]),
        "bad model",
    ),
    "evicted": (
        pod(phase="Failed") | {"status": {"phase": "Failed", "reason": "Evicted"}},
        "pod iris-1 failed: Evicted",
    ),
    "ended": (pod(container(state={"terminated": {"exitCode": 2, "message": "no"}}), phase="Failed"), "failed: no"),
}


@pytest.mark.parametrize("what", FAILED)
def test_what_will_not_come_up_by_itself_has_failed(what):
    broken, words = FAILED[what]
    health = pod_health(broken)
    assert health.state is HealthState.FAILED
    assert words in health.why
    assert "pod iris-1" in health.why
    assert deployment_health(deployment(availableReplicas=1), [pod(), broken]) == health


UNSCHEDULABLE = pod(
    conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3: Insufficient cpu"}
    ]
)
MOUNT = 'MountVolume.SetUp failed for volume "x": secret "y" not found'


def test_what_waits_for_others_has_stalled():
    health = pod_health(UNSCHEDULABLE)
    assert health.state is HealthState.STALLED
    assert "Insufficient cpu" in health.why
    health = pod_health(pod(container("ContainerCreating")), [event("FailedMount", MOUNT)])
    assert health.state is HealthState.STALLED
    assert MOUNT in health.why
    slow = pod(container("CreateContainerError", "context deadline exceeded"))
    assert pod_health(slow).state is HealthState.STALLED


@pytest.mark.parametrize("kind", ["secret", "configmap"])
def test_a_kubelet_that_has_not_looked_yet_is_waited_for(kind):
    said = f"failed to sync {kind} cache: timed out waiting for the condition"
    mount = event("FailedMount", f'MountVolume.SetUp failed for volume "x" : {said}')
    for health in (
        pod_health(pod(container("CreateContainerConfigError", said))),
        pod_health(pod(container("ContainerCreating")), [mount]),
    ):
        assert health.state is HealthState.PROGRESSING
        assert said in health.why


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_node_that_is_being_added_is_progress(reason):
    health = pod_health(UNSCHEDULABLE, [event(reason, kind="Normal")])
    assert health.state is HealthState.PROGRESSING


@pytest.mark.parametrize(
    "fine",
    [
        pod(container("ContainerCreating")),
        pod(container("ErrImagePull", "connection reset by peer")),
        pod(container(state={"running": {}}, last=CRASHED), phase="Running"),
        pod(container("CrashLoopBackOff", last=CRASHED), deletionTimestamp="2026-01-01T00:00:00Z"),
        {"metadata": {"name": "iris-1"}},
    ],
)
def test_what_may_still_come_up_is_left_alone(fine):
    assert pod_health(fine) is None


@pytest.mark.parametrize(
    "started",
    [
        container(state={"running": {}}),
        container(state={"terminated": {"exitCode": 1}}),
        container("PodInitializing", last={"exitCode": 1}),
    ],
)
def test_a_volume_that_was_mounted_late_is_no_trouble_any_more(started):
    assert pod_health(pod(started), [event("FailedMount", MOUNT)]) is None
